"""A disk is made of its spec and of nothing else."""

import dataclasses
import hashlib
import os
import sqlite3
import tomllib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from vmtests.contract import Contract
from vmtests.errors import InputError
from vmtests.host.sandbox import run_in
from vmtests.host.tools import Toolbox
from vmtests.image import erofs
from vmtests.image.assemble import assemble
from vmtests.image.build import Order, build
from vmtests.image.inspect import inspect
from vmtests.image.spec import ImageSpec, StoreSpec
from vmtests.image.store import NixStore
from vmtests.resources import fixture
from vmtests.sizes import GIB, MIB, round_up
from vmtests.testing.images import SmallImage, program

STORE, ROOT = 2, 3


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory, contract: Contract, toolbox: Toolbox) -> ImageSpec:
    """A spec with one path of a real Nix store, registered in a directory of its own."""
    work = tmp_path_factory.mktemp("registered")
    (work / "thing").mkdir()
    (work / "thing/init").write_text("#!/bin/sh\n")
    (work / "loader").write_bytes(program())
    store = NixStore(root=work / "nix", toolbox=toolbox)
    path = store.add(work / "thing")
    (work / "registration").write_text(store.registration([path], {}))
    return ImageSpec(
        version=1,
        name="test",
        esp={contract.boot.loader: work / "loader"},
        store=StoreSpec(directory=store.directory, paths=(path,)),
        registration=work / "registration",
        state="/nix/.ro-state",
    )


@pytest.fixture(scope="module")
def disk(
    registered: ImageSpec, tmp_path_factory: pytest.TempPathFactory, contract: Contract, toolbox: Toolbox
) -> SmallImage:
    """The disk of that spec."""
    path = tmp_path_factory.mktemp("disk") / "disk.raw"
    assemble(registered, path, toolbox)
    return SmallImage(path, contract, toolbox)


def _blocks(path: Path) -> dict[int, bytes]:
    """Return digests of the blocks that are not zero, by their place; holes are not read."""
    found: dict[int, bytes] = {}
    with path.open("rb") as file:
        size, place = os.fstat(file.fileno()).st_size, 0
        while place < size:
            try:
                place = os.lseek(file.fileno(), place, os.SEEK_DATA)
            except OSError:  # ENXIO: a hole up to the end
                break
            place -= place % MIB
            block = os.pread(file.fileno(), MIB, place)
            if block.strip(b"\0"):
                found[place] = hashlib.sha256(block).digest()
            place += MIB
    return found


def _in_root(disk: SmallImage, command: str) -> str:
    """Run a command of debugfs(8) on the root partition."""
    place = f"{disk.path}?offset={disk.start(ROOT)}"
    return run_in(disk.toolbox.root("mkfs.ext4"), ["debugfs", "-R", command, place])


