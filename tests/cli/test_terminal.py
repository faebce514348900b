"""A person's terminal on a serial line."""

import os
import pty
import socket
import termios
import threading
from collections.abc import Callable, Iterator

import pexpect
import pytest

from tests.conftest import QUICK
from vmtests.cli.terminal import LEAVE, Screened, attach


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (b"# ls\r\n\x1b[01;34mdir\x1b[0m\x1b[K\b\a", b"# ls\r\n\x1b[01;34mdir\x1b[0m\x1b[K\b\a"),
        ("grün".encode(), "grün".encode()),
        (b"a\x1b]52;c;ZXZpbA==\x07b", b"ab"),
        (b"a\x1b]0;title\x1b\\b", b"ab"),
        (b"a\x1b[6n\x1b[c\x1b[?1049h\x1b[20tb", b"ab"),
        (b"a\x1bcb\x1b(0c", b"abc"),
        (b"a\x1bP$q\x1b\\b", b"a$qb"),
        ("a\u202eb\u009bc".encode(), b"a\\u202eb\\x9bc"),
        (b"a\x00\xffb", "a\\x00\ufffdb".encode()),
    ],
)
def test_guest_acts_on_lines_only(written: bytes, shown: bytes) -> None:
    """What edits and colours a line is shown as it is, what acts on the terminal is not, however it is cut."""
    assert shown == Screened().feed(written)
    for size in (1, 2, 3):
        screened = Screened()
        assert shown == b"".join(screened.feed(written[i : i + size]) for i in range(0, len(written), size))


def test_sequence_without_an_end_is_not_waited_for() -> None:
    """A sequence that is longer than any is shown as text: nothing is kept of it."""
    screened = Screened()
    assert screened.feed(b"\x1b]" + 5000 * b"x").startswith(b"\\x1b]xxx")
    assert b"y" == screened.feed(b"y")


@pytest.fixture
def ends() -> Iterator[tuple[int, int, socket.socket, socket.socket]]:
    """A terminal, as a person and as a program has it, and a serial line."""
    person, terminal = pty.openpty()
    line, guest = socket.socketpair()
    guest.settimeout(10)
    with line, guest:
        yield person, terminal, line, guest
    os.close(person)
    os.close(terminal)


def test_terminal_is_raw_until_the_person_leaves(ends: tuple[int, int, socket.socket, socket.socket]) -> None:
    """Every key but Ctrl-] goes to the guest, Ctrl-C too, and the terminal is as before when the person has left."""
    person, terminal, line, guest = ends
    before = termios.tcgetattr(terminal)
    thread = threading.Thread(target=attach, args=(line, terminal))
    thread.start()
    guest.sendall(b"login: ")
    assert b"login: " == os.read(person, 100)
    os.write(person, b"root\r\x03")
    assert b"root\r\x03" == guest.recv(100)
    os.write(person, LEAVE)
    thread.join(10)
    assert (False, before) == (thread.is_alive(), termios.tcgetattr(terminal))


def test_end_of_the_machine_ends_it(ends: tuple[int, int, socket.socket, socket.socket]) -> None:
    """When the line ends the terminal is free again."""
    _, terminal, line, guest = ends
    guest.shutdown(socket.SHUT_RDWR)
    attach(line, terminal)
    assert termios.tcgetattr(terminal)[3] & termios.ECHO


_LAB = """
import contextlib, pathlib, socket
import pytest
from vmtests.errors import GuestError
from vmtests.plugin.machines import RUN, Machines

class Machine(contextlib.AbstractContextManager):
    def __init__(self, name):
        self.results = pathlib.Path(name)
        self.ended = False
    def __exit__(self, *_):
        self.ended = True
    def wait_ready(self):
        if "stuck" in self.results.name:
            raise GuestError("it is stuck")
    @contextlib.contextmanager
    def line(self):
        assert not self.ended
        ours, guest = socket.socketpair()
        with ours, guest:
            guest.sendall(b"hello from " + self.results.name.encode())
            yield ours

class Lab:
    forks = False
    results = pathlib.Path("mine")
    def machine(self, image, hardware=None, *, name, watch):
        return Machine(name)

@pytest.fixture(scope="session")
def _vmtests_machines(pytestconfig):
    return Machines(pytestconfig, pytestconfig.stash[RUN], Lab())

@pytest.fixture(scope="session")
def vm_image():
    return None
"""

_FAILING = """
def test_passes(cold_vm):
    cold_vm()

def test_fails(cold_vm):
    cold_vm()
    assert "one" == "two"

def test_stuck(cold_vm):
    cold_vm()

def test_without_a_machine():
    assert False
"""


def test_failed_test_opens_the_console(pytester: pytest.Pytester) -> None:
    """With --vm-console a person meets the machine of each test that fails, and no other, before it ends."""
    pytester.makeconftest(_LAB)
    pytester.makepyfile(_FAILING)
    child = pytester.spawn_pytest(f"--vm-console --vm-results=mine {QUICK}", expect_timeout=60)
    for name, why in (("test_fails-1", "AssertionError"), ("test_stuck-1", "it is stuck")):
        child.expect(why)
        child.expect(f"{name}: this is the guest's console")
        child.expect(rf"hello from \S*{name}")
        child.send(LEAVE)
    child.expect("3 failed, 1 passed")
    child.expect(pexpect.EOF)
    child.close()


def test_console_is_for_one_process(pytester: pytest.Pytester, run: Callable[..., pytest.RunResult]) -> None:
    """Workers have no terminal: --vm-console with --numprocesses is refused in one sentence."""
    pytester.makepyfile("def test_it(): pass")
    result = run("--vm-console", "--numprocesses=2")
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stderr.fnmatch_lines(["*--vm-console needs one process*"])
