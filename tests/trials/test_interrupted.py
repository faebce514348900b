"""A build that is killed, or whose disk is full, leaves nothing that is taken for an image, and nothing for long."""

import contextlib
import multiprocessing
import os
import random
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from tests.small_disk import SmallDisk, join, small_disk
from tests.trials.chaos import moments
from tests.trials.chaos.harms import HARMS
from vmtests.contract import Contract
from vmtests.errors import HostError
from vmtests.host.tools import Toolbox
from vmtests.image import archive
from vmtests.image.build import Order, build
from vmtests.image.spec import ImageSpec, StoreSpec
from vmtests.sizes import MIB
from vmtests.testing.images import program

KILLS = 10

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["vmtests.image.build"])


@pytest.fixture
def described(tmp_path: Path, contract: Contract) -> ImageSpec:
    """A spec with some files."""
    (tmp_path / "store/abc-thing").mkdir(parents=True)
    for number in range(20):
        (tmp_path / f"store/abc-thing/{number}").write_bytes(random.Random(number).randbytes(MIB))
    (tmp_path / "loader").write_bytes(program())
    store = StoreSpec(directory=tmp_path / "store", paths=("/nix/store/abc-thing",))
    return ImageSpec(version=1, name="thing", esp={contract.boot.loader: tmp_path / "loader"}, store=store)


def _quietly(spec: ImageSpec, toolbox: Toolbox, order: Order) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    build(spec, toolbox, order)


def _start(spec: ImageSpec, toolbox: Toolbox, order: Order) -> ForkServerProcess:
    """Start a build in a process of its own, which has its modules already."""
    process = _FORKS.Process(target=_quietly, args=(spec, toolbox, order))
    process.start()
    return process


def _ended(spec: ImageSpec, toolbox: Toolbox, order: Order) -> int | None:
    process = _start(spec, toolbox, order)
    process.join()
    status = process.exitcode
    process.close()
    return status


def _disk(disk: Path) -> bytes:
    """Return what is in a disk, without its holes."""
    with disk.open("rb") as file:
        ranges = list(archive.data_ranges(file.fileno(), disk.stat().st_size))
        return b"".join(os.pread(file.fileno(), length, offset) for offset, length in ranges)


def _hidden(place: Path) -> set[str]:
    """Return the files of builds that are on their way, or were when they were killed."""
    return {path.name for path in place.iterdir() if path.name.startswith(".")}


def _users(directory: Path) -> list[str]:
    """Return the command lines of processes that name a directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (process / "cmdline").read_bytes()
            if os.fsencode(directory) in line and int(process.name) != os.getpid():
                found.append(line.replace(b"\0", b" ").decode(errors="replace"))
    return found


def test_build_that_is_killed_leaves_nothing_half_made(described: ImageSpec, toolbox: Toolbox, tmp_path: Path) -> None:
    """At ten moments: what has its name is whole, its processes end with it, the next build removes what it left."""
    place = tmp_path / "out"
    place.mkdir()
    disk, packed = place / "disk.raw", place / "image.tar.gz"
    order = Order(disk=disk, packed=packed)
    assert _ended(described, toolbox, order) == 0  # the server that forks is up, and the tools are found
    whole = (_disk(disk), packed.read_bytes())
    moments = random.Random(18)
    half = 0
    for number in range(KILLS):
        disk.unlink(missing_ok=True)
        packed.unlink(missing_ok=True)
        earlier = _hidden(place)
        process = _start(described, toolbox, order)
        while process.is_alive() and _hidden(place) <= earlier:
            process.join(0.001)
        process.join(number * moments.uniform(0, 0.05))  # the first one at once, on its way on every host
        process.kill()
        process.join()
        process.close()
        deadline = time.monotonic() + 10
        while users := _users(place):
            assert time.monotonic() < deadline, users
        if disk.exists():
            assert _disk(disk) == whole[0]
        if packed.exists():
            assert packed.read_bytes() == whole[1]
        half += bool(_hidden(place))
    assert half, "no build was killed on its way"
    assert _ended(described, toolbox, order) == 0
    assert (_disk(disk), packed.read_bytes()) == whole
    assert sorted(path.name for path in place.iterdir()) == ["disk.raw", "image.tar.gz"]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SmallDisk]:
    """A file system of its own."""
    with small_disk(tmp_path / "small", "256M") as disk:
        yield disk


def _build_on(holder: int, order: Order, spec: ImageSpec, toolbox: Toolbox, moment: str, pipe: Connection) -> None:
    """Build on a small disk, which becomes full at `moment`, if there is one; tell what came of it."""
    join(holder)
    assert order.disk is not None
    with pytest.MonkeyPatch.context() as patch:
        if moment:
            place = order.disk.parent
            moments.arm(patch, moment, lambda: HARMS["full"](place, pipe))
        try:
            build(spec, toolbox, order)
        except HostError as error:
            pipe.send((error.message, error.hint))
        else:
            pipe.send(None)


def _outcome(disk: SmallDisk, *work: Any) -> Any:
    ours, theirs = _FORKS.Pipe()
    with ours, theirs:
        process = _FORKS.Process(target=_build_on, args=(disk.holder.pid, *work, theirs))
        process.start()
        theirs.close()
        told = ours.recv()
        process.join()
        process.close()
    return told


@pytest.mark.parametrize(
    "moment",
    ["vmtests.image.erofswrite:write", "vmtests.image.repart:write_definitions", "vmtests.image.archive:write"],
)
def test_disk_that_fills_up_leaves_nothing_half_made(
    described: ImageSpec, toolbox: Toolbox, small: SmallDisk, moment: str
) -> None:
    """No space when the store, the partitions or the archive are to be written: one sentence, and no file."""
    order = Order(disk=small.place / "disk.raw", packed=small.place / "image.tar.gz")
    message, hint = _outcome(small, order, described, toolbox, moment)
    assert "No space left" in message
    assert "free some space" in hint
    left = {path.name for path in small.seen.iterdir()} - {"filler"}
    assert left == ({"disk.raw"} if "archive" in moment else set())
    (small.seen / "filler").unlink()
    assert _outcome(small, order, described, toolbox, "") is None
    assert {path.name for path in small.seen.iterdir()} == {"disk.raw", "image.tar.gz"}
