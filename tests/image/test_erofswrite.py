"""An uncompressed store is planned before a byte of it is written, and has all that was given and nothing else."""

import fcntl
import os
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest

from tests.image.conftest import listed
from vmtests import progress
from vmtests.errors import HostError, InputError
from vmtests.host.sandbox import run_in
from vmtests.host.tools import Toolbox
from vmtests.image import erofsplan, erofswrite
from vmtests.image.erofsplan import BLOCK, Node, Plan, directory_content, directory_size
from vmtests.image.survey import survey
from vmtests.sizes import MIB

_ID = "00000000-0000-4000-8000-000000000001"


def _plan(directory: Path) -> Plan:
    named = [(f"store path {path.name}", path.name) for path in directory.iterdir()]
    return erofsplan.plan(os.fspath(directory), named, [b".links"])


def _write(directory: Path, file: Path, offset: int = 0) -> Plan:
    plan = _plan(directory)
    with file.open("wb") as opened:
        opened.truncate(offset + plan.size)
    with progress.step("test") as running:
        erofswrite.write(file, plan, directory, "store", _ID, offset, running)
    return plan


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with each kind of path, and with sizes on both sides of each limit."""
    directory = tmp_path / "store"
    for number in range(40):
        path = directory / f"{number:032}-thing"
        (path / "+plus").mkdir(parents=True)
        (path / "file").write_bytes(os.urandom(number * 997))
        os.link(path / "file", path / "linked")
        (path / "to").symlink_to(f"../{number:032}-thing/file")
    sizes = directory / "sizes"
    sizes.mkdir()
    for size in (0, 1, 4063, 4064, 4065, 4095, 4096, 4097, 8160, 8161, MIB - 1, MIB, MIB + 4065, 3 * MIB + 5):
        (sizes / f"{size}").write_bytes(os.urandom(size))
    (sizes / "0").chmod(0o4555)
    for length in (4031, 4032, 4064, 4065, 4095):
        (sizes / f"long{length}").symlink_to("n" * length)
    (sizes / ("n" * 255)).mkdir()
    many = directory / "many"
    many.mkdir()
    for number in range(700):
        (many / f"{'!-_+'[number % 4]}{'x' * (number % 90)}{number}").write_text(str(number))
    (directory / "alone").write_text("a store path that is a file")
    (directory / "b\udcff\n").mkdir()
    return directory


def test_what_was_given_is_in_it(store: Path, tmp_path: Path, toolbox: Toolbox) -> None:
    """What fsck.erofs, which checks all of it, reads back is what was given, and the empty .links."""
    plan = _write(store, tmp_path / "erofs")
    run_in(toolbox.root("fsck.erofs"), ["fsck.erofs", f"--extract={tmp_path / 'out'}", str(tmp_path / "erofs")])
    found = listed(tmp_path / "out")
    assert found.pop(".links") == (0o40755, None)
    assert found == listed(store)
    assert len(found) + 2 == plan.inodes


def test_bytes_follow_from_the_content_alone(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the place, the number of threads, nor the page cache changes a byte."""
    size = _write(store, tmp_path / "one").size
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(5)))
    monkeypatch.setattr(os, "O_DIRECT", 0)
    _write(store, tmp_path / "two", offset=MIB)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()[MIB:]
    assert (tmp_path / "one").stat().st_size == size


