"""ssh, against a real server that runs real commands."""

import base64
import contextlib
import logging
import os
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import paramiko
import pytest

from vmtests.errors import GuestError, InputError
from vmtests.guest.keys import Key
from vmtests.guest.result import GuestTimeout
from vmtests.guest.ssh import Ssh, parse_host_keys


class Files(paramiko.SFTPServerInterface):
    """The host's own files, as far as `put` and `get` need them."""

    def open(self, path: str, flags: int, attr: paramiko.SFTPAttributes) -> paramiko.SFTPHandle | int:
        """Open a file of this host."""
        try:
            descriptor = os.open(path, flags, 0o600)
            file = os.fdopen(descriptor, "wb" if flags & os.O_WRONLY else "rb")
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno or 0)
        handle = Handle(flags)
        handle.readfile = handle.writefile = file
        return handle

    def chattr(self, path: str, attr: paramiko.SFTPAttributes) -> int:
        """Change a file's mode."""
        Path(path).chmod(attr.st_mode or 0)
        return paramiko.sftp.SFTP_OK


class Handle(paramiko.SFTPHandle):
    """An open file."""

    readfile: IO[bytes]
    writefile: IO[bytes]

    def stat(self) -> paramiko.SFTPAttributes | int:
        """Return the size and the mode."""
        return paramiko.SFTPAttributes.from_stat(os.fstat(self.readfile.fileno()))

    def chattr(self, attr: paramiko.SFTPAttributes) -> int:
        """Change the mode."""
        os.fchmod(self.writefile.fileno(), attr.st_mode or 0)
        return paramiko.sftp.SFTP_OK


class Rules(paramiko.ServerInterface):
    """Lets in one key, and runs what it is asked to."""

    def __init__(self, sshd: "Sshd") -> None:
        self._sshd = sshd

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        """Let the key in."""
        known = username == "root" and key.get_base64() == self._sshd.authorized.split()[1]
        return paramiko.common.AUTH_SUCCESSFUL if known else paramiko.common.AUTH_FAILED

    def get_allowed_auths(self, username: str) -> str:
        """Return the one way in."""
        return "publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        """Open sessions."""
        return paramiko.common.OPEN_SUCCEEDED if kind == "session" else 1

    def check_channel_subsystem_request(self, channel: paramiko.Channel, name: str) -> bool:
        """Begin sftp, unless it is mute."""
        self._sshd.talks.wait()
        return super().check_channel_subsystem_request(channel, name)

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        """Run a command by sh, unless it is mute."""
        self._sshd.talks.wait()
        self._sshd.start(self._sshd.execute, channel, command)
        return True


class Sshd:
    """A server on a port of this host."""

    def __init__(self, host_key: paramiko.PKey, authorized: str) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.authorized = authorized
        self.host_key = host_key
        self.silent_connections = 0
        self._transports: list[paramiko.Transport] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._threads: list[threading.Thread] = []
        self._starting = threading.Lock()
        self.running = threading.Event()
        self.talks = threading.Event()
        self.talks.set()
        self.start(self._accept)

    def start(self, target: Callable[..., None], *arguments: object) -> None:
        """Start a thread that ends before the server does; none where that has ended."""
        with self._starting:
            if self._listener.fileno() < 0:
                return
            thread = threading.Thread(target=target, args=arguments)
            thread.start()
            self._threads.append(thread)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                if self.silent_connections > 0:
                    self.silent_connections -= 1
                    connection.close()
                    continue
                transport = paramiko.Transport(connection)
                transport.set_log_channel("tests.sshd")
                transport.add_server_key(self.host_key)
                transport.set_subsystem_handler("sftp", paramiko.SFTPServer, Files)
                self._transports.append(transport)
                with contextlib.suppress(paramiko.SSHException, EOFError):
                    transport.start_server(server=Rules(self))

    def execute(self, channel: paramiko.Channel, command: bytes) -> None:
        """Run a command as sshd(8) does, with a session of its own."""
        process = subprocess.Popen(
            ["sh", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._processes.append(process)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        with process, contextlib.suppress(OSError, EOFError):
            pumps = [
                threading.Thread(target=_pump, args=(process.stdout, channel.sendall)),
                threading.Thread(target=_pump, args=(process.stderr, channel.sendall_stderr)),
            ]
            for pump in pumps:
                pump.start()
            self.running.set()
            with contextlib.suppress(BrokenPipeError):
                while data := channel.recv(4096):
                    process.stdin.write(data)
                    process.stdin.flush()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            for pump in pumps:
                pump.join()
            code = process.wait()
            if code >= 0:  # a signal is told by a message that paramiko passes over
                channel.send_exit_status(code)
        channel.close()

    def drop(self) -> None:
        """Lose all connections, as a crash does."""
        for transport in self._transports:
            transport.close()

    def close(self) -> None:
        """End everything."""
        self.talks.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        with self._starting:
            self._listener.close()
        self.drop()
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for thread in self._threads:
            thread.join()


def _when_running(sshd: Sshd, act: Callable[[], None]) -> threading.Thread:
    """Return a thread, not yet started, that acts as soon as the server runs a command."""

    def wait() -> None:
        sshd.running.wait()
        act()

    return threading.Thread(target=wait)


def _pump(stream: IO[bytes], send: Callable[[bytes], object]) -> None:
    with contextlib.suppress(OSError, EOFError):
        while data := os.read(stream.fileno(), 4096):
            send(data)


@pytest.fixture(scope="module")
def host_keys() -> tuple[paramiko.PKey, paramiko.PKey]:
    """Return two host keys of different kinds."""
    return paramiko.ECDSAKey.generate(), paramiko.ECDSAKey.generate()


@pytest.fixture
def key(tmp_path: Path) -> Key:
    """Return a new key."""
    return Key.generate(tmp_path)


@pytest.fixture
def sshd(host_keys: tuple[paramiko.PKey, paramiko.PKey], key: Key) -> Iterator[Sshd]:
    """Return a running server that lets the key in."""
    server = Sshd(host_keys[0], key.public)
    yield server
    server.close()


def _line(key: paramiko.PKey) -> str:
    return f"{key.get_name()} {key.get_base64()} root@nixos"


@pytest.fixture
def ssh(sshd: Sshd, key: Key) -> Iterator[Ssh]:
    """Return an open connection."""
    with Ssh("127.0.0.1", sshd.port, key, [_line(sshd.host_key)]) as connection:
        connection.connect(timeout=10)
        yield connection


def test_key_files(key: Key) -> None:
    """The private key is for its owner's eyes only, and the public line is what ssh-keygen would print."""
    assert stat.S_IMODE(key.path.stat().st_mode) == 0o600
    kind, _, comment = key.public.split(" ")
    assert (kind, comment) == ("ssh-ed25519", "vmtests")
    assert key.path.with_suffix(".pub").read_text() == f"{key.public}\n"
    assert paramiko.Ed25519Key.from_private_key_file(str(key.path)).get_base64() == key.public.split()[1]


