"""What the tests of several rooms use."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# As for anybody, modules are compiled once, and not by each of the processes that tests start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.setdefault("PYTHONPYCACHEPREFIX", str(Path(sys.prefix) / "bytecode"))
sys.dont_write_bytecode, sys.pycache_prefix = False, os.environ["PYTHONPYCACHEPREFIX"]

# How long an example takes is the host's affair: machines may boot beside the tests.
settings.register_profile("vmtests", deadline=None)
settings.load_profile("vmtests")

QUICK = "-p no:hypothesispytest -p no:syrupy -p no:html -p no:rerunfailures"
"""Of pytest in a process of its own: without what takes its time to import, and has no part in it."""

_LONG = {"pytester", "stranger", "theirs"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put first what starts other processes of pytest, which takes longest: no worker is left with it at the end."""
    items.sort(key=lambda item: _LONG.isdisjoint(getattr(item, "fixturenames", ())))


@pytest.fixture
def run(pytester: pytest.Pytester) -> Callable[..., pytest.RunResult]:
    """A function that runs pytest with the plugin in `pytester`'s directory, with more arguments if need be.

    In this process, and as `QUICK` as its workers.
    """

    def run(*arguments: str) -> pytest.RunResult:
        return pytester.runpytest_inprocess(*QUICK.split(), *arguments)

    return run