def test_a_file_system_that_refuses_to_go_past_the_cache_is_written_through_it(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some take O_DIRECT when a file is opened, and refuse the write."""
    _write(store, tmp_path / "one")
    real, flagged = os.pwrite, os.O_DIRECT

    def pwrite(descriptor: int, data: bytes, place: int) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & flagged:
            raise OSError(22, "Invalid argument")
        return real(descriptor, data, place)

    monkeypatch.setattr(os, "pwrite", pwrite)
    _write(store, tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_directory_has_the_size_that_was_planned() -> None:
    """A block of a directory ends where the next name does not fit, and the planned size knows that."""
    for count in (0, 1, 200, 3000):
        names = [b"%0*d" % (1 + number % 200, number) for number in range(count)]
        node = Node(b"", 0o40755, 0, children=[Node(name, 0o100644, 0) for name in dict.fromkeys(names)])
        assert node.children is not None
        assert len(directory_content(node, node)) == directory_size([child.name for child in node.children])


def test_more_directories_than_a_short_inode_counts() -> None:
    """A root of 70,000 store paths has a long inode, whose end still is in one block with it."""
    root = Node(b"", 0o40755, 0, children=[Node(b"%d" % number, 0o40755, 0, children=[]) for number in range(70_000)])
    root.size = directory_size([child.name for child in root.children or ()])
    plan = Plan(root)
    plan.put(root)
    head, _, rest = root.split()
    assert head == 64
    assert root.place % BLOCK + head + rest <= BLOCK
    assert len(plan.inode(root)) == head


def _another(path: Path, make: Callable[[Path], None]) -> None:
    path.unlink()
    make(path)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (f"{MIB}", lambda path: os.truncate(path, 5)),
        ("4095", lambda path: os.truncate(path, 5000)),
        (f"{3 * MIB + 5}", lambda path: os.truncate(path, 4 * MIB)),
        ("1", lambda path: path.unlink()),
        ("1", lambda path: _another(path, os.mkfifo)),
        ("1", lambda path: _another(path, Path.mkdir)),
        ("1", lambda path: _another(path, lambda made: made.symlink_to("x"))),
        ("long4095", lambda path: _another(path, lambda made: made.symlink_to("x"))),
        ("long4095", lambda path: _another(path, Path.touch)),
    ],
)
def test_what_is_another_than_was_planned_ends_it(
    name: str, change: Callable[[Path], None], store: Path, tmp_path: Path
) -> None:
    """What was planned cannot be kept, half of a file is none, and it says which file."""
    plan = _plan(store)
    change(store / "sizes" / name)
    (tmp_path / "erofs").write_bytes(b"")
    with progress.step("test") as running, pytest.raises(HostError, match=f"sizes/{name} changed while it was read"):
        erofswrite.write(tmp_path / "erofs", plan, store, "store", _ID, 0, running)


def test_what_fails_meanwhile_ends_it_at_once(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No store is written to its end for an image whose other partitions cannot be made."""
    monkeypatch.setattr(erofswrite._Writer, "work", lambda writer: writer.ended.wait())
    meanwhile: Future[None] = Future()
    meanwhile.set_exception(HostError("no other partition"))
    (tmp_path / "erofs").write_bytes(b"")
    with progress.step("test") as running, pytest.raises(HostError, match="no other partition"):
        erofswrite.write(tmp_path / "erofs", _plan(store), store, "store", _ID, 0, running, meanwhile)


def test_a_path_may_be_as_long_as_linux_takes_it_in_the_image(tmp_path: Path, toolbox: Toolbox) -> None:
    """Where the store is now its name may be longer than PATH_MAX (limits.h), 4096 bytes."""
    (tmp_path / "store/a").mkdir(parents=True)
    place = os.open(tmp_path / "store/a", os.O_RDONLY)
    for _ in range(16):
        os.mkdir("d" * 250, dir_fd=place)
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = below
    os.close(os.open("f" * 60, os.O_WRONLY | os.O_CREAT, dir_fd=place))
    os.close(place)
    plan = _write(tmp_path / "store", tmp_path / "erofs")
    run_in(toolbox.root("fsck.erofs"), ["fsck.erofs", str(tmp_path / "erofs")])
    assert plan.inodes == 1 + 1 + 1 + 16 + 1
    assert survey([("a", tmp_path / "store/a")]).inodes == 18


def test_what_an_image_cannot_hold_is_refused_with_its_place(store: Path) -> None:
    """A FIFO, socket or device, however deep."""
    os.mkfifo(store / f"{3:032}-thing/+plus/pipe")
    with pytest.raises(InputError, match=rf"store path {3:032}-thing: .*/pipe is a FIFO"):
        _plan(store)