def test_a_key_is_never_overwritten(key: Key) -> None:
    """A second key in the same place is refused."""
    with pytest.raises(InputError, match="cannot be written: File exists"):
        Key.generate(key.path.parent)


def test_streams_and_exit_code(ssh: Ssh) -> None:
    """Standard output, standard error and the exit code come apart."""
    result = ssh.run("echo out; echo err >&2; exit 3")
    assert (result.stdout, result.stderr, result.exit_code) == ("out\n", "err\n", 3)


def test_both_streams_at_once(ssh: Ssh) -> None:
    """Large outputs on both streams do not wait for each other."""
    script = "i=0; while [ $i -lt 60 ]; do head -c 50000 /dev/zero; head -c 50000 /dev/zero >&2; i=$((i+1)); done"
    result = ssh.run(script)
    assert (len(result.stdout_bytes), len(result.stderr)) == (3000000, 3000000)


def test_standard_input(ssh: Ssh) -> None:
    """Standard input carries any bytes and then ends."""
    data = bytes(range(256)) * 4000
    assert ssh.run("cat", stdin=data).stdout_bytes == data


def test_standard_input_that_nobody_reads(ssh: Ssh) -> None:
    """A command may end without reading its input."""
    assert ssh.run("true", stdin=bytes(5000000)).exit_code == 0


def test_a_killed_command(ssh: Ssh) -> None:
    """A command that is killed by signal n ends with 128 + n."""
    assert ssh.run("sh -c 'kill -9 $$'").exit_code == 137


def test_a_killed_shell(ssh: Ssh) -> None:
    """A shell that is itself killed gives an error, since ssh tells no number."""
    with pytest.raises(GuestError, match="was killed in the guest"):
        ssh.run("kill -9 $$")


