"""The cockpit at the machine of a test that failed."""

from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest

from tests.conftest import QUICK

_LAB = """
import contextlib, pathlib, socket
import pytest
from vmtests.errors import GuestError
from vmtests.plugin.machines import RUN, Machines
from vmtests.testing import FakeVm

class Machine(FakeVm):
    ended = False
    def close(self):
        super().close()
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
        pathlib.Path(name).mkdir()
        return Machine(results=pathlib.Path(name))

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


def test_failed_test_opens_the_cockpit(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --vm-console a person meets the machine of each test that fails, and no other, before it ends."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(Path("/nowhere")))
    pytester.makeconftest(_LAB)
    pytester.makepyfile(_FAILING)
    child = pytester.spawn_pytest(f"{QUICK} --vm-console --vm-results=mine", expect_timeout=150)
    for name in ("test_fails-1", "test_stuck-1"):
        child.expect(rf"hello from \S*{name}")
        child.send("q\x1d")  # q is the guest's, until the line is given back
        child.expect("given back")
        child.send("q")
    child.expect("3 failed, 1 passed")
    child.expect(pexpect.EOF)
    child.close()


def test_console_is_for_one_process(pytester: pytest.Pytester, run: Callable[..., pytest.RunResult]) -> None:
    """Workers have no terminal: --vm-console with --numprocesses is refused in one sentence."""
    pytester.makepyfile("def test_it(): pass")
    result = run("--vm-console", "--numprocesses=2")
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stderr.fnmatch_lines(["*--vm-console needs one process*"])
