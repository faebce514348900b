"""Commands and files over ssh, with a key made for this run and host keys from the serial console."""

import base64
import binascii
import logging
import shlex
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

import paramiko
from paramiko.pkey import UnknownKeyType

from vmtests.errors import GuestError
from vmtests.guest.keys import HOST_KEYS_COMMAND, Key
from vmtests.guest.login import Login
from vmtests.guest.result import OUTPUT_LIMIT, GuestTimeout, Result
from vmtests.text import printable

HUNG_UP = (OSError, EOFError)
"""What paramiko raises when the other side has gone, even from `Channel.close`."""

_HANDSHAKE_SECONDS = 60.0  # a guest without KVM takes many seconds for a key exchange
_RETRY_SECONDS = 0.1
_READ = 1 << 15

# paramiko writes tracebacks of refused connections to its log, and Python's last resort prints them.
_LOG = logging.getLogger("vmtests.ssh")
_LOG.addHandler(logging.NullHandler())
_LOG.propagate = False


class _Refuse(paramiko.MissingHostKeyPolicy):
    """Refuses a host whose key is of a type that the console did not show."""

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:  # noqa: ARG002
        raise _wrong_key(hostname, key)


def _wrong_key(host: str, key: paramiko.PKey) -> GuestError:
    return GuestError(
        f"{host} has the {key.get_name()} host key {key.fingerprint}, which is not one of the guest's",
        hint="another machine may listen on this port",
    )


