"""Whatever happens at whichever step: nothing is left, the next run works, and the message names the cause.

`make trials` tries one step of each piece of work; with CHAOS=1 (`make chaos`) everything happens at every step.
"""

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.small_disk import small_disk
from tests.trials.chaos import cell as cell_module
from tests.trials.chaos.cell import Cell, End, send, writable_again
from tests.trials.chaos.moments import MOMENTS
from tests.trials.chaos.work import Order
from vmtests.emulator import Emulator
from vmtests.emulator.fake import FakeHypervisor
from vmtests.testing.consoles import recording

LONG = bool(os.environ.get("CHAOS"))

SIGNALS = {"KILL": signal.SIGKILL, "TERM": signal.SIGTERM, "INT": signal.SIGINT, "STOP": signal.SIGSTOP}
SAYS = {
    "full": r"No space left|\d [KM]?i?B free",
    "read-only": r"Read-only file system",
    "no descriptors": r"[Tt]oo many open files",
    "no memory": r"memory",
    # As long as bubblewrap has not begun: it is told where to go. The other is pytest's.
    "no cwd": r"chdir to .* No such file|No such file or directory: .*/cwd/",
}
"""What somebody has to read when this has happened."""
HARMLESS = {"STOP", "clock forward", "clock back", "twice"}
"""What no work may fail of."""
POLITE = {"TERM", "INT"}
LATER = {"KILL", "no descriptors", "no memory", "read-only", "full"}
"""After these there may be scratch files, until the next run."""


def _short(cases: Sequence[tuple[str, ...]], *wanted: tuple[str, ...]) -> Sequence[tuple[str, ...]]:
    return cases if LONG else [case for case in cases if case in wanted]


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with all that the work is done on."""
    directory = tmp_path_factory.mktemp("chaos")
    cell_module.ground(directory)
    return directory


@pytest.fixture(scope="session")
def whole(ground: Path) -> dict[str, dict[str, str]]:
    """What comes of each piece of work to which nothing happens."""
    return {}


@pytest.fixture
def endpoint() -> Iterator[str]:
    """A Compute Engine whose machines say what the reference image's do."""
    console = recording("reference-ready").console
    with Emulator(hypervisor=FakeHypervisor(lambda _: console)) as emulator:
        yield emulator.endpoint


@pytest.fixture
def cell(ground: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cell]:
    """A place for one case, on a disk of its own where the disk is what something happens to."""
    place = ground / tmp_path.name
    on_disk = request.node.callspec.params.get("harm") in {"full", "read-only"}
    if not on_disk:
        yield Cell(place)
        return
    with small_disk(place, "96M") as disk:
        yield Cell(place, disk=disk)


def _named(cell: Cell, end: End, harm: str, piece: str) -> None:
    """Fail unless the end of a piece of work is what has to come of this."""
    # pytest goes back to where it was started, and ends with its own traceback when that is gone.
    pytests = (piece, harm) == ("test", "no cwd")
    assert pytests or "Traceback" not in end.said, end.said
    if harm == "KILL":
        assert end.status == -signal.SIGKILL, end
    elif harm in POLITE:
        assert end.status == 2, end
        assert re.search("interrupted|KeyboardInterrupt", end.said), end.said
    elif harm in HARMLESS:
        assert end.status == 0, end
    elif end.status != 0:
        # 1 is pytest's word for a test that has failed.
        assert end.status in ({1, 2} if pytests or "test_it" in end.said else {2}), end
        assert re.search(SAYS[harm], end.said), end.said
    if harm not in LATER:
        assert not cell.half_made()


def _next_works(cell: Cell, order: Order, whole: dict[str, dict[str, str]]) -> None:
    """Fail unless the same work, to which nothing happens, is well and leaves nothing but what it is for."""
    end = cell.run(cell.order(order.work))
    assert end.status == 0, end.said
    cell.nothing_runs()
    assert not cell.half_made()
    assert cell.made() == whole.setdefault(order.work, cell.made())


