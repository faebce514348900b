"""Network namespaces without root, for machines that must meet nobody but us.

A process of its own makes them (network_namespaces(7), user_namespaces(7)): a thread of ours could not, since a
multithreaded process may not enter a user namespace. It hands out what belongs to a namespace as file descriptors
(unix(7), SCM_RIGHTS): the namespace itself, which nsenter(1) takes QEMU into, and sockets, which stay what they are
wherever they are used. It ends with the socket it is asked through, so with us, however we end.
"""

import contextlib
import ctypes
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
from types import TracebackType
from typing import NoReturn, Self

from vmtests.errors import HostError

_NEW, _SOCKET = b"n", b"s"
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000  # clone(2)
# netdevice(7); linux/sockios.h, linux/if.h
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCSIFADDR, _SIOCSIFNETMASK = 0x8913, 0x8914, 0x8916, 0x891C
_IFF_UP = 0x1
_REQUEST_BYTES = 256
_DATAGRAM_PORTS = (53, 123)
_END_SECONDS = 5.0


class Namespace:
    """A network namespace in which nothing is but the loopback interface, with one more address.

    `listening` listens on that address and port 80, `dns` and `ntp` are bound to its ports 53 and 123. It is gone
    when it is closed and the last process in it has ended.
    """

    def __init__(self, maker: "Namespaces", user: int | None, descriptors: list[int]) -> None:
        self._maker = maker
        self._user = user
        self._net = descriptors[0]
        self.listening, self.dns, self.ntp = (socket.socket(fileno=number) for number in descriptors[1:])

    @property
    def argv(self) -> list[str]:
        """What is put in front of a command line to run it in the namespace; the process inherits `fds`."""
        user = [] if self._user is None else [f"--user=/proc/self/fd/{self._user}", "--preserve-credentials"]
        return ["nsenter", *user, f"--net=/proc/self/fd/{self._net}"]

    @property
    def fds(self) -> list[int]:
        """The descriptors that `argv` needs."""
        return [self._net, *([] if self._user is None else [self._user])]

    def connect(self, port: int, timeout: float) -> socket.socket:
        """Return a connection to a port of 127.0.0.1 in the namespace; raises OSError."""
        connection = self._maker.new_socket(self._net)
        try:
            connection.settimeout(timeout)
            connection.connect(("127.0.0.1", port))
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Give it back."""
        for one in (self.listening, self.dns, self.ntp):
            one.close()
        if self._net >= 0:
            os.close(self._net)
            self._net = -1


class Namespaces:
    """Makes network namespaces; a context manager. Its methods may be called from any thread.

    Raises HostError when this host lets nobody make any.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._user: int | None = None

    def __enter__(self) -> Self:
        if shutil.which("nsenter") is None:
            raise HostError("nsenter is not installed", hint="it is part of util-linux")
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "vmtests.machine.netns", str(theirs.fileno()), self._address],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        try:
            descriptors = _answer(self._ours, 1)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self._user = descriptors[0] if descriptors else None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ours.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._user is not None:
            os.close(self._user)
            self._user = None

    def new(self) -> Namespace:
        """Return a new namespace."""
        return Namespace(self, self._user, self._ask(_NEW, [], 2 + len(_DATAGRAM_PORTS)))

    def new_socket(self, namespace: int) -> socket.socket:
        """Return a new TCP socket of a namespace."""
        return socket.socket(fileno=self._ask(_SOCKET, [namespace], 1)[0])

    def _ask(self, question: bytes, descriptors: list[int], count: int) -> list[int]:
        with self._lock:
            try:
                socket.send_fds(self._ours, [question], descriptors)
                return _answer(self._ours, count)
            except OSError as error:
                raise HostError(f"the maker of network namespaces has ended: {error.strerror}") from error


def _answer(channel: socket.socket, count: int) -> list[int]:
    """Return the descriptors of an answer, at most `count`; raises HostError when it is a refusal."""
    answer, descriptors, _, _ = socket.recv_fds(channel, _REQUEST_BYTES, count)
    if answer == b"ok":
        return descriptors
    reason = answer.decode(errors="replace") or "its maker ended at once"
    raise HostError(
        f"no network namespace can be made: {reason}",
        hint="user namespaces must be allowed (sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces), "
        "or run as root",
    )


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _serve(channel: socket.socket, address: str) -> None:
    """Answer until the other side has gone."""
    libc = ctypes.CDLL(None, use_errno=True)
    user = []
    if os.geteuid() != 0:
        uid, gid = os.geteuid(), os.getegid()
        _check(libc.unshare(_CLONE_NEWUSER))
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="utf-8") as file:  # noqa: PTH123 - no file on a disk
                file.write(text)
        user = [os.open("/proc/self/ns/user", os.O_RDONLY)]
    socket.send_fds(channel, [b"ok"], user)
    while True:
        question, descriptors, _, _ = socket.recv_fds(channel, _REQUEST_BYTES, 1)
        if not question:
            return
        made: list[int] = []
        try:
            if question == _NEW:
                _check(libc.unshare(_CLONE_NEWNET))
                made = _furnish(address)
            else:
                _check(libc.setns(descriptors[0], _CLONE_NEWNET))
                made = [socket.socket(socket.AF_INET, socket.SOCK_STREAM).detach()]
            socket.send_fds(channel, [b"ok"], made)
        except OSError as error:
            channel.send((error.strerror or "unknown").encode()[:_REQUEST_BYTES])
        for number in (*made, *descriptors):
            os.close(number)


def _furnish(address: str) -> list[int]:
    """Switch the loopback interface on, give it the address, and return the descriptors of `Namespace`."""
    packed = socket.inet_aton(address)
    with contextlib.ExitStack() as stack:
        control = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))

        def ask(request: int, name: bytes, value: bytes) -> bytes:
            return fcntl.ioctl(control, request, struct.pack("16s24s", name, value))

        flags = struct.unpack_from("H", ask(_SIOCGIFFLAGS, b"lo", b""), 16)[0]
        ask(_SIOCSIFFLAGS, b"lo", struct.pack("H", flags | _IFF_UP))
        ask(_SIOCSIFADDR, b"lo:1", struct.pack("HH4s", socket.AF_INET, 0, packed))
        ask(_SIOCSIFNETMASK, b"lo:1", struct.pack("HH4s", socket.AF_INET, 0, b"\xff" * 4))
        listening = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        listening.bind((address, 80))
        listening.listen(128)
        bound = [listening]
        for port in _DATAGRAM_PORTS:
            datagrams = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            datagrams.bind((address, port))
            bound.append(datagrams)
        return [os.open("/proc/self/ns/net", os.O_RDONLY), *(one.detach() for one in bound)]


def main() -> NoReturn:
    """Make namespaces for the process that started us."""
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        try:
            _serve(channel, sys.argv[2])
        except OSError as error:
            with contextlib.suppress(OSError):
                channel.send((error.strerror or "unknown").encode()[:_REQUEST_BYTES])
    sys.exit(0)


if __name__ == "__main__":
    main()
