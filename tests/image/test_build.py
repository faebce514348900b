"""What was built is checked, compared with a second build, and packed."""

import dataclasses
import gzip
import io
import os
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

from vmtests.contract import Contract
from vmtests.errors import ImageError, InputError
from vmtests.host.tools import Toolbox
from vmtests.image import compare, deep
from vmtests.image.assemble import assemble
from vmtests.image.build import STDOUT, Order, build, check_targets
from vmtests.image.spec import ImageSpec, RootEntry, StoreSpec
from vmtests.resources import fixture
from vmtests.sizes import MIB
from vmtests.testing.images import SmallImage, program


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory, contract: Contract) -> ImageSpec:
    """A spec with a file of several blocks in each partition."""
    work = tmp_path_factory.mktemp("described")
    (work / "store/abc-thing").mkdir(parents=True)
    (work / "store/abc-thing/small").write_text("small")
    (work / "store/abc-thing/large").write_bytes(bytes(range(256)) * 256)
    (work / "etc").mkdir()
    (work / "etc/large").write_bytes(bytes(range(256)) * 256)
    (work / "loader").write_bytes(program())
    (work / "kernel").write_bytes(bytes(range(256)) * 256)
    return ImageSpec(
        version=1,
        name="thing",
        esp={contract.boot.loader: work / "loader", contract.boot.kernel: work / "kernel"},
        store=StoreSpec(directory=work / "store", paths=("/nix/store/abc-thing",)),
        root=(RootEntry(path="/etc", source=work / "etc"),),
    )


def test_nothing_that_an_image_is_made_of_is_overwritten(described: ImageSpec, tmp_path: Path) -> None:
    """Neither the spec nor a file that it names, by whatever name, and no file is added to a tree that is copied."""
    origin, base = tmp_path / "image.json", described.store.directory.parent
    (tmp_path / "link").symlink_to(base)
    (tmp_path / "elsewhere").symlink_to(base / "store/abc-thing/large")
    (base / "store/def-link").symlink_to("/nowhere/at/all")
    paths, listed = (*described.store.paths, "/nix/store/def-link"), base / "paths"
    store = dataclasses.replace(described.store, paths=paths, path_list=listed)
    described = dataclasses.replace(described, store=store)
    for free in (base / "store/disk.raw", tmp_path / "disk.raw"):
        check_targets(described, Order(disk=free, packed=STDOUT), origin)
    for target in (
        *(origin, listed, tmp_path / "link/paths", tmp_path / "link/kernel", base / "etc/disk.raw"),
        *(base / "store/abc-thing/disk.raw", base / "store/abc-thing", tmp_path / "link/store/abc-thing/a/disk.raw"),
        *(base / "store/def-link", tmp_path / "elsewhere"),
    ):
        for order in (Order(disk=target), Order(packed=target)):
            with pytest.raises(InputError, match=r"cannot be written: the image is made of"):
                check_targets(described, order, origin)


def test_an_archive_that_nobody_takes_is_refused_before_its_disk_is_built(
    described: ImageSpec, tmp_path: Path, toolbox: Toolbox
) -> None:
    """Compute Engine takes disks of whole GiB, and the contract says of what theirs are multiples."""
    data = tomllib.loads(fixture("contract.toml").read_text())
    data["disk"]["granularity"] = "1M"
    order = Order(disk=tmp_path / "disk.raw", packed=tmp_path / "archive")
    with pytest.raises(InputError, match=r"contract's disk\.granularity is 1M, no number of GiB"):
        build(dataclasses.replace(described, contract=data), toolbox, order)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def disk(
    described: ImageSpec, tmp_path_factory: pytest.TempPathFactory, contract: Contract, toolbox: Toolbox
) -> SmallImage:
    """The disk of it."""
    path = tmp_path_factory.mktemp("disk") / "disk.raw"
    assemble(described, path, toolbox)
    return SmallImage(path, contract, toolbox)


