"""Builds what an image.json describes: a raw disk, the archive that Compute Engine takes, or both."""

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vmtests import progress
from vmtests.errors import ImageError, InputError, at_named
from vmtests.host.scratch import scratch
from vmtests.host.tools import Toolbox
from vmtests.image import archive, compare, deep
from vmtests.image.assemble import assemble
from vmtests.image.spec import ImageSpec
from vmtests.image.target import beside
from vmtests.resources import cache_dir
from vmtests.sizes import GIB

STDOUT = Path("-")
"""The archive that is written to standard output."""


@dataclass(slots=True, kw_only=True)
class Order:
    """What is to be built and looked at: `twice` builds it again and compares, `deep` runs the checkers on it."""

    disk: Path | None = None
    packed: Path | None = None
    twice: bool = False
    deep: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    """How long each part took, filled in by what does it."""

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the seconds of a block."""
        started = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - started


def check_targets(spec: ImageSpec, order: Order, origin: Path) -> None:
    """Raise InputError for a target that is `origin`, the image.json, or is or lies in what the image is made of."""
    inputs = [origin, *spec.esp.values(), *(entry.source for entry in spec.root if entry.source is not None)]
    inputs += [path for path in (spec.store.path_list, spec.registration) if path is not None]
    whole = {path.resolve() for path in inputs}
    # Of store paths there are many, all in one directory; one that is a link is itself in the image.
    store, names = spec.store.directory.resolve(), {spec.store.name(path) for path in spec.store.paths}
    for target in (order.disk, order.packed):
        if target in {None, STDOUT}:
            continue
        # A link that is a target is replaced.
        for place in (target.resolve(), target.parent.resolve() / target.name):
            above = {place, *place.parents}
            found = (whole & above) | {path for path in above if path.parent == store and path.name in names}
            if found:
                what = "the image is made of it" if place in found else f"the image is made of {min(found)}"
                raise InputError(f"{target} cannot be written: {what}", hint="name another place")


def build(spec: ImageSpec, toolbox: Toolbox, order: Order) -> None:
    """Build an image, which appears whole or not at all; without `order.disk` the raw image is scratch.

    Raises InputError, before anything is written, for the archive of a disk that Compute Engine does not take;
    HostError when a tool fails or the disk is full, ImageError when it is not what it should be.
    """
    unit = spec.image_contract().disk
    if order.packed is not None and unit.granularity_bytes % GIB:
        text = f"image {spec.name}: its contract's disk.granularity is {unit.granularity}, no number of GiB"
        raise InputError(text, hint="Compute Engine's archive needs 1G; or leave out --archive")
    with contextlib.ExitStack() as stack:
        disk = order.disk or stack.enter_context(_scratch(order.packed)) / archive.MEMBER
        # Nix takes no relative name for its state.
        order.seconds |= assemble(spec, disk.absolute(), toolbox)
        if order.twice:
            with order.part("check"):
                _again(spec, disk, toolbox)
        finish(disk, toolbox, order)


def finish(disk: Path, toolbox: Toolbox, order: Order) -> None:
    """Check the file systems of a disk and pack it, as far as `order` says so; raises as `build` does."""
    if order.deep:
        with order.part("deep"):
            deep.check(disk, toolbox)
    if order.packed is not None:
        with order.part("archive"):
            _pack(disk, order.packed)


def _again(spec: ImageSpec, disk: Path, toolbox: Toolbox) -> None:
    """Build an image anew and compare; raises ImageError, with the first file that differs."""
    with beside(disk) as directory:
        again = directory / archive.MEMBER
        assemble(spec, again, toolbox)
        with progress.step("comparing the two"):
            found = compare.difference(disk, again, toolbox)
    if found is not None:
        raise ImageError(
            f"two builds of {spec.name} differ: {found}",
            hint="something that goes into it changes, or a tool writes times or random numbers",
        )
    progress.stderr().print(f"two builds of {spec.name} are the same bytes")


@contextlib.contextmanager
def _scratch(packed: Path | None) -> Iterator[Path]:
    with scratch(cache_dir()) if packed in {None, STDOUT} else beside(packed) as directory:
        yield directory


def _pack(disk: Path, packed: Path) -> None:
    """Pack a disk into the file `packed`, or to standard output. Raises as `archive.pack` does."""
    if packed != STDOUT:
        archive.pack(disk, packed)
        return
    archive.check(disk)
    try:
        with progress.step("archive") as running:
            archive.write(disk, sys.stdout.buffer, running)
    except OSError as error:
        raise at_named("the archive cannot be written to standard output", error, None) from error