class Ssh:
    """A connection to a guest's sshd, as a context manager; `connect` opens it.

    `host_keys` are the lines of the guest's public host keys, from `HOST_KEYS_COMMAND`; no other key is
    taken. A known_hosts file with them is written beside the private key. `close` may be called from any
    thread and ends every wait.
    """

    def __init__(
        self,
        host: str,
        port: int,
        key: Key,
        host_keys: Sequence[str],
        *,
        login: Login | None = None,
    ) -> None:
        self._login = login or Login()
        self._host, self._port, self._key, self._user = host, port, key, self._login.user
        self._closed = threading.Event()
        self._client = self._new_client()
        # sshd(8), SSH_KNOWN_HOSTS FILE FORMAT: a port other than 22 stands after the name in brackets.
        self._name = host if port == paramiko.config.SSH_PORT else f"[{host}]:{port}"
        self._host_keys = parse_host_keys(host_keys)
        self.known_hosts = key.path.with_name(f"{key.path.name}.known_hosts.{port}")
        lines = [f"{self._name} {known.get_name()} {known.get_base64()}\n" for known in self._host_keys]
        self.known_hosts.write_text("".join(lines))

    @property
    def argv(self) -> list[str]:
        """The command line by which a person gets the same connection."""
        options = [f"UserKnownHostsFile={self.known_hosts}", "IdentitiesOnly=yes"]
        flags = [word for option in options for word in ("-o", option)]
        return [
            "ssh",
            "-i",
            str(self._key.path),
            "-p",
            str(self._port),
            *flags,
            f"{self._user}@{self._host}",
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection, and what waits for it."""
        self._closed.set()
        self._client.close()

    def connect(self, timeout: float = 120.0) -> None:
        """Connect, trying again while nobody answers, for `timeout` seconds.

        Raises GuestError: at once for a wrong host key or a refused login, else when the time is over or
        `close` was called.
        """
        deadline = time.monotonic() + timeout
        reason = "nothing was tried"
        while (left := deadline - time.monotonic()) > 0 and not self._closed.is_set():
            try:
                self._attempt(min(left, _HANDSHAKE_SECONDS))
            except paramiko.BadHostKeyException as error:
                raise _wrong_key(self._name, error.key) from error
            except paramiko.AuthenticationException as error:
                raise GuestError(
                    f"sshd at {self._name} refused the key of this run for {self._user}",
                    hint="the credential ssh.authorized_keys.root hands the key in; else --login USER:PASSWORD",
                ) from error
            except (*HUNG_UP, paramiko.SSHException) as error:
                reason = printable(str(error) or type(error).__name__)
                self._closed.wait(_RETRY_SECONDS)
            else:
                return
        if self._closed.is_set():
            raise GuestError(f"the ssh connection to {self._name} was closed")
        raise GuestError(f"no ssh connection to {self._name} within {timeout:g} s: {reason}")

    def run(
        self,
        command: str,
        /,
        timeout: float = 60.0,
        *,
        stdin: bytes | None = None,
        limit: int = OUTPUT_LIMIT,
    ) -> Result:
        """Run a command by the user's shell; its standard input is `stdin`, or empty.

        Raises GuestTimeout after `timeout` seconds, and GuestError when the connection is lost, the shell
        itself was killed by a signal, or an output has more than `limit` bytes.
        """
        stdout, stderr, expired = bytearray(), bytearray(), threading.Event()
        started = time.monotonic()
        # Closing the channel ends every wait for it, so nothing below needs its own time limit.
        with (
            self._channel(timeout) as channel,
            _watchdog(max(0.0, started + timeout - time.monotonic()), channel, expired),
        ):
            try:
                # `exit` keeps the shell from replacing itself by the command: ssh tells no signal's number.
                channel.exec_command(self._as_root(f"eval {shlex.quote(command)}\nexit $?"))
            except (*HUNG_UP, paramiko.SSHException) as error:
                if expired.is_set():
                    raise GuestTimeout(command, timeout) from error
                raise self._lost(command) from error
            helpers = (
                threading.Thread(target=_read, args=(channel, channel.recv_stderr, stderr, limit)),
                threading.Thread(target=_write, args=(channel, stdin or b"")),
            )
            for helper in helpers:
                helper.start()
            _read(channel, channel.recv, stdout, limit)
            channel.status_event.wait()
            channel.close()
            for helper in helpers:
                helper.join()
        duration = time.monotonic() - started
        if max(len(stdout), len(stderr)) > limit:
            raise GuestError(f"{printable(command)!r} wrote more than {limit} bytes in the guest")
        if channel.exit_status >= 0:
            return Result.of(
                command,
                stdout=bytes(stdout),
                stderr=bytes(stderr),
                exit_code=channel.exit_status,
                duration=duration,
            )
        if expired.is_set():
            raise GuestTimeout(command, timeout, stdout=bytes(stdout), stderr=bytes(stderr))
        if self._closed.is_set() or not self._is_active():
            raise self._lost(command)
        raise GuestError(f"the shell of {printable(command)!r} was killed in the guest")

    @contextmanager
    def shell(self, columns: int, lines: int, *, timeout: float = 60.0) -> Iterator[paramiko.Channel]:
        """Give a login shell on a terminal of that size, for a person; raises GuestError."""
        with self._channel(timeout) as channel:
            try:
                with _watchdog(timeout, channel, threading.Event()):
                    channel.get_pty(term="linux", width=columns, height=lines)
                    channel.invoke_shell()
            except (*HUNG_UP, paramiko.SSHException) as error:
                raise self._lost("a login shell") from error
            yield channel

    def _as_root(self, script: str) -> str:
        """Return a script as whoever logs in runs it: root's, where the user may become root without being asked."""
        if self._user == "root":
            return script
        quoted = shlex.quote(script)
        return f"sudo -n true 2>/dev/null && exec sudo -n sh -c {quoted}; exec sh -c {quoted}"

    def put(self, data: bytes, path: str, mode: int = 0o644, *, timeout: float = 60.0) -> None:
        """Write a file in the guest; raises GuestError."""
        with self._sftp(path, timeout) as sftp, sftp.open(path, "wb") as file:
            file.chmod(mode)
            file.set_pipelined(True)
            file.write(data)

    def get(self, path: str, *, timeout: float = 60.0, limit: int = OUTPUT_LIMIT) -> bytes:
        """Read a file of at most `limit` bytes in the guest; raises GuestError."""
        with self._sftp(path, timeout) as sftp, sftp.open(path, "rb") as file:
            if stat.S_ISDIR(file.stat().st_mode or 0):
                raise GuestError(f"{printable(path)} is a directory in the guest")
            data = file.read(limit + 1)
        if len(data) > limit:
            raise GuestError(f"{printable(path)} has more than {limit} bytes in the guest")
        return data

    def _new_client(self) -> paramiko.SSHClient:
        client = paramiko.SSHClient()
        client.set_log_channel(_LOG.name)
        client.set_missing_host_key_policy(_Refuse())
        return client

    def _attempt(self, seconds: float) -> None:
        self._client.close()
        self._client = client = self._new_client()
        for key in self._host_keys:
            client.get_host_keys().add(self._name, key.get_name(), key)
        connection = socket.create_connection((self._host, self._port), timeout=seconds)
        keys = [str(path) for path in (self._login.key, self._key.path) if path is not None]
        try:
            client.connect(
                self._host,
                self._port,
                username=self._user,
                key_filename=keys,  # type: ignore[arg-type]
                password=self._login.password,
                sock=connection,
                allow_agent=False,
                look_for_keys=False,
                banner_timeout=seconds,
                auth_timeout=seconds,
                timeout=seconds,
            )
        except BaseException:
            client.close()
            connection.close()
            raise
        if self._closed.is_set():
            client.close()

    def _is_active(self) -> bool:
        transport = self._client.get_transport()
        return transport is not None and transport.is_active()

    @contextmanager
    def _channel(self, timeout: float) -> Iterator[paramiko.Channel]:
        transport = self._client.get_transport()
        if transport is None or not transport.is_active():
            raise GuestError(f"there is no ssh connection to {self._name}", hint="call connect()")
        try:
            channel = transport.open_session(timeout=timeout)
        except (*HUNG_UP, paramiko.SSHException) as error:
            raise GuestError(f"sshd at {self._name} opens no session: {printable(str(error))}") from error
        try:
            yield channel
        finally:
            channel.close()

    @contextmanager
    def _sftp(self, path: str, timeout: float) -> Iterator[paramiko.SFTPClient]:
        with self._channel(timeout) as channel:
            expired = threading.Event()
            try:
                channel.settimeout(timeout)
                with _watchdog(timeout, channel, expired):
                    channel.invoke_subsystem("sftp")
                with paramiko.SFTPClient(channel) as sftp:
                    yield sftp
            except TimeoutError as error:
                raise GuestError(f"{printable(path)} was not transferred within {timeout:g} s") from error
            except (*HUNG_UP, paramiko.SSHException, paramiko.SFTPError) as error:
                if expired.is_set():
                    raise GuestError(f"{printable(path)} was not transferred within {timeout:g} s") from error
                raise GuestError(
                    f"{printable(path)} in the guest: {printable(str(error) or 'connection lost')}"
                ) from error

    def _lost(self, command: str) -> GuestError:
        return GuestError(f"the ssh connection to {self._name} was lost while {printable(command)!r} ran")


def scan_host_key(
    host: str, port: int, seconds: float, *, lost: Callable[[], bool] = lambda: False
) -> tuple[str, ...]:
    """Return the public key that sshd at an address has, as a line; for addresses that lead to one guest alone.

    Raises GuestError when nobody answers within `seconds`, or nobody will any more: `lost` says so.
    """
    deadline, reason = time.monotonic() + seconds, "nobody answers"
    while (left := deadline - time.monotonic()) > 0 and not lost():
        try:
            with socket.create_connection((host, port), timeout=left) as connection:
                transport = paramiko.Transport(connection)
                transport.set_log_channel(_LOG.name)
                try:
                    transport.start_client(timeout=min(left, _HANDSHAKE_SECONDS))
                    key = transport.get_remote_server_key()
                    return (f"{key.get_name()} {key.get_base64()}",)
                finally:
                    transport.close()
        except (*HUNG_UP, paramiko.SSHException) as error:
            reason = printable(str(error) or type(error).__name__)
            time.sleep(_RETRY_SECONDS)
    raise GuestError(f"sshd does not answer within {seconds:g} s: {reason}")


def parse_host_keys(lines: Sequence[str]) -> list[paramiko.PKey]:
    """Return the keys in lines of public host keys, of those kinds that can be checked; raises GuestError."""
    keys = []
    for line in lines:
        if not line.strip():
            continue
        try:
            kind, text, *_ = line.split()
            keys.append(paramiko.PKey.from_type_string(kind, base64.b64decode(text, validate=True)))
        except UnknownKeyType:
            continue  # sshd may have kinds that paramiko cannot check
        except (ArithmeticError, ValueError, IndexError, binascii.Error, paramiko.SSHException) as error:
            raise GuestError(f"{printable(line, 60)!r} is not a public host key") from error
    if not keys:
        raise GuestError("the guest has no ssh host key that can be checked", hint=HOST_KEYS_COMMAND)
    return keys


def _read(channel: paramiko.Channel, receive: Callable[[int], bytes], into: bytearray, limit: int) -> None:
    """Read a stream to its end; one byte more than the limit closes the channel."""
    while data := receive(_READ):
        into += data
        if len(into) > limit:
            channel.close()


def _write(channel: paramiko.Channel, data: bytes) -> None:
    """Write standard input and end it; a command may end without reading all of it."""
    try:
        channel.sendall(data)
        channel.shutdown_write()
    except HUNG_UP:
        return


@contextmanager
def _watchdog(seconds: float, channel: paramiko.Channel, expired: threading.Event) -> Iterator[None]:
    """Close the channel when the block runs for longer than `seconds`, and say so by `expired`."""

    def end() -> None:
        expired.set()
        with suppress(*HUNG_UP):
            channel.close()

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
