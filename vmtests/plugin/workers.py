"""pytest-xdist: the tests of a file that need machines go to one worker, and all others where it would send them.

A worker tells the controller, on a channel of its own, which of its tests are ours, before it says that it has
collected. Where none are, nothing is sent and xdist's scheduler is left as it is.
"""

import functools
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vmtests.host import results
from vmtests.plugin.options import TOLD, settled

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadScheduling
    from xdist.workermanage import WorkerController

_CHANNEL = "vmtests_ours"
_RESULTS = "vmtests_results"


def tell_controller(config: pytest.Config, ours: Collection[int]) -> None:
    """In a worker, tell the controller which of the collected tests are ours."""
    channel = config.workerinput[_CHANNEL]  # type: ignore[attr-defined]
    channel.send(sorted(ours))


def results_of_worker(config: pytest.Config) -> Path | None:
    """Make and return the directory of results of this worker; None where this process is none. Raises HostError."""
    if (told := getattr(config, "workerinput", None)) is None:
        return None
    return results.part(Path(told[_RESULTS]), told["workerid"], wanted=config.getoption("vm_results") is not None)


class Workers:
    """The controller's side."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._ours: set[int] = set()
        self._planned: Path | None = None
        self._scheduler: LoadScheduling | None = None

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: "WorkerController") -> None:
        """Tell a worker where the results of the run are, which it makes when it needs a machine."""
        if self._planned is None:
            wanted = self._config.getoption("vm_results")
            self._planned = results.planned(
                None if wanted is None else Path(wanted), node.workerinput["testrunuid"][:8]
            )
        channel = node.gateway.newchannel()
        channel.setcallback(self._ours.update)
        node.workerinput |= {_RESULTS: str(self._planned), _CHANNEL: channel, TOLD: settled(self._config)}

    @pytest.hookimpl(optionalhook=True, wrapper=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: "Producer") -> "Iterator[None]":
        """Note xdist's own scheduler, if it is the one that balances the load; others are what somebody asked for."""
        from xdist.scheduler import LoadScheduling

        del config, log
        scheduler = yield
        if type(scheduler) is LoadScheduling:
            self._scheduler = scheduler
        return scheduler

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: "WorkerController", ids: Sequence[str]) -> None:
        """Keep our files together, as soon as a worker has any of them."""
        del node
        if not self._ours:
            return
        if self._scheduler is not None:
            files = {index: ids[index].partition("::")[0] for index in self._ours if index < len(ids)}
            keep_together(self._scheduler, files)
            self._scheduler = None
        if self._planned is not None:
            from vmtests.plugin.run import Run

            Run.begin(self._config, self._planned)


def keep_together(scheduler: "LoadScheduling", files: dict[int, str]) -> None:
    """Have a scheduler send all tests of a file to the worker that gets the first; `files` is by a test's number."""
    send = scheduler._send_tests  # noqa: SLF001 - xdist has no hook for it; a test sees that it is still called

    @functools.wraps(send)
    def send_files(node: "WorkerController", number: int) -> None:
        first, rest = scheduler.pending[:number], scheduler.pending[number:]
        begun = {files[index] for index in first if index in files}
        with_them = [index for index in rest if files.get(index) in begun]
        scheduler.pending[:] = [*first, *with_them, *(index for index in rest if files.get(index) not in begun)]
        send(node, len(first) + len(with_them))

    scheduler._send_tests = send_files  # noqa: SLF001