@pytest.mark.parametrize("compression", ["none", "zstd,level=3,cluster=16K"])
def test_build_is_compared_with_a_second_one(
    described: ImageSpec, tmp_path: Path, toolbox: Toolbox, capsys: pytest.CaptureFixture[str], compression: str
) -> None:
    """`--check` finds the same bytes, `--deep` no fault, and each says how long it took."""
    order = Order(disk=tmp_path / "disk.raw", twice=True, deep=True)
    build(dataclasses.replace(described, compression=compression), toolbox, order)
    assert "two builds of thing are the same bytes" in capsys.readouterr().err
    assert order.seconds.keys() == {"survey", "root", "store", "partitions", "durable", "check", "deep"}
    assert [path.name for path in tmp_path.iterdir()] == ["disk.raw"]


@pytest.mark.parametrize(
    ("number", "content", "found"),
    [
        (1, bytes(range(256)), "partition 1 `ESP`, file /EFI/nixos/kernel.efi"),
        (2, bytes(range(256)) * 16, "partition 2 `nix-store`, file /abc-thing/large"),
        (3, bytes(range(256)) * 16, "partition 3 `root`, file /etc/large"),
    ],
)
def test_first_file_that_differs_is_named(
    disk: SmallImage, tmp_path: Path, toolbox: Toolbox, number: int, content: bytes, found: str
) -> None:
    """A file with one other byte is found in each file system."""
    other = disk.copy(tmp_path / "other.raw")
    start = disk.start(number)
    other.write(start + other.read(start, 64 * MIB).index(content) + 100, b"!")
    assert compare.difference(disk.path, other.path, toolbox) == found
    assert compare.difference(disk.path, disk.path, toolbox) is None


def test_what_is_no_file_is_told_by_its_partition(disk: SmallImage, tmp_path: Path, toolbox: Toolbox) -> None:
    """A superblock and a table differ, too, and so do sizes."""
    other = disk.copy(tmp_path / "other.raw")
    other.write(disk.start(3) + 1024 + 0x78, b"label")
    assert compare.difference(disk.path, other.path, toolbox) == "partition 3 `root`, in its metadata"
    other = disk.copy(tmp_path / "table.raw")
    other.edit_entry(2, 48, b"\1")
    assert compare.difference(disk.path, other.path, toolbox) == "the partition table"
    os.truncate(other.path, disk.size + MIB)
    assert "one has 1 GiB" in str(compare.difference(disk.path, other.path, toolbox))


@pytest.mark.parametrize(
    ("number", "place", "said"),
    [
        (1, 32 * 512, "FATs differ"),
        (2, 1024 + 16, "superblock chksum doesn't match"),
        (3, 4096, "Corrupt group descriptor"),
    ],
)
def test_damage_is_found_by_the_file_systems_own_checkers(
    disk: SmallImage, tmp_path: Path, toolbox: Toolbox, number: int, place: int, said: str
) -> None:
    """`--deep` names the partition whose checker is not content, also where that exits with 0."""
    other = disk.copy(tmp_path / "other.raw")
    other.write(disk.start(number) + place, b"\xff" * 24)
    with pytest.raises(ImageError, match=f"partition {number} .* is damaged: .*{said}"):
        deep.check(other.path, toolbox)


def test_archive_goes_to_standard_output(
    described: ImageSpec, toolbox: Toolbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a file of its own the disk is scratch, and what is written holds it whole."""
    monkeypatch.setenv("VMTESTS_CACHE", str(tmp_path / "cache"))
    sink = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(sink, encoding="utf-8"))
    build(described, toolbox, Order(packed=STDOUT))
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(sink.getvalue()))) as packed:
        (member,) = packed.getmembers()
    assert (member.name, member.size % (1 << 30)) == ("disk.raw", 0)
    assert not list((tmp_path / "cache").glob("scratch-*"))