def _whole_or_not_there(cell: Cell, order: Order, whole: dict[str, dict[str, str]]) -> None:
    known = whole.get(order.work)
    for name, found in cell.made().items() if known else ():
        assert known is not None
        assert found == known[name], f"{name} is half made"


def _beside(cell: Cell, order: Order) -> End:
    """Do the same with the same cache, and a place of its own for what is said and for what comes of it."""
    other = Cell(cell.place.with_name(f"{cell.place.name}-beside"), cell.endpoint, mark=cell.mark)
    (other.place / "cache").rmdir()
    (other.place / "cache").symlink_to(cell.place / "cache")
    return other.run(other.order(order.work))


_WRITING = ("_Writer.finish", "_partition", "write_definitions", "Toolbox.run", "archive:write", "archive:_content")
"""Where a build has a file open that it writes: no kernel makes a file system read-only then (mount(2), EBUSY)."""
_OURS = [
    (piece, moment, harm)
    for piece, moments in MOMENTS.items()
    for moment in moments
    for harm in (*SIGNALS, *SAYS, "clock forward", "clock back", "twice")
    # All the others have locks or logs open, all the time.
    if harm != "read-only" or (piece == "build" and not moment.endswith(_WRITING))
]


@pytest.mark.parametrize(
    ("piece", "moment", "harm"),
    _short(
        _OURS,
        ("build", "vmtests.image.erofswrite:_Writer.finish", "KILL"),
        ("boot", "vmtests.qemu.vm:QemuVm.wait_verdict", "TERM"),
        ("rewind", "vmtests.machine.drives:keep", "KILL"),
        ("upload", "vmtests.gce.lab:insert", "INT"),
    ),
)
def test_work_that_comes_to_harm_leaves_nothing(
    ground: Path,
    cell: Cell,
    whole: dict[str, dict[str, str]],
    piece: str,
    moment: str,
    harm: str,
    request: pytest.FixtureRequest,
) -> None:
    """It ends as it should, tells why, leaves nothing; the next run is well."""
    if piece == "upload":
        cell.endpoint = request.getfixturevalue("endpoint")
    order = cell.order({"resume": "rewind"}.get(piece, piece), moment=moment, harm=harm)
    if order.work not in whole or piece == "resume":
        _next_works(cell if piece == "resume" else Cell(ground / f"whole-{order.work}", cell.endpoint), order, whole)
    others: list[End] = []
    # It has a place of its own for what it says and its results, and the same cache.
    other = threading.Thread(target=lambda: others.append(_beside(cell, order)))
    acts: dict[str, Callable[[int], None]] = {name: send(number) for name, number in SIGNALS.items()}
    end = cell.run(order, acts.get(harm, lambda _: other.start()))
    if harm == "twice":
        other.join()
        assert [0] == [one.status for one in others], others
    assert order.came.exists(), f"{moment} is no step of this work"
    cell.nothing_runs()
    if cell.disk is not None:
        writable_again(cell.disk)
    _named(cell, end, harm, piece)
    _whole_or_not_there(cell, order, whole)
    if piece == "upload":
        assert cell.run(cell.order("collect")).status == 0
    _next_works(cell, order, whole)


@pytest.mark.parametrize("piece", MOMENTS)
def test_moments_are_steps_of_the_work(cell: Cell, piece: str, request: pytest.FixtureRequest) -> None:
    """Each moment comes where nothing happens: else what happens at it never does."""
    if piece == "upload":
        cell.endpoint = request.getfixturevalue("endpoint")
    work = {"resume": "rewind"}.get(piece, piece)
    if piece == "resume":
        assert cell.run(cell.order(work)).status == 0, cell.said
    order = cell.order(work, watched=MOMENTS[piece])
    assert cell.run(order).status == 0, cell.said
    assert set(order.came.read_text(encoding="utf-8").splitlines()) == set(MOMENTS[piece])
