"""In pytest a boot that fails, fails once: one sentence with the last lines, and one line for each other test."""

import re
from collections.abc import Callable

import pytest

Run = Callable[..., pytest.RunResult]

_CONFTEST = """
import contextlib
from pathlib import Path
import pytest
from vmtests.boot.console import Line
from vmtests.boot.stages import Stage
from vmtests.boot.verdict import Cause, Evidence, Verdict
from vmtests.errors import Owner
from vmtests.plugin.machines import RUN, Machines
from vmtests.vm import BootError

VERDICT = Verdict(
    ready=False, stage=Stage.INITRD, cause=Cause.MOUNT_FAILED, sentence="/sysroot could not be mounted",
    evidence=(), hint="look at the file system", owner=Owner.IMAGE, evidence_to_verdict_s=0.1,
)
LINES = [
    Line(t=1.0, text="EFI stub: Loaded initrd", stage=Stage.KERNEL),
    *(Line(t=2.0 + n, text=f"stage 1 says {n}", stage=Stage.INITRD) for n in range(30)),
]


class Laboratory:
    def image(self, *_):
        return None

    @contextlib.contextmanager
    def start(self, *_, **__):
        raise BootError(VERDICT, Path("results"), None, LINES)
        yield


@pytest.fixture(scope="session")
def _vmtests_machines(pytestconfig):
    return Machines(pytestconfig, pytestconfig.stash[RUN], Laboratory())
"""

_TESTS = """
def test_first(vm): pass
def test_second(vm): pass
def test_third(vm_boot): pass
def test_other(): pass
"""


def test_failed_boot_is_told_once(pytester: pytest.Pytester, run: Run) -> None:
    """Tests that need a failed boot are errors of one cause: told once with the last lines, then one line each."""
    pytester.makeconftest(_CONFTEST)
    pytester.makepyfile(_TESTS)
    result = run("--vm-results=results")
    result.assert_outcomes(errors=3, passed=1)
    text = result.stdout.str()
    body = text[text.index("ERRORS") : text.index("short test summary")]
    assert 1 == body.count("boot failed in initrd: /sysroot could not be mounted (hint: look at the file system;")
    assert [f"stage 1 says {n}" for n in range(18, 30)] == re.findall(r"stage 1 says \d+", body)
    assert ["boot failed: see above"] * 2 == re.findall(r"^boot failed: .*$", body, re.MULTILINE)
    assert "Loaded initrd" not in body
    assert ".py:" not in body
    assert 2 == (pytester.path / "results/junit.xml").read_text().count(">boot failed: see above<")


_FACTORIES = """
import pytest
from vmtests.plugin.machines import RUN, Machines
from vmtests.testing import FakeVm


class Laboratory:
    forks = True

    def __init__(self, results):
        self.results = results

    def image(self, *_):
        return None

    def machine(self, *_, name, **__):
        (directory := self.results / name).mkdir()
        return FakeVm(results=directory)


@pytest.fixture(scope="session")
def _vmtests_machines(pytestconfig):
    run = pytestconfig.stash[RUN]
    return Machines(pytestconfig, run, Laboratory(run.results))
"""


def test_machines_are_not_made_for_a_test_that_is_over(pytester: pytest.Pytester, run: Run) -> None:
    """A factory that somebody keeps makes no machine that nobody would end; one sentence says so."""
    pytester.makeconftest(_FACTORIES)
    pytester.makepyfile("""
        kept = []
        def test_first(cold_vm): kept.extend([cold_vm, cold_vm()])
        def test_second(): kept[0]()
        def test_third(): assert not kept[1]._on
    """)
    result = run()
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*::test_first is over: what makes its machines makes none for others"])