def test_a_relative_name_is_as_good_as_a_whole_one(
    disk: SmallImage, registered: ImageSpec, tmp_path: Path, toolbox: Toolbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`vmtests build --out disk.raw` writes to the current directory."""
    monkeypatch.chdir(tmp_path)
    build(registered, toolbox, Order(disk=Path("disk.raw")))
    assert _blocks(disk.path) == _blocks(tmp_path / "disk.raw")
    # systemd-repart leaves out what has `..` in its path, without a word: root was empty.
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    build(registered, toolbox, Order(disk=Path("../other.raw")))
    assert _blocks(disk.path) == _blocks(tmp_path / "other.raw")


def test_equal_specs_give_equal_disks(
    disk: SmallImage, registered: ImageSpec, tmp_path: Path, toolbox: Toolbox
) -> None:
    """A spec that is built again gives the same bytes, the Nix database and directory hashes too, whatever modes new
    files have for whoever builds it.
    """
    before = os.umask(0o077)
    try:
        assemble(registered, tmp_path / "disk.raw", toolbox)
    finally:
        os.umask(before)
    assert _blocks(disk.path) == _blocks(tmp_path / "disk.raw")


def test_partition_of_a_compressed_store_ends_with_its_file_system(
    registered: ImageSpec, tmp_path: Path, contract: Contract, toolbox: Toolbox
) -> None:
    """What a disk has to spare is root's: the partition of a compressed store is as large as its file system."""
    assemble(dataclasses.replace(registered, compression="lz4"), tmp_path / "disk.raw", toolbox)
    small = SmallImage(tmp_path / "disk.raw", contract, toolbox)
    with small.path.open("rb") as file:
        superblock = erofs.parse(os.pread(file.fileno(), MIB, small.start(STORE) + erofs.OFFSET))
    assert superblock is not None
    assert small.start(ROOT) - small.start(STORE) == round_up(superblock.size, MIB)


@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_a_disk_has_the_size_of_its_contract(
    registered: ImageSpec, tmp_path: Path, toolbox: Toolbox, compression: str
) -> None:
    """What its partitions leave of it is root's; where they do not fit nothing is built."""
    contract = tomllib.loads(fixture("contract.toml").read_text())
    contract["disk"]["size"] = "3G"
    spec = dataclasses.replace(registered, compression=compression, contract=contract)
    assemble(spec, tmp_path / "disk.raw", toolbox)
    assert (tmp_path / "disk.raw").stat().st_size == 3 * GIB
    contract["disk"]["size"] = "1G"
    contract["partition"][-1]["size"] = "895M"
    with pytest.raises(InputError, match="needs a disk of 2 GiB, and its contract's is 1G"):
        assemble(spec, tmp_path / "other.raw", toolbox)
    assert [path.name for path in tmp_path.iterdir()] == ["disk.raw"]


def _label(contract: dict[str, Any], label: str) -> None:
    contract["partition"][1]["label"] = f"store{label}"
    contract["partition"][2]["label"] = f"root{label}"


def _large_sectors(contract: dict[str, Any]) -> None:
    contract["disk"]["sector_size"] = 4096
    contract["partition"][0]["size"] = "260M"


_DATA = {"label": "data", "type": "linux-generic", "filesystem": "ext4", "size": "1G"}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda contract: contract["partition"].insert(2, _DATA), id="more behind the store"),
        pytest.param(lambda contract: contract["partition"].insert(1, _DATA), id="more of its type before it"),
        pytest.param(
            lambda contract: contract["partition"].insert(0, contract["partition"].pop(1)), id="the store first"
        ),
        pytest.param(lambda contract: contract["partition"][1].update(size="20M"), id="room in the store"),
        pytest.param(_large_sectors, id="sectors of 4096 bytes"),
        pytest.param(lambda contract: _label(contract, '%n"'), id="labels that tools read otherwise"),
        pytest.param(lambda contract: _label(contract, "\\x41"), id="labels with an escape"),
        pytest.param(lambda contract: contract["partition"][0].update(size="100000000"), id="half a block"),
    ],
)
def test_a_disk_keeps_its_contract(
    registered: ImageSpec, tmp_path: Path, toolbox: Toolbox, change: Callable[[dict[str, Any]], None]
) -> None:
    """Whatever partitions it asks for, the disk has them in order, the store where the table says, and its size."""
    contract = tomllib.loads(fixture("contract.toml").read_text())
    change(contract)
    spec = dataclasses.replace(registered, contract=contract)
    assemble(spec, tmp_path / "disk.raw", toolbox)
    found = inspect(tmp_path / "disk.raw", spec.image_contract(), toolbox).breaches
    # It has a boot loader, and nothing that this could start.
    assert [
        check.sentence for check in found if check.subject in {"disk", "GPT"} or "partition" in check.sentence
    ] == []


def test_database_is_in_the_state_directory(disk: SmallImage, registered: ImageSpec, tmp_path: Path) -> None:
    """The registration becomes the database of the directory that the spec names, and of no other."""
    _in_root(disk, f"dump /nix/.ro-state/db/db.sqlite {tmp_path / 'db.sqlite'}")
    with closing(sqlite3.connect(tmp_path / "db.sqlite")) as database:
        assert list(registered.store.paths) == [path for (path,) in database.execute("SELECT path FROM ValidPaths")]
    assert "/nix/.ro-state/profiles" in _in_root(disk, "stat /nix/.ro-state/gcroots/profiles")
    assert "var" not in _in_root(disk, "ls /nix")


def test_store_has_a_directory_for_links(disk: SmallImage, registered: ImageSpec) -> None:
    """Beside its paths the lower store has the empty directory that Nix's local overlay store wants, and no more."""
    offset = f"--offset={disk.start(STORE)}"
    listed = run_in(disk.toolbox.root("mkfs.erofs"), ["dump.erofs", offset, "--ls", "--path=/", str(disk.path)])
    names = {line.split()[-1] for line in listed.splitlines() if len(line.split()) == 3 and line.split()[0].isdigit()}
    assert {".links", registered.store.paths[0].rsplit("/", 1)[1]} == names - {".", ".."}
