"""The terminal is as it was, whatever ends who had changed it."""

import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator

import pytest

_RAW = """
import os, sys, termios, tty, time
from vmtests.cockpit.guard import guarded
with guarded(0):
    tty.setraw(0)
    os.write(0, b"\\x1b[?1049h\\x1b[?25lRAW")
    sys.stdin.readline()
"""


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """A terminal, as a person and as a program has it."""
    person, theirs = pty.openpty()
    yield person, theirs
    os.close(person)
    os.close(theirs)


def _read_until(person: int, word: bytes) -> bytes:
    read = b""
    while word not in read:
        read += os.read(person, 4096)
    return read


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_terminal_is_put_right_after_a_violent_end(terminal: tuple[int, int], number: signal.Signals) -> None:
    """After kill -9 it echoes again, the alternate screen is left and the cursor is there."""
    person, theirs = terminal
    before = termios.tcgetattr(theirs)
    process = subprocess.Popen([sys.executable, "-c", _RAW], stdin=theirs)
    _read_until(person, b"RAW")
    assert before != termios.tcgetattr(theirs)
    process.send_signal(number)
    process.wait()
    left = _read_until(person, b"\x1b[0m")
    assert b"\x1b[?1049l\x1b[?25h" in left
    while before != termios.tcgetattr(theirs):
        os.sched_yield()


def test_terminal_that_a_shell_has_set_is_left_alone(terminal: tuple[int, int]) -> None:
    """Who came after the one that died, and has set the terminal as it wants, keeps that."""
    person, theirs = terminal
    process = subprocess.Popen([sys.executable, "-c", _RAW], stdin=theirs)
    _read_until(person, b"RAW")
    process.send_signal(signal.SIGSTOP)
    shells = termios.tcgetattr(theirs)
    shells[3] = (shells[3] | termios.ISIG) & ~termios.ECHO
    termios.tcsetattr(theirs, termios.TCSANOW, shells)
    process.kill()
    process.wait()
    _read_until(person, b"\x1b[0m")
    assert shells == termios.tcgetattr(theirs)


def test_good_end_writes_nothing(terminal: tuple[int, int]) -> None:
    """A program that leaves its terminal in order has it put back as it was, and nothing is written to it."""
    person, theirs = terminal
    before = termios.tcgetattr(theirs)
    process = subprocess.Popen([sys.executable, "-c", _RAW], stdin=theirs)
    _read_until(person, b"RAW")
    os.write(person, b"\n")
    assert 0 == process.wait(30)
    assert before == termios.tcgetattr(theirs)
    os.write(theirs, b"END")
    assert b"END" == _read_until(person, b"END")[-3:]
