"""The interactive serial console: an ssh server that connects a terminal with a serial port.

As Compute Engine's "Connecting to a VM using the serial console" has it: the user name says which port of which
instance (`PROJECT.ZONE.INSTANCE.USER[.port=N][.replay-lines=N]`), the key is one of `ssh-keys` for that user, and the
instance has `serial-port-enable` in its metadata.
"""

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass

import paramiko
from paramiko.common import (
    AUTH_FAILED,
    AUTH_SUCCESSFUL,
    OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED,
    OPEN_SUCCEEDED,
)

from vmtests.emulator.acceptor import Acceptor
from vmtests.emulator.http import ApiError
from vmtests.emulator.instance import SERIAL_PORTS, Instance, Status
from vmtests.emulator.server import listen
from vmtests.errors import VmtestsError
from vmtests.guest.ssh import HUNG_UP
from vmtests.sizes import whole

REPLAY_LINES = 10
"""Lines that are shown again at the start unless the user name says otherwise."""

_WAITING = 4 << 20  # bytes that a terminal may be behind, before it is hung up on
_READ = 32 << 10
_HANDSHAKE_SECONDS = 60.0
_YES = {"true", "1", "yes", "y"}

Find = Callable[[str, str, str], Instance]
"""Returns an instance by project, zone and name, or raises ApiError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a user name asks for."""

    project: str
    zone: str
    instance: str
    user: str
    port: int
    replay: int


def parse_user(name: str) -> Wish | None:
    """Read a user name; None when it asks for nothing that there is."""
    words = name.split(".")
    options = dict(word.split("=", 1) for word in words if "=" in word)
    plain = [word for word in words if "=" not in word]
    port, replay = whole(options.get("port", "1")), whole(options.get("replay-lines", str(REPLAY_LINES)))
    if len(plain) < 4 or port is None or replay is None or not 1 <= port <= SERIAL_PORTS:
        return None
    *project, zone, instance, user = plain
    return Wish(project=".".join(project), zone=zone, instance=instance, user=user, port=port, replay=replay)


class SerialGateway(Acceptor):
    """Serves the serial ports of instances on `port` of `host`; a context manager."""

    def __init__(self, host: str, port: int, find: Find) -> None:
        listening = listen(host, port)
        self.port: int = listening.getsockname()[1]
        self._key = paramiko.ECDSAKey.generate()
        self._find = find
        super().__init__(listening, self._talk, "serial-gateway")

    @property
    def host_key(self) -> str:
        """The public key of the gateway, as in known_hosts."""
        return f"{self._key.get_name()} {self._key.get_base64()}"

    def _talk(self, client: socket.socket) -> None:
        guard = _Guard(self._find)
        with contextlib.closing(paramiko.Transport(client)) as transport:
            transport.add_server_key(self._key)
            try:
                transport.start_server(server=guard)
            except (*HUNG_UP, paramiko.SSHException):
                return
            channel = transport.accept(_HANDSHAKE_SECONDS)
            if channel is not None and guard.wanted.wait(_HANDSHAKE_SECONDS) and guard.granted is not None:
                instance, wish = guard.granted
                _connect(channel, instance, wish)


class _Guard(paramiko.ServerInterface):
    """Lets in who has a key of the instance."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self.granted: tuple[Instance, Wish] | None = None
        self.wanted = threading.Event()

    def get_allowed_auths(self, username: str) -> str:  # noqa: ARG002 - the same for all
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        wish = parse_user(username)
        if wish is None:
            return AUTH_FAILED
        try:
            instance = self._find(wish.project, wish.zone, wish.instance)
        except ApiError:
            return AUTH_FAILED
        attributes = {**instance.project_attributes, **instance.attributes}
        lines = attributes.get("ssh-keys", "").splitlines()
        known = [line.partition(":")[2].split()[:2] for line in lines if line.partition(":")[0] == wish.user]
        enabled = attributes.get("serial-port-enable", "").lower() in _YES
        if not enabled or [key.get_name(), key.get_base64()] not in known:
            return AUTH_FAILED
        self.granted = instance, wish
        return AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:  # noqa: ARG002 - any number
        return OPEN_SUCCEEDED if kind == "session" else OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

    def check_channel_pty_request(self, *_: object) -> bool:
        return True

    def check_channel_window_change_request(self, *_: object) -> bool:
        return True

    def check_channel_shell_request(self, channel: paramiko.Channel) -> bool:  # noqa: ARG002 - there is one
        self.wanted.set()
        return True


class _Terminal:
    """What waits to be shown; a terminal that does not keep up is hung up on."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel
        self._changed = threading.Condition()
        self._waiting = bytearray()
        self._ended = False

    def show(self, data: bytes) -> None:
        """Have bytes shown; does not block."""
        with self._changed:
            self._waiting += data
            if len(self._waiting) > _WAITING:
                self._ended = True
            self._changed.notify_all()

    def end(self) -> None:
        """Show no more."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def run(self) -> None:
        """Show what comes, until it ends."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if self._ended:
                    break
                data = bytes(self._waiting)
                self._waiting.clear()
            try:
                self._channel.sendall(data)
            except HUNG_UP:
                break
        with contextlib.suppress(*HUNG_UP):
            self._channel.close()


def _connect(channel: paramiko.Channel, instance: Instance, wish: Wish) -> None:
    """Connect a terminal with a port until one of both ends."""
    terminal = _Terminal(channel)
    shower = threading.Thread(target=terminal.run, name="serial-shower", daemon=True)
    ring = instance.ports[wish.port - 1]
    tail = ring.follow(terminal.show)
    try:
        lines = tail.splitlines(keepends=True)
        head = f"serialport: Connected to {wish.project}.{wish.zone}.{wish.instance} port {wish.port}\r\n"
        terminal.show(head.encode() + b"".join(lines[len(lines) - min(wish.replay, len(lines)) :]))
        shower.start()
        while data := channel.recv(_READ):
            if instance.status is not Status.RUNNING:
                break
            instance.power().type(wish.port, data)
    except (*HUNG_UP, ApiError, VmtestsError):
        pass
    finally:
        ring.leave(terminal.show)
        terminal.end()
        shower.join()
