"""A running machine that was stopped and kept in files, so that others go on from there.

A template is a directory: the guest's memory, the state of its devices (a migration stream without the memory:
QEMU's `x-ignore-shared`, docs/devel/migration), its disk as a qcow2 overlay over the image, its firmware variables
and the state of its TPM. Forks map the memory privately and write to overlays of their own, so a template never
changes, and one that is in the cache serves later runs too.
"""

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from vmtests.sizes import MIB

_COPY = 8 * MIB  # bytes that are read at once


@dataclass(frozen=True, slots=True)
class Template:
    """The files of a template, below its directory."""

    directory: Path

    @property
    def ram(self) -> Path:
        """The guest's memory, sparse."""
        return self.directory / "ram"

    @property
    def state(self) -> Path:
        """The state of the devices."""
        return self.directory / "state"

    @property
    def disk(self) -> Path:
        """The disk: a qcow2 overlay over the image."""
        return self.directory / "disk.qcow2"

    @property
    def overlay(self) -> Path:
        """An empty overlay over `disk`, copied for each fork: that is faster than to make one."""
        return self.directory / "overlay.qcow2"

    @property
    def disks(self) -> list[Path]:
        """All disks of a template that is in its place, empty overlays aside."""
        return sorted(self.directory.glob("disk*.qcow2"))

    def further(self, number: int) -> Path:
        """The further disk of a number, from 1 on: a qcow2 file."""
        return self.directory / f"disk-{number}.qcow2"

    def further_overlay(self, number: int) -> Path:
        """An empty overlay over it."""
        return self.directory / f"overlay-{number}.qcow2"

    @property
    def variables(self) -> Path:
        """The firmware's variables."""
        return self.directory / "variables"

    @property
    def tpm(self) -> Path:
        """The directory of the TPM's state."""
        return self.directory / "tpm"


def copy_sparse(source: int, target: Path) -> None:
    """Copy what the descriptor `source` leads to into `target`, a new file, leaving holes where it has holes.

    Raises OSError.
    """
    size = os.fstat(source).st_size
    with target.open("xb", buffering=0) as file:
        file.truncate(size)
        start = 0
        while (start := _next_data(source, start)) < size:
            end = os.lseek(source, start, os.SEEK_HOLE)
            while start < end:
                data = os.pread(source, min(_COPY, end - start), start)
                if data.count(0) != len(data):
                    os.pwrite(file.fileno(), data, start)
                start += len(data)


def _next_data(source: int, start: int) -> int:
    try:
        return os.lseek(source, start, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:  # only a hole is left
            return os.fstat(source).st_size
        raise
