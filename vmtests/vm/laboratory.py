"""What a target has to offer: a laboratory, which makes images and machines; and what all of them have."""

import contextlib
import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from vmtests import contract as contracts
from vmtests.boot.follow import Watch
from vmtests.contract import Contract
from vmtests.host.host import Host
from vmtests.host.lazy import lazy
from vmtests.host.results import held
from vmtests.image.image import Image
from vmtests.image.images import Images
from vmtests.machine.hardware import Hardware
from vmtests.vm.vm import Vm

Kept = Any
"""A machine at rest, from which others go on: each target has its own."""


class Start(Protocol):
    """A machine that was powered on, or goes on from where an earlier run had booted it."""

    @property
    def vm(self) -> Vm:
        """The machine."""

    def wait(self) -> Kept | None:
        """Wait until it is ready; return a snapshot to fork from, None on a target without; raises BootError."""


class Laboratory(Protocol):
    """What makes images and machines: `qemu.lab.Lab` with QEMU, `gce.lab.GceLab` on Compute Engine."""

    contract: Contract
    forks: bool
    """Whether `fork` goes on from a snapshot, and boots nothing."""

    @property
    def results(self) -> Path:
        """The directory for results."""

    def image(self, name: str | Path = ..., modules: Sequence[str] = ...) -> Image:
        """Return an image by its name."""

    def start(
        self,
        image: Image,
        hardware: Hardware | None = ...,
        *,
        name: str = ...,
        watch: Watch | None = ...,
        cache: bool = ...,
    ) -> AbstractContextManager[Start]:
        """Give a machine that is powered on, on its way to ready."""

    def fork(self, image: Image, snapshot: Kept, *, name: str, watch: Watch | None = ...) -> Vm:
        """Return a machine, to be entered, that is pristine, and ready for its first command.

        `snapshot` is what `Start.wait` returned.
        """

    def machine(
        self, image: Image, hardware: Hardware | None = ..., *, name: str = ..., watch: Watch | None = ...
    ) -> Vm:
        """Return a machine, to be entered, that boots then."""


class Base:
    """A host, images, and a directory of results for each machine; a context manager."""

    def __init__(
        self, results: Path | Callable[[], Path], host: Host, contract: Contract | None, timeout: float | None
    ) -> None:
        # Once it is begun, nothing goes elsewhere because somebody changes the working directory.
        self._results = results if callable(results) else Path(results).absolute()
        self._timeout = timeout
        self._stack = contextlib.ExitStack()
        self.host = self._stack.enter_context(host)
        self.contract = contract or contracts.default()
        self.images = Images(contract, host)
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @lazy
    def results(self) -> Path:
        """The directory for results."""
        return (self._results if isinstance(self._results, Path) else self._results()).absolute()

    def _results_of(self, name: str) -> Path:
        """Make and return the directory of a machine's results; raises InputError while another machine has it."""
        results = self.results / name if name else self.results
        results.mkdir(parents=True, exist_ok=True)
        with held(results):
            return results
