"""Ways into an instance: where its sshd is, and its serial port to type on, through Google's ssh gateway.

As "Connecting to a VM using the serial console" has it: one gateway for each region, whose host keys Google publishes,
and a user name that says which port of which instance.
"""

import contextlib
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
import paramiko

from vmtests.errors import GuestError
from vmtests.gce import tokens
from vmtests.gce.cloud import Cloud
from vmtests.gce.errors import UnavailableError
from vmtests.gce.things import Thing
from vmtests.guest.keys import Key
from vmtests.guest.ssh import HUNG_UP, parse_host_keys
from vmtests.text import printable

_SSH_PORT, _GATEWAY_PORT = 22, 9600
_KEYS_URL = "https://www.gstatic.com/vm_serial_port_public_keys/{region}/{region}.pub"
_HANDSHAKE_SECONDS = 60.0
_READ = 32 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """Where serial ports are typed on: an ssh server, and the lines of its public host keys."""

    host: str
    port: int
    host_keys: tuple[str, ...]


def ssh_port(cloud: Cloud) -> int:
    """Return the port at which the sshd of instances is reached; raises CloudError."""
    return _SSH_PORT if cloud.settings.endpoint is None else _about(cloud).ssh


def gateway(cloud: Cloud, zone: str) -> Gateway:
    """Return the gateway of a zone; raises CloudError."""
    if cloud.settings.endpoint is not None:
        about = _about(cloud)
        return Gateway(host="127.0.0.1", port=about.serial, host_keys=(about.serial_key,))
    region = zone.rpartition("-")[0]
    text = _get(cloud, _KEYS_URL.format(region=region)).decode(errors="replace")
    keys = tuple(line for line in text.splitlines() if line.strip())
    return Gateway(host=f"{region}-ssh-serialport.googleapis.com", port=_GATEWAY_PORT, host_keys=keys)


class _About(msgspec.Struct):
    ssh: int = msgspec.field(name="sshPort")
    serial: int = msgspec.field(name="serialPort")
    serial_key: str = msgspec.field(name="serialHostKey")


def _about(cloud: Cloud) -> _About:
    """Return what an emulator says of itself."""
    try:
        return msgspec.json.decode(_get(cloud, f"{cloud.settings.endpoint}/emulator/v1/about"), type=_About)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnavailableError(f"{cloud.settings.endpoint} does not say what it serves: {error}") from error


def _get(cloud: Cloud, url: str) -> bytes:
    import requests

    def get() -> bytes:
        endpoint = cloud.settings.endpoint
        answer = requests.get(
            url, timeout=cloud.pace.answer, headers={} if endpoint is None else tokens.headers(endpoint)
        )
        if not answer.ok:
            raise UnavailableError(f"{url} answers with HTTP status {answer.status_code}")
        return bytes(answer.content)

    return cloud.ask(f"asking {url}", get)


@contextlib.contextmanager
def serial_line(at: Gateway, thing: Thing, port: int, key: Key, user: str = "root") -> Iterator[socket.socket]:
    """Give a socket on a serial port (1 is ttyS0) of an instance; raises GuestError when the gateway refuses.

    What the port had said before is not shown.
    """
    name = f"{thing.project}.{thing.place}.{thing.name}.{user}.port={port}.replay-lines=0"
    with contextlib.ExitStack() as stack:
        channel = stack.enter_context(contextlib.closing(_connect(at, name, key, stack)))
        ours, theirs = socket.socketpair()
        stack.enter_context(contextlib.closing(ours))
        pumps = [
            threading.Thread(target=_to_us, args=(channel, theirs), name="serial-in", daemon=True),
            threading.Thread(target=_to_guest, args=(theirs, channel), name="serial-out", daemon=True),
        ]
        for pump in pumps:
            pump.start()
        try:
            yield ours
        finally:
            with contextlib.suppress(*HUNG_UP):
                channel.close()
            for end in (ours, theirs):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            for pump in pumps:
                pump.join()
            theirs.close()


def _connect(at: Gateway, name: str, key: Key, stack: contextlib.ExitStack) -> paramiko.Channel:
    where = f"the serial gateway {at.host}:{at.port}"
    try:
        connection = socket.create_connection((at.host, at.port), timeout=_HANDSHAKE_SECONDS)
        transport = stack.enter_context(contextlib.closing(paramiko.Transport(connection)))
        known = parse_host_keys(at.host_keys)
        # Only a kind of key that is known can be checked.
        transport.get_security_options().key_types = _key_types(transport, known)
        transport.start_client(timeout=_HANDSHAKE_SECONDS)
        if transport.get_remote_server_key() not in known:
            raise GuestError(f"{where} has a host key that is none of Google's")
        transport.auth_publickey(name, paramiko.Ed25519Key.from_private_key_file(str(key.path)))
        transport.set_keepalive(30)
        channel = transport.open_session(timeout=_HANDSHAKE_SECONDS)
        channel.get_pty()
        channel.invoke_shell()
    except (*HUNG_UP, paramiko.SSHException) as error:
        said = printable(str(error) or type(error).__name__)
        hint = "the metadata serial-port-enable, and the organization's policies, must allow it"
        raise GuestError(f"{where} does not let us in: {said}", hint=hint) from error
    return channel


def _key_types(transport: paramiko.Transport, known: Sequence[paramiko.PKey]) -> list[str]:
    names = {key.get_name() for key in known}
    offered = transport.get_security_options().key_types
    return [kind for kind in offered if kind in names or ("ssh-rsa" in names and kind.startswith("rsa-"))]


def _to_us(channel: paramiko.Channel, sock: socket.socket) -> None:
    with contextlib.suppress(*HUNG_UP):
        while data := channel.recv(_READ):
            sock.sendall(data)
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _to_guest(sock: socket.socket, channel: paramiko.Channel) -> None:
    with contextlib.suppress(*HUNG_UP):
        while data := sock.recv(_READ):
            channel.sendall(data)
