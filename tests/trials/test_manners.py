"""Beside somebody else's tests the plugin changes nothing: same results, same workers, same start."""

import math
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import QUICK

Run = Callable[..., pytest.RunResult]

THEIR_CONFTEST = """
import pytest

@pytest.fixture
def image(): return "their image"
@pytest.fixture(scope="session")
def lab(): return "their laboratory"
@pytest.fixture
def boot(lab): return f"boot in {lab}"
@pytest.fixture
def contract(): return "signed"
@pytest.fixture
def ready(): return True
"""

THEIR_TESTS = """
import pytest

def test_their_fixtures(image, lab, boot, contract, ready):
    assert (image, boot, contract, ready) == ("their image", "boot in their laboratory", "signed", True)

def test_syrupy(snapshot):
    assert {"a": [1, 2]} == snapshot

@pytest.mark.flaky(reruns=2)
def test_second_time(tmp_path_factory):
    mark = tmp_path_factory.getbasetemp() / "mark"
    try:
        assert mark.exists()
    finally:
        mark.touch()

@pytest.mark.vm("theirs", 1)
def test_their_marker(): pass

def test_fails():
    assert 1 == 2

@pytest.mark.skip(reason="a skip of theirs, which has to stay one beside us")
def test_skipped(): pass

@pytest.mark.parametrize("number", range(12))
def test_many(number, record_property):
    record_property("number", number)
"""

SNAPSHOTS = """
# serializer version: 1
# name: test_syrupy
  dict({
    'a': list([
      1,
      2,
    ]),
  })
# ---
"""


def their_pytest(directory: Path, *arguments: str, ours: bool) -> str:
    """Run pytest as they do, in a process of its own, with or without the plugin of this project."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    command = [sys.executable, "-m", "pytest", *(() if ours else ("-p", "no:vmtests")), "-p", "no:hypothesispytest"]
    ended = subprocess.run(
        [*command, *arguments], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode in {0, 1}, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A directory of somebody else's tests."""
    pytest.importorskip("syrupy", reason="make .venv/.installed brings it")
    (tmp_path / "conftest.py").write_text(THEIR_CONFTEST)
    (tmp_path / "test_theirs.py").write_text(THEIR_TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = vm(name, number): theirs\n")
    (tmp_path / "__snapshots__").mkdir()
    (tmp_path / "__snapshots__/test_theirs.ambr").write_text(SNAPSHOTS.lstrip())
    return tmp_path


def outcomes(told: str) -> list[str]:
    """Return what each test came to, and all of them together, without what differs from run to run."""
    lines = [re.sub(r"\[ *\d+%\]|\[gw\d+\]", "", line).strip() for line in told.splitlines()]
    each = sorted(line for line in lines if re.search(r"(::.* |^)(PASSED|FAILED|RERUN|SKIPPED|ERROR)\b", line))
    return [*each, re.sub(r" in [\d.]+s.*", "", lines[-1].strip("= "))]


def test_their_results_are_the_same(theirs: Path) -> None:
    """With syrupy, pytest-html and pytest-rerunfailures every test ends as it does without us; no file is left.

    pytest-xdist gives tests to as many workers, through the scheduler that it says it has; without it, they end as
    they do with it.
    """
    report = ("--html=report.html", "--self-contained-html", "-v", "-p", "no:cacheprovider")
    workers_too = (*report, "-n", "2", "-p", "no:junitxml")
    without = their_pytest(theirs, *workers_too, ours=False)
    before = {path.name for path in theirs.iterdir()}
    with_us = their_pytest(theirs, *workers_too, ours=True)
    alone = their_pytest(theirs, *report, "-p", "no:junitxml", ours=True)
    assert outcomes(without) == outcomes(with_us)
    assert set(map(_bare, outcomes(with_us))) == set(map(_bare, outcomes(alone)))
    assert before == {path.name for path in theirs.iterdir()}
    assert "1 rerun" in outcomes(without)[-1]
    assert (["LoadScheduling"], 2) == workers(without) == workers(with_us)


def _bare(outcome: str) -> str:
    """Return a line of outcomes as `TEST: WORD`: with workers the word stands in front."""
    words = re.findall(r"\S+::\S+|\b[A-Z]{4,}\b", outcome)
    return ": ".join(sorted(words)) if words else outcome


def workers(told: str) -> tuple[list[str], int]:
    """Return the scheduler's name, and how many workers had tests."""
    return re.findall(r"scheduling tests via (\w+)", told), len(set(re.findall(r"\[(gw\d)\]", told)))


def test_nothing_heavy_is_imported_for_them(pytester: pytest.Pytester) -> None:
    """Where no test asks for a machine, of the project only what tells the options is imported."""
    pytester.makeconftest(
        "import sys\n"
        "def pytest_sessionfinish():\n"
        "    heavy = ('paramiko', 'cryptography', 'elftools', 'rich', 'msgspec', 'google', 'pexpect', 'qemu')\n"
        "    print('heavy:', *[name for name in heavy if name in sys.modules])\n"
        "    print('ours:', *sorted(name for name in sys.modules if name.startswith('vmtests')))\n"
    )
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest_subprocess("-s", "-p", "no:hypothesispytest", "-p", "no:syrupy", "-p", "no:html")
    result.stdout.re_match_lines([r".*heavy:$"])
    (ours,) = [line.split()[1:] for line in result.outlines if line.startswith("ours:")]
    allowed = {"vmtests", "vmtests.errors", "vmtests.host", "vmtests.host.results", "vmtests.plugin"}
    assert {name for name in ours if not name.startswith("vmtests.plugin.")} == allowed
    assert {"vmtests.plugin.machines", "vmtests.plugin.run"}.isdisjoint(ours)


def test_their_pytest_starts_as_fast(theirs: Path) -> None:
    """pytest starts within 1.15 times what it takes without us: the processor's time, the least of runs in turn."""
    least = {False: math.inf, True: math.inf}
    for _ in range(12):
        for ours in least:
            least[ours] = min(least[ours], started(theirs, ours=ours))
        if least[True] <= 1.15 * least[False]:
            return
    pytest.fail(f"{least[True]:.3f} s with us, {least[False]:.3f} s without")


def started(directory: Path, *, ours: bool) -> float:
    """Return the seconds of processor time that pytest takes to run one test of nothing."""

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = spent()
    their_pytest(directory, "-p", "no:cacheprovider", "-k", "their_fixtures", ours=ours)
    return spent() - before


OUR_TESTS = """
import pytest

@pytest.mark.parametrize("number", range(4))
def test_ours(number, _vmtests_machines): pass
"""

MIXED_CONFTEST = """
import pytest

@pytest.fixture(scope="session")
def _vmtests_machines(): pass
"""


def test_our_files_stay_together_and_theirs_do_not(pytester: pytest.Pytester) -> None:
    """The tests of a file that need machines go to one worker each; a file that needs none is shared out."""
    pytester.makeconftest(MIXED_CONFTEST)
    pytester.makepyfile(test_a=OUR_TESTS, test_b=OUR_TESTS, test_many="""
        import pytest
        @pytest.mark.parametrize("number", range(24))
        def test_many(number): pass
    """)  # fmt: skip
    told = their_pytest(pytester.path, *QUICK.split(), "-n", "2", "-v", ours=True)
    at = re.findall(r"\[(gw\d)\] \[ *\d+%\] PASSED (\w+).py", told)
    assert len(at) == 32
    where = {file: {worker for worker, other in at if other == file} for _, file in at}
    assert len(where["test_a"]) == len(where["test_b"]) == 1
    assert len(where["test_many"]) > 1
