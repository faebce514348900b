"""The plugin: results only where a machine is needed, and one sentence for what fails."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from vmtests.resources import cache_dir

Run = Callable[..., pytest.RunResult]

_WITH_MACHINE = """
def test_it(vm):
    pass
"""


@pytest.fixture(scope="session")
def real_cache() -> Path:
    """The cache of this run, found before `pytester` moves the home directory."""
    return cache_dir()


@pytest.fixture(autouse=True)
def _same_cache(real_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMTESTS_CACHE", str(real_cache))


def test_run_without_machines_leaves_no_results(pytester: pytest.Pytester, run: Run) -> None:
    """A run whose tests need no machine makes no directory of results."""
    pytester.makepyfile("def test_it(): pass")
    run().assert_outcomes(passed=1)
    assert not (pytester.path / "results").exists()


def test_collecting_leaves_no_results(pytester: pytest.Pytester, run: Run) -> None:
    """`--collect-only` makes nothing."""
    pytester.makepyfile(_WITH_MACHINE)
    run("--collect-only")
    assert not (pytester.path / "results").exists()


def test_missing_image_is_one_sentence(pytester: pytest.Pytester, run: Run) -> None:
    """An image that does not exist is an error of one sentence with a hint, and not a traceback."""
    pytester.makepyfile(_WITH_MACHINE)
    result = run("--vm-image=none.raw")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["none.raw does not exist (hint: *)"])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_one_cause_is_reported_for_each_test_that_needed_it(pytester: pytest.Pytester, run: Run) -> None:
    """Every test that needed the image is an error of that one cause."""
    pytester.makepyfile("def test_one(vm): pass\ndef test_two(vm_boot): pass\ndef test_three(vm_image): pass")
    run("--vm-image=none.raw").assert_outcomes(errors=3)


def test_results_have_junit_xml(pytester: pytest.Pytester, run: Run) -> None:
    """A run with machines leaves junit.xml in its results, and `latest` points there."""
    pytester.makepyfile(_WITH_MACHINE)
    run("--vm-image=none.raw")
    assert "none.raw does not exist" in (pytester.path / "results/latest/junit.xml").read_text()


def test_results_go_where_they_are_wanted(pytester: pytest.Pytester, run: Run) -> None:
    """`--vm-results` is used as it is."""
    pytester.makepyfile(_WITH_MACHINE)
    run("--vm-image=none.raw", "--vm-results=mine")
    assert (pytester.path / "mine/junit.xml").exists()
    assert not (pytester.path / "results").exists()


def test_unknown_module_is_one_sentence(pytester: pytest.Pytester, run: Run) -> None:
    """A module that does not exist is named, with those that do."""
    pytester.makepyfile(_WITH_MACHINE)
    result = run("--vm-module=foo")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["unknown module 'foo' (hint: modules are: debug, bloat, bloat:SIZE)"])


def test_options_are_documented(run: Run) -> None:
    """`pytest --help` names every option."""
    result = run("--help")
    result.stdout.fnmatch_lines([f"*--vm-{name}*" for name in ("image", "module", "accel", "target", "results")])


_TELLS = """
import pytest

@pytest.fixture(scope="session")
def _vmtests_machines():
    return None

def test_told(pytestconfig, _vmtests_machines):
    print("told:", *map(pytestconfig.getoption, ("vm_accel", "vm_module", "vm_reuse")))
"""


def test_workers_share_a_directory_of_results(
    pytester: pytest.Pytester, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers of pytest-xdist have results of their own below those of the run, and there is one junit.xml.

    They have the same options, wherever each of them was said.
    """
    pytester.makepyfile(test_one=_WITH_MACHINE, test_two=_WITH_MACHINE, test_three=_TELLS)
    pytester.makepyprojecttoml("[tool.pytest.ini_options]\nvm_accel = 'kvm'\nvm_reuse = false\n")
    monkeypatch.setenv("VMTESTS_ACCEL", "tcg")
    result = run("--vm-image=none.raw", "--vm-module=debug", "--numprocesses=2", "-rP")
    result.assert_outcomes(errors=2, passed=1)
    result.stdout.fnmatch_lines(["none.raw does not exist (hint: *)"])
    assert "told: tcg ['debug'] False" in result.outlines
    latest = pytester.path / "results/latest"
    assert {path.name for path in latest.iterdir()} == {"gw0", "gw1", "junit.xml"}
    assert (latest / "junit.xml").read_text().count('name="test_it"') == 2


def test_workers_without_machines_leave_no_results(pytester: pytest.Pytester, run: Run) -> None:
    """A worker whose tests need no machine makes no directory of results."""
    pytester.makepyfile("def test_it(): pass")
    result = run("--numprocesses=1")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*junit.xml*")
    assert not (pytester.path / "results").exists()


_MACHINE_TYPES = """
import pytest

@pytest.fixture(scope="session")
def _vmtests_machines(_vmtests_machine_type):
    print("begin", _vmtests_machine_type)
    yield _vmtests_machine_type
    print("end", _vmtests_machine_type)
"""


def test_machine_types_take_turns(pytester: pytest.Pytester, run: Run) -> None:
    """Of several machine types each runs all tests before the next begins, on machines of its own."""
    pytester.makeconftest(_MACHINE_TYPES)
    pytester.makepyfile(
        "def test_one(_vmtests_machines): print('one', _vmtests_machines)\n"
        "def test_two(_vmtests_machines): print('two', _vmtests_machines)"
    )
    result = run("--vm-target=gce", "--gce-machine=e2-small,n2-standard-2", "-s")
    result.assert_outcomes(passed=4)
    said = [
        line.lstrip(".")
        for line in result.outlines
        if line.lstrip(".").split()[:1] != [] and line.endswith(("e2-small", "n2-standard-2"))
    ]
    turns = [f"{word} {kind}" for kind in ("e2-small", "n2-standard-2") for word in ("begin", "one", "two", "end")]
    assert turns == [" ".join(line.split()[-2:]) for line in said]


def test_program_that_runs_pytest_goes_on_as_it_was(pytester: pytest.Pytester, run: Run) -> None:
    """`pytest.main` with machines leaves the signals as they were: SIGTERM ends such a program afterwards, too."""
    pytester.makepyfile(_WITH_MACHINE)
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)
    found = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP,))
    try:
        run("--vm-image=none.raw")
        assert [signal.SIG_IGN] * 3 == [signal.getsignal(number) for number in numbers]
        assert signal.SIGHUP in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in zip(numbers, found, strict=True):
            signal.signal(number, handler)
