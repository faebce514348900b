"""The interactive serial console."""

import logging
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from tests.emulator.conftest import PROJECT, ZONE, Client
from vmtests.emulator.fake import BOOT
from vmtests.emulator.gateway import parse_user
from vmtests.guest.keys import Key

USER = f"{PROJECT}.{ZONE}.vm.me"


@pytest.fixture
def key(tmp_path: Path) -> Key:
    """A key pair."""
    return Key.generate(tmp_path)


@pytest.fixture
def console(client: Client, key: Key) -> Client:
    """A client of an emulator with an instance that lets the key on its serial ports."""
    client.image()
    items = [{"key": "ssh-keys", "value": f"other:ssh-rsa AAAA\nme:{key.public}"}]
    client.instance(metadata={"items": [*items, {"key": "serial-port-enable", "value": "TRUE"}]})
    return client


@pytest.fixture
def ssh(console: Client) -> Iterator[paramiko.SSHClient]:
    """An ssh client that knows the gateway's key."""
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)
    gateway = console.emulator.gateway
    kind, _, text = gateway.host_key.partition(" ")
    with paramiko.SSHClient() as made:
        host = f"[127.0.0.1]:{gateway.port}"
        made.get_host_keys().add(host, kind, paramiko.ECDSAKey(data=_decoded(text)))
        yield made


def _decoded(text: str) -> bytes:
    import base64

    return base64.b64decode(text)


def connect(ssh: paramiko.SSHClient, console: Client, key: Key, user: str = USER) -> paramiko.Channel:
    """Open a terminal."""
    port = console.emulator.gateway.port
    options = {"look_for_keys": False, "allow_agent": False}
    ssh.connect("127.0.0.1", port, username=user, key_filename=str(key.path), timeout=10, **options)  # type: ignore[arg-type]
    channel = ssh.invoke_shell()
    channel.settimeout(10)
    return channel


def read(channel: paramiko.Channel, end: bytes) -> bytes:
    """Read until `end` has come."""
    data = b""
    while not data.endswith(end):
        part = channel.recv(1000)
        assert part, data
        data += part
    return data


def test_terminal_is_connected(ssh: paramiko.SSHClient, console: Client, key: Key) -> None:
    """A terminal shows the last lines again, then what the port says, and types on it."""
    channel = connect(ssh, console, key, f"{USER}.port=1.replay-lines=1")
    last = BOOT.splitlines(keepends=True)[-1]
    assert 2 == len(read(channel, last).splitlines())
    channel.sendall(b"root\r")
    assert b"ROOT\r" == read(channel, b"\r")
    console.done(console.json("DELETE", f"/compute/v1/projects/{PROJECT}/zones/{ZONE}/instances/vm"))
    channel.sendall(b"x")
    assert b"" == channel.recv(10)


@pytest.mark.parametrize(
    "user",
    [f"{PROJECT}.{ZONE}.vm.other", f"{PROJECT}.{ZONE}.none.me", f"{USER}.port=5", f"{USER}.port=x", "me", ""],
)
def test_strangers_stay_outside(ssh: paramiko.SSHClient, console: Client, key: Key, user: str) -> None:
    """Who has no key of the instance for that user, or asks for a port that is not there, is not let in."""
    with pytest.raises(paramiko.AuthenticationException):
        connect(ssh, console, key, user)


def test_console_is_off_by_default(client: Client, key: Key) -> None:
    """Without serial-port-enable nobody is let in."""
    client.image()
    client.instance(metadata={"items": [{"key": "ssh-keys", "value": f"me:{key.public}"}]})
    with paramiko.SSHClient() as made:
        made.set_missing_host_key_policy(paramiko.WarningPolicy())
        made.set_log_channel("vmtests.ssh")
        with pytest.warns(UserWarning, match="Unknown"), pytest.raises(paramiko.AuthenticationException):
            connect(made, client, key)


def test_user_name_is_read() -> None:
    """The user name says project, zone, instance, user, port and how much is shown again."""
    wish = parse_user("example.com.us-east1-b.vm.me.port=2.replay-lines=7.max-connections=1")
    assert wish is not None
    assert ("example.com", "us-east1-b", "vm", "me", 2, 7) == (
        wish.project,
        wish.zone,
        wish.instance,
        wish.user,
        wish.port,
        wish.replay,
    )
