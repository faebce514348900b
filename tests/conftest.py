"""What the tests of several rooms use."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from vmtests import contract as contracts
from vmtests.contract import Contract
from vmtests.host import sandbox, tools
from vmtests.host.tools import Toolbox

# As for anybody, modules are compiled once, and not by each of the processes that tests start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.setdefault("PYTHONPYCACHEPREFIX", str(Path(sys.prefix) / "bytecode"))
sys.dont_write_bytecode, sys.pycache_prefix = False, os.environ["PYTHONPYCACHEPREFIX"]

# How long an example takes is the host's affair: machines may boot beside the tests.
settings.register_profile("vmtests", deadline=None)
settings.load_profile("vmtests")

QUICK = "-p no:hypothesispytest -p no:syrupy -p no:html -p no:rerunfailures"
"""Of pytest in a process of its own: without what takes its time to import, and has no part in it."""

# They take minutes: `make trials` names them.
collect_ignore = ["trials"]

_CLOUD = "gce"
"""The room with the tests of a cloud."""


class Rooms(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """Has each file run by one worker, which makes what its tests share once.

    Those of a cloud stay together, too: its client library takes two seconds to import.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return _CLOUD if Path(file).parent.name == _CLOUD else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Rooms | None:
    """Give it where files are to stay together."""
    return Rooms(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put first what takes longest, the tests of a cloud and those that start pytest: no worker is left with them."""
    long = {item.path for item in items if "pytester" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: (item.path.parent.name != _CLOUD, item.path not in long))


@pytest.fixture(scope="session", autouse=True)
def runtime_directory() -> Iterator[None]:
    """A place of each worker's own for sockets, whose paths are short: boots of other tests are not found in it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", directory)
        yield


@pytest.fixture(scope="session")
def toolbox() -> Toolbox:
    """The tools of this host."""
    return tools.find()


@pytest.fixture(scope="session")
def contract() -> Contract:
    """The project's contract."""
    return contracts.default()


@pytest.fixture
def hiding() -> None:
    """Needs a host on which something can be hidden from a program."""
    if (why := sandbox.refusal()) is not None:
        pytest.skip(f"this host refuses namespaces ({why}), so that nothing can be hidden on it")


@pytest.fixture
def run(pytester: pytest.Pytester) -> Callable[..., pytest.RunResult]:
    """A function that runs pytest with the plugin in `pytester`'s directory, with more arguments if need be.

    In this process, and as `QUICK` as its workers.
    """

    def run(*arguments: str) -> pytest.RunResult:
        return pytester.runpytest_inprocess(*QUICK.split(), *arguments)

    return run