@pytest.mark.parametrize("command", ["echo 'a'\"b\"", "cat <<X\na'b\nX", "echo x # comment", "exit 0\n)"])
def test_commands_arrive_as_they_are(ssh: Ssh, command: str) -> None:
    """Quotes, here-documents and comments mean what they mean in a shell."""
    local = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    result = ssh.run(command)
    assert (result.stdout, result.exit_code) == (local.stdout, local.returncode)


def test_timeout(ssh: Ssh) -> None:
    """A command that takes too long raises an error with what it wrote, and the connection is still good."""
    with pytest.raises(GuestTimeout, match="its last line was 'started'") as caught:
        ssh.run("echo started; exec sleep 60", timeout=0.3)
    assert (caught.value.stdout, caught.value.seconds) == ("started\n", 0.3)
    assert ssh.run("echo alive").stdout == "alive\n"


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda ssh: ssh.run("true", timeout=0.3), "'true' did not end"),
        (lambda ssh: ssh.put(b"x", "/x", timeout=0.3), "/x was not transferred within 0.3 s"),
        (lambda ssh: ssh.get("/x", timeout=0.3), "/x was not transferred within 0.3 s"),
    ],
    ids=["run", "put", "get"],
)
def test_a_server_that_opens_a_session_and_says_no_more(
    ssh: Ssh, sshd: Sshd, act: Callable[[Ssh], object], words: str
) -> None:
    """Whoever waits for its answer to a request waits no longer than was asked for."""
    sshd.talks.clear()
    with pytest.raises(GuestError, match=words):
        act(ssh)


def test_output_limit(ssh: Ssh) -> None:
    """More output than the limit ends the command with an error."""
    with pytest.raises(GuestError, match="more than 1000 bytes"):
        ssh.run("yes", limit=1000)


def test_a_connection_that_is_lost(ssh: Ssh, sshd: Sshd) -> None:
    """A connection that drops under a command is an error at once."""
    dropper = _when_running(sshd, sshd.drop)
    dropper.start()
    started = time.monotonic()
    with pytest.raises(GuestError, match="was lost while 'sleep 60' ran"):
        ssh.run("sleep 60")
    dropper.join()
    assert time.monotonic() - started < 10


def test_a_connection_that_was_lost(ssh: Ssh, sshd: Sshd) -> None:
    """After a connection was lost, commands are refused until the next connect."""
    with contextlib.suppress(GuestError):
        sshd.drop()
        ssh.run("true")
    with pytest.raises(GuestError, match="there is no ssh connection"):
        ssh.run("true")
    ssh.connect(timeout=10)
    assert ssh.run("echo back").stdout == "back\n"


def test_close_ends_a_command(ssh: Ssh, sshd: Sshd) -> None:
    """Closing from another thread ends what waits."""
    closer = _when_running(sshd, ssh.close)
    closer.start()
    with pytest.raises(GuestError, match="was lost"):
        ssh.run("sleep 60")
    closer.join()


def test_another_host_key(sshd: Sshd, key: Key, host_keys: tuple[paramiko.PKey, paramiko.PKey]) -> None:
    """A server with another key of the same kind is refused, and at once."""
    with Ssh("127.0.0.1", sshd.port, key, [_line(host_keys[1])]) as connection:
        with pytest.raises(GuestError, match="which is not one of the guest's"):
            connection.connect(timeout=30)
        with pytest.raises(GuestError, match="there is no ssh connection"):
            connection.run("true")


def test_another_kind_of_host_key(sshd: Sshd, key: Key) -> None:
    """A server with a key of a kind that the console did not show is refused, never added."""
    with (
        Ssh("127.0.0.1", sshd.port, key, [key.public]) as connection,
        pytest.raises(GuestError, match="which is not one of the guest's"),
    ):
        connection.connect(timeout=30)


def test_a_key_that_is_not_let_in(sshd: Sshd, tmp_path: Path) -> None:
    """A server that refuses the key is not asked again."""
    (place := tmp_path / "stranger").mkdir()
    stranger = Key.generate(place)
    with (
        Ssh("127.0.0.1", sshd.port, stranger, [_line(sshd.host_key)]) as connection,
        pytest.raises(GuestError, match="refused the key of this run for root"),
    ):
        connection.connect(timeout=30)


