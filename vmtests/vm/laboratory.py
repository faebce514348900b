"""What a target has to offer: a laboratory, which makes images and machines."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from vmtests.boot.follow import Watch
from vmtests.contract import Contract
from vmtests.image.image import Image
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
        """Wait until it is ready and return what further ones go on from, where that can be; raises BootError."""


class Laboratory(Protocol):
    """What makes images and machines: `qemu.lab.Lab` with QEMU, `gce.lab.GceLab` on Compute Engine."""

    contract: Contract
    forks: bool
    """Whether `fork` goes on from a snapshot, and boots nothing."""

    @property
    def results(self) -> Path:
        """The directory for results."""

    def image(self, name: str = ..., modules: Sequence[str] = ...) -> Image:
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
