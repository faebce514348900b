"""Beside somebody else's tests the plugin changes nothing: same results, same workers, same start."""

import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

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
import os, time
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

@pytest.mark.skip(reason="theirs")
def test_skipped(): pass

@pytest.mark.parametrize("number", range(12))
def test_many(number, record_property):
    record_property("number", number)
    time.sleep(0.05)
"""

SNAPSHOTS = '''
# serializer version: 1
# name: test_syrupy
  dict({
    'a': list([
      1,
      2,
    ]),
  })
# ---
'''


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


@pytest.mark.parametrize("arguments", [(), ("-p", "no:junitxml"), ("-n", "3"), ("-n", "2", "--dist=loadgroup")])
def test_their_results_are_the_same(theirs: Path, arguments: tuple[str, ...]) -> None:
    """With syrupy, pytest-html and pytest-rerunfailures every test ends as it does without us; no file is left."""
    report = ("--html=report.html", "--self-contained-html", "-v", "-p", "no:cacheprovider")
    without = outcomes(their_pytest(theirs, *report, *arguments, ours=False))
    before = {path.name for path in theirs.iterdir()}
    assert without == outcomes(their_pytest(theirs, *report, *arguments, ours=True))
    assert any("1 rerun" in line for line in without)
    assert before == {path.name for path in theirs.iterdir()}


def test_their_tests_go_to_the_same_workers(theirs: Path) -> None:
    """pytest-xdist gives its workers as many tests, and calls its scheduler what it does, with us and without."""

    def workers(*, ours: bool) -> tuple[list[str], int]:
        told = their_pytest(theirs, "-n", "4", "-v", "-k", "test_many", ours=ours)
        return re.findall(r"scheduling tests via (\w+)", told), len(set(re.findall(r"\[(gw\d)\]", told)))

    assert (["LoadScheduling"], 4) == workers(ours=False) == workers(ours=True)


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
    """pytest starts within 1.15 times what it takes without us: the processors' time, each the least of many runs."""
    least: dict[bool, float] = {}
    ratios = []
    for _ in range(8):
        for ours in (False, True):
            took = started(theirs, ours=ours)
            least[ours] = min(took, least.get(ours, took))
        ratios.append(least[True] / least[False])
        if ratios[-1] <= 1.15 and len(ratios) > 2:
            break
    assert ratios[-1] <= 1.15, f"{least}; {statistics.median(ratios):.2f}"


def started(directory: Path, *, ours: bool) -> float:
    """Return the seconds of processor time that pytest takes to run one test of nothing."""
    before, began = os.times(), time.monotonic()
    their_pytest(directory, "-p", "no:cacheprovider", "-k", "their_fixtures", ours=ours)
    after = os.times()
    assert time.monotonic() > began
    return after.children_user - before.children_user + after.children_system - before.children_system