def test_a_server_that_comes_up_late(sshd: Sshd, key: Key) -> None:
    """Connections that close without a word, as QEMU's forwarding gives, are tried again."""
    sshd.silent_connections = 3
    with Ssh("127.0.0.1", sshd.port, key, [_line(sshd.host_key)]) as connection:
        connection.connect(timeout=20)
        assert connection.run("echo up").stdout == "up\n"


def test_nobody_listens(key: Key) -> None:
    """Where nobody listens, the error says so when the time is over."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with (
        Ssh("127.0.0.1", port, key, [key.public]) as connection,
        pytest.raises(GuestError, match=r"no ssh connection to \[127.0.0.1\]:\d+ within 0.3 s: .*refused"),
    ):
        connection.connect(timeout=0.3)


def test_close_ends_a_connect(key: Key) -> None:
    """Closing from another thread ends the waiting for a server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    connection = Ssh("127.0.0.1", port, key, [key.public])
    timer = threading.Timer(0.1, connection.close)
    timer.start()
    with pytest.raises(GuestError, match="was closed"):
        connection.connect(timeout=60)
    timer.join()


def test_put_and_get(ssh: Ssh, tmp_path: Path) -> None:
    """A file that is written has its mode and comes back byte by byte."""
    path, data = tmp_path / "file", bytes(range(256)) * 2000
    ssh.put(data, str(path), mode=0o640)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (data, 0o640)
    assert ssh.get(str(path)) == data


def test_get_what_is_not_there(ssh: Ssh, tmp_path: Path) -> None:
    """A file that is not there is an error that names it."""
    with pytest.raises(GuestError, match=r"missing in the guest: .*No such file"):
        ssh.get(str(tmp_path / "missing"))


def test_get_too_much(ssh: Ssh, tmp_path: Path) -> None:
    """A file that is larger than the limit is an error."""
    (tmp_path / "file").write_bytes(bytes(1001))
    with pytest.raises(GuestError, match="more than 1000 bytes"):
        ssh.get(str(tmp_path / "file"), limit=1000)


def test_known_hosts(ssh: Ssh, sshd: Sshd, key: Key) -> None:
    """A person finds the host keys beside the key, in the form that ssh reads."""
    expected = f"[127.0.0.1]:{sshd.port} {sshd.host_key.get_name()} {sshd.host_key.get_base64()}\n"
    assert ssh.known_hosts.read_text() == expected
    assert ssh.argv[:3] == ["ssh", "-i", str(key.path)]
    assert f"UserKnownHostsFile={ssh.known_hosts}" in ssh.argv


@pytest.mark.parametrize("line", ["ssh-ed25519", "ssh-ed25519 !!!", "ssh-ed25519 AAAA", "\x1b[31m x"])
def test_no_host_key(key: Key, line: str) -> None:
    """Text that is no host key is an error that shows it without its control characters."""
    with pytest.raises(GuestError, match="host key") as caught:
        Ssh("127.0.0.1", 22, key, [line])
    assert str(caught.value).isprintable()


def test_a_host_key_of_a_negative_number_is_none() -> None:
    """What is read into a key may raise more than what is read into a text."""
    numbers = paramiko.Message()
    numbers.add_string("ssh-rsa")
    numbers.add_mpint(65537)
    numbers.add_mpint(-5)
    with pytest.raises(GuestError, match="is not a public host key"):
        parse_host_keys([f"ssh-rsa {base64.b64encode(numbers.asbytes()).decode()} root@nixos"])


def test_unknown_kinds_of_host_key_are_passed_over(key: Key) -> None:
    """A kind of key that cannot be checked is left out; there must be one that can."""
    assert Ssh("127.0.0.1", 22, key, ["ssh-new AAAA", "", key.public]).known_hosts.read_text().startswith("127.0.0.1 ")
    with pytest.raises(GuestError, match="no ssh host key that can be checked"):
        Ssh("127.0.0.1", 22, key, ["ssh-new AAAA"])


def test_nothing_is_printed(key: Key, capfd: pytest.CaptureFixture[str]) -> None:
    """paramiko's log of a refused connection does not reach the terminal."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: listener.accept()[0].close())
        thread.start()
        with (
            Ssh("127.0.0.1", listener.getsockname()[1], key, [key.public]) as connection,
            contextlib.suppress(GuestError),
        ):
            connection.connect(timeout=0.2)
        thread.join()
    assert capfd.readouterr() == ("", "")
    assert not logging.getLogger("vmtests.ssh").propagate
