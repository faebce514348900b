"""Guests without a VM: a real shell on a pseudo terminal, and a real sshd made of paramiko."""

import contextlib
import os
import pty
import random
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pytest

from tests.signals import heed
from vmtests.guest.login import Login
from vmtests.guest.serial import SerialShell

_SHELL = ("bash", "--norc", "--noprofile", "-i")

BASH = (
    *("bwrap", "--dev-bind", "/", "/", "--size", str(64 << 20), "--tmpfs", "/run", "--cap-drop", "CAP_SYS_TIME"),
    *_SHELL,
)
"""What a guest runs: what it leaves in /run does not stay on this host, whose clock it cannot set."""


class Chaos:
    """Puts kernel messages between the bytes that a guest writes, about one in every `every` bytes."""

    def __init__(self, every: int, seed: int) -> None:
        self._random = random.Random(seed)
        self._every = every
        self.injected = 0

    def __call__(self, data: bytes) -> bytes:
        """Return the data with messages in it; nothing is lost."""
        spoilt = bytearray()
        for byte in data:
            spoilt.append(byte)
            if self._random.randrange(self._every) == 0:
                self.injected += 1
                spoilt += b"[%12.6f] virtio_blk virtio0: message %d\r\n" % (
                    self._random.random() * 99,
                    self.injected,
                )
        return bytes(spoilt)


class Lossy:
    """Loses one byte of what the host writes, as a UART does whose FIFO overruns."""

    def __init__(self, at: int) -> None:
        self._left = at
        self.lost = False

    def __call__(self, data: bytes) -> bytes:
        """Return the data without the byte."""
        here, self._left = self._left, self._left - len(data)
        if self.lost or not 0 <= here < len(data):
            return data
        self.lost = True
        return data[:here] + data[here + 1 :]


def unchanged(data: bytes) -> bytes:
    """Return the data as it is."""
    return data


class Guest:
    """A process on a pseudo terminal, whose other side is a socket as a machine's serial port is."""

    def __init__(
        self,
        argv: Sequence[str],
        home: Path,
        to_host: Callable[[bytes], bytes],
        to_guest: Callable[[bytes], bytes],
    ) -> None:
        self.connection, self._inner = socket.socketpair()
        self._to_host, self._to_guest = to_host, to_guest
        self.sent = bytearray()
        self._spoke = threading.Event()
        self._terminal, slave = pty.openpty()
        environment = {"PATH": os.environ["PATH"], "HOME": str(home), "TERM": "vt220", "LC_ALL": "C.UTF-8"}
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *argv],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            cwd=home,
            preexec_fn=heed,
        )
        os.close(slave)
        self._threads = [threading.Thread(target=target) for target in (self._upwards, self._downwards)]
        for thread in self._threads:
            thread.start()

    def _upwards(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self._terminal, 4096):
                self._spoke.set()
                self._inner.sendall(self._to_host(data))
        self._spoke.set()
        self.unplug()

    def _downwards(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._inner.recv(4096):
                self.sent += data
                os.write(self._terminal, self._to_guest(data))

    def begin(self) -> None:
        """Wait for its prompt: before that an interrupt, typed at a line that says nothing, ends what starts it."""
        assert self._spoke.wait(60)

    @property
    def calls(self) -> list[str]:
        """The functions of the agent that were called."""
        lines = bytes(self.sent).decode().splitlines()
        return [line.split()[4] for line in lines if line.startswith("_vm ")]

    def unplug(self) -> None:
        """Close the line, as the end of QEMU does."""
        with contextlib.suppress(OSError):
            self._inner.shutdown(socket.SHUT_RDWR)

    def _kill_session(self) -> None:
        seen = set[int]()
        # Whoever is killed may have started another since the list was made.
        while new := set(self._session()) - seen:
            seen |= new
            for pid in new:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _session(self) -> Iterator[int]:
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(ValueError, ProcessLookupError):
                if os.getsid(pid := int(entry.name)) == self.process.pid:
                    yield pid

    def close(self) -> None:
        """End everything."""
        self.unplug()
        self._kill_session()
        self.process.kill()  # it has no session yet when it has only just been started
        self.process.wait()
        for thread in self._threads:
            thread.join()
        os.close(self._terminal)
        self._inner.close()
        self.connection.close()


class MakeGuest(Protocol):
    """Starts a guest; it is ended with the test."""

    def __call__(
        self,
        *argv: str,
        to_host: Callable[[bytes], bytes] = unchanged,
        to_guest: Callable[[bytes], bytes] = unchanged,
    ) -> Guest:
        """Start `argv`, or an interactive bash, on a pseudo terminal."""
        ...


@pytest.fixture
def make_guest(tmp_path: Path) -> Iterator[MakeGuest]:
    """Return a factory of guests whose home is the test's directory."""
    with _guests(tmp_path) as make:
        yield make


@contextlib.contextmanager
def _guests(home: Path) -> Iterator[MakeGuest]:
    with contextlib.ExitStack() as stack:

        def make(
            *argv: str,
            to_host: Callable[[bytes], bytes] = unchanged,
            to_guest: Callable[[bytes], bytes] = unchanged,
        ) -> Guest:
            argv = argv or BASH
            guest = Guest(argv, home, to_host, to_guest)
            stack.callback(guest.close)
            if argv[-len(_SHELL) :] == _SHELL:
                guest.begin()
            return guest

        yield make


class Connect(Protocol):
    """Logs in to a guest."""

    def __call__(self, guest: Guest, *, password: str | None = None, timeout: float = 20.0) -> SerialShell:
        """Return a shell that is ready."""
        ...


@pytest.fixture
def connect(tmp_path: Path) -> Connect:
    """Return what logs in to a guest; this host's kernel is not kept quiet."""

    def log_in(guest: Guest, *, password: str | None = None, timeout: float = 20.0) -> SerialShell:
        return _log_in(guest, tmp_path, password=password, timeout=timeout)

    return log_in


def _log_in(guest: Guest, files: Path, *, password: str | None = None, timeout: float = 20.0) -> SerialShell:
    directories = ("/dev/null/none", str(files))
    shell = SerialShell(guest.connection, directories=directories, quiet_kernel=False, answer_timeout=10.0)
    shell.login(Login(password=password), timeout=timeout)
    return shell


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory that is home, and keeps the files, of the shared shell."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def shell(home: Path) -> Iterator[SerialShell]:
    """Return a shell that is shared, on a bash whose line is clean."""
    with _guests(home) as make, _log_in(make(), home) as shared:
        yield shared
