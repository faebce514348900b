"""The program that stands in for a guest's shell, run on this host, whose clock it may not set."""

import contextlib
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vmtests.guest import standin
from vmtests.guest.wire import Nonce

SEED = bytes(range(standin.SEED))


class Standin:
    """The program, and what it wrote: answers, the script, the seeds."""

    def __init__(self, program: Path, directory: Path) -> None:
        # Whoever reads a terminal gets one line at a time.
        self._line, slave = pty.openpty()
        modes = termios.tcgetattr(slave)
        modes[3] &= ~termios.ECHO
        termios.tcsetattr(slave, termios.TCSANOW, modes)
        self._script, self._urandom = directory / "script", directory / "urandom"
        run = f"exec {program} 9>{self._script} 7>{self._urandom}"
        self.process = subprocess.Popen(
            ["bwrap", "--die-with-parent", "--dev-bind", "/", "/", "--cap-drop", "ALL", "bash", "-c", run],
            stdin=slave,
            stdout=subprocess.PIPE,
        )
        os.close(slave)

    def tell(self, line: bytes) -> None:
        """Give it a line."""
        os.write(self._line, line)

    def hang_up(self) -> None:
        """Close the line."""
        os.close(self._line)
        self._line = -1

    def answer(self) -> bytes:
        """Return its next answer, which comes twice."""
        assert self.process.stdout is not None
        said = self.process.stdout.read(66)
        assert said[:33] == said[33:]
        return said[:33]

    def script(self) -> bytes:
        """Return what a shell would have got."""
        return self._script.read_bytes()

    def seeds(self) -> bytes:
        """Return what the kernel would have got."""
        return self._urandom.read_bytes()

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()
        if self._line >= 0:
            self.hang_up()


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Standin]:
    """Return the program, which runs."""
    path = tmp_path / "standin"
    path.write_bytes(standin.program())
    path.chmod(0o700)
    with contextlib.closing(Standin(path, tmp_path)) as running:
        yield running


def answer(nonce: Nonce, status: int) -> bytes:
    """Return what the shell would answer."""
    return f"\n{nonce.tag}:{status}:1.\n".encode()


def test_clock_that_it_may_not_set_is_told(program: Standin) -> None:
    """The kernel lets nobody but root set the clock: status 1; the seed is mixed in all the same."""
    nonce = Nonce()
    program.tell(standin.time_line(nonce, 1_700_000_000.25, SEED))
    assert answer(nonce, 1) == program.answer()
    assert program.seeds() == SEED


def test_time_that_comes_twice_counts_once(program: Standin) -> None:
    """Who asks again gets the answer again, and the clock is not set back; another time is another one."""
    line = standin.time_line(Nonce(), 1.0, SEED)
    for each in (line, line, standin.time_line(Nonce(), 2.0, SEED)):
        program.tell(each)
        program.answer()
    assert program.seeds() == SEED * 2


def test_script_is_handed_on_whole(program: Standin) -> None:
    """All bytes of a script reach the shell, with a line end, once."""
    text = bytes(range(1, 256)) * 2
    program.tell(standin.script_line(text) * 2 + standin.leave_line())
    assert (0, text + b"\n") == (program.process.wait(), program.script())


def test_leaving_hands_on_nothing(program: Standin) -> None:
    """Told to leave, it ends, and the shell that waits gets no script."""
    program.tell(standin.leave_line())
    assert (0, b"") == (program.process.wait(), program.script())


def test_hang_up_ends_it(program: Standin) -> None:
    """Where nobody types any more it does not stay."""
    program.hang_up()
    assert program.process.wait() == 0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: line[:50] + line[51:],
        lambda line: line[:-3] + b"\n",
        lambda line: b"x" + line,
        lambda line: b"\n",
        lambda line: b"_vm a b 5 _vm_state\n",
        lambda line: b"a" * 4095 + b"\n",
    ],
    ids=["a byte lost", "the end lost", "a byte too many", "empty", "a call", "long"],
)
def test_spoilt_line_does_nothing(program: Standin, spoil: Callable[[bytes], bytes]) -> None:
    """What is not whole gets no answer, and what comes next does."""
    program.tell(spoil(standin.script_line(b"echo spoilt")))
    nonce = Nonce()
    program.tell(standin.time_line(nonce, 1.0, SEED))
    assert answer(nonce, 1) == program.answer()
    assert b"" == program.script()


def test_time_is_a_timespec() -> None:
    """Seconds become whole ones and nanoseconds, after the line's length."""
    line = standin.time_line(Nonce(), 1_700_000_000.25, SEED)
    nibbles = bytes(byte - ord("a") for byte in line[32:-1])
    data = bytes(16 * high + low for high, low in zip(nibbles[::2], nibbles[1::2], strict=True))
    assert (len(line), 1_700_000_000, 250_000_000, SEED) == struct.unpack("<Hqq32s", data)
