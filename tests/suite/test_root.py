"""The suite's tests of root and growth: what is sound passes whoever has made it, and nothing else does."""

import struct
from pathlib import Path
from typing import Any

import pytest

from tests.suite.conftest import ROOT, Foreign
from vmtests import contract as contracts
from vmtests.contract import Contract
from vmtests.host.tools import Toolbox
from vmtests.sizes import GIB, MIB
from vmtests.suite import test_root as suite

SDA1 = {"name": "sda1", "kname": "sda1", "number": "8:1", "partlabel": "root", "parttype": ROOT}


def _contract(mount: dict[str, Any] | None = None, **root: Any) -> Contract:
    partition = {"name": "root", "type": "root-x86-64", **root}
    return contracts.from_data({"partition": [partition], "mount": [mount] if mount else []}, "here")


def _superblock(size: int) -> bytes:
    """Return an ext4's first bytes, as far as its size is told."""
    head = bytearray(2048)
    struct.pack_into("<I", head, 1024 + 0x04, size >> 12)
    struct.pack_into("<I", head, 1024 + 0x18, 2)
    struct.pack_into("<H", head, 1024 + 0x38, 0xEF53)
    return bytes(head)


def _grow(guest: Foreign, to: int = 16 * GIB) -> None:
    guest.devices = [dict(SDA1)]
    guest.partition("sda1", MIB, to - 2 * MIB, to)


@pytest.mark.parametrize(
    ("options", "fstype", "root", "mount"),
    [
        ("rw", "ext4", {"filesystem": "ext4"}, None),
        ("rw", "ext4", {"label": "ro*"}, None),
        ("ro", "ext4", {"read_only": True}, None),
        ("ro", "ext4", {}, {"where": "/", "options": ["ro"]}),
        ("ro", "erofs", {}, None),
    ],
    ids=["label", "wildcard", "read-only", "mounted read-only", "never written"],
)
def test_root_that_is_as_promised_passes(
    foreign: Foreign, options: str, fstype: str, root: dict[str, Any], mount: dict[str, Any] | None
) -> None:
    """By label or by type, to be written to or not: it is the contract that says so."""
    foreign.devices = [SDA1]
    foreign.mountinfo = [f"22 1 8:1 / / {options},relatime - {fstype} /dev/root {options}"]
    suite.test_root_is_the_contracts_partition(foreign, _contract(mount, **root))


@pytest.mark.parametrize(
    ("options", "root"),
    [("rw", {"read_only": True}), ("ro", {}), ("rw", {"label": "other"}), ("rw", {"filesystem": "xfs"})],
    ids=["written to", "went read-only", "another partition", "another file system"],
)
def test_root_that_is_otherwise_fails(foreign: Foreign, options: str, root: dict[str, Any]) -> None:
    """A file system that the kernel has made read-only is so whatever its mount says."""
    foreign.devices = [SDA1]
    foreign.mountinfo = [f"22 1 8:1 / / rw,relatime - ext4 /dev/sda1 {options}"]
    with pytest.raises(AssertionError):
        suite.test_root_is_the_contracts_partition(foreign, _contract(**root))


@pytest.mark.parametrize("parttype", [ROOT, "0x83"], ids=["GPT", "MBR"])
def test_root_on_btrfs_is_found_by_its_source(foreign: Foreign, parttype: str) -> None:
    """A subvolume has a device number of its own; on an MBR a partition has a type of one byte."""
    foreign.devices = [{**SDA1, "partlabel": None, "parttype": parttype}]
    foreign.mountinfo = ["22 1 0:31 /root / rw,relatime - btrfs /dev/sda1 rw,subvol=/root"]
    kind = "linux-generic" if parttype == "0x83" else "root-x86-64"
    suite.test_root_is_the_contracts_partition(foreign, _contract(type=kind, filesystem="btrfs"))


@pytest.mark.parametrize(("size", "passes"), [(15 * GIB, False), (16 * GIB - 2 * MIB, True)])
@pytest.mark.parametrize("fstype", ["ext4", "xfs"])
def test_file_system_has_to_be_larger_than_its_partition_was(
    foreign: Foreign, fstype: str, size: int, passes: bool
) -> None:
    """On a disk of 16 GiB one that has not grown has nine tenths of its partition, too."""
    _grow(foreign)
    foreign.mountinfo = [f"22 1 8:1 / / rw - {fstype} /dev/sda1 rw"]
    foreign.write("/dev/sda1", _superblock(size))
    foreign.said["stat -f"] = f"{size >> 12} 4096\n"
    grown = suite.find_grown(foreign, _contract(grow=True))
    if passes:
        suite.test_file_system_fills_the_partition(foreign, grown)
    else:
        with pytest.raises(AssertionError):
            suite.test_file_system_fills_the_partition(foreign, grown)


def test_partition_that_grows_need_not_be_root(foreign: Foreign) -> None:
    """It is the contract that says which one grows, and where it is mounted is the guest's affair."""
    _grow(foreign)
    foreign.devices.append({"name": "sda9", "kname": "sda9", "number": "8:9", "partlabel": "root-a"})
    foreign.mountinfo = ["22 1 8:9 / / ro - ext4 /dev/sda9 ro", "23 22 8:1 / /srv rw - ext4 /dev/sda1 rw"]
    foreign.write("/dev/sda1", _superblock(16 * GIB - 2 * MIB))
    contract = contracts.from_data({"partition": [{"name": "data", "label": "root", "grow": True}]}, "here")
    grown = suite.find_grown(foreign, contract)
    suite.test_partition_reaches_the_end_of_the_disk(grown)
    suite.test_file_system_fills_the_partition(foreign, grown)


@pytest.mark.parametrize(("size", "passes"), [(15 * GIB, False), (16 * GIB - 2 * MIB, True)])
def test_file_system_that_is_not_mounted_is_looked_at(foreign: Foreign, size: int, passes: bool) -> None:
    """It is to have grown all the same."""
    _grow(foreign)
    foreign.mountinfo = ["22 1 8:9 / / rw - ext4 /dev/sda9 rw"]
    foreign.devices.append({"name": "sda9", "kname": "sda9", "number": "8:9", "partlabel": "other"})
    foreign.write("/dev/sda1", _superblock(size))
    grown = suite.find_grown(foreign, _contract(label="root", grow=True))
    if passes:
        suite.test_file_system_fills_the_partition(foreign, grown)
    else:
        with pytest.raises(AssertionError):
            suite.test_file_system_fills_the_partition(foreign, grown)


def test_disk_without_room_fails(foreign: Foreign) -> None:
    """On a disk as large as the image nothing can grow; every machine has a larger one, unless somebody orders it."""
    _grow(foreign, 15 * GIB)
    with pytest.raises(AssertionError, match="nothing to grow into"):
        suite.find_grown(foreign, _contract(grow=True))


@pytest.mark.parametrize(
    ("kind", "outcome"), [(0, AssertionError), (0xEE, AssertionError), (0x83, pytest.skip.Exception)]
)
def test_disk_that_lost_its_table_fails(tmp_path: Path, kind: int, outcome: type[BaseException]) -> None:
    """A GPT that is gone, its protective MBR too or not, leaves no test out; a disk with an MBR has none to lose."""
    guest = Foreign(tmp_path, built=8 * MIB, size=16 * MIB)
    entry = struct.pack("<4xB3xII", kind, 2048, 16384) if kind else b""
    guest.write("/dev/sda", bytes(446) + entry.ljust(64, b"\0") + b"\x55\xaa" + bytes(16 * MIB))
    guest.devices = [dict(SDA1)]
    guest.partition("sda1", MIB, 30 * MIB, 32 * MIB)
    grown = suite.find_grown(guest, _contract(grow=True))
    with pytest.raises(outcome):
        suite.test_backup_table_is_at_the_end(guest, grown)


@pytest.mark.parametrize("moved", [False, True])
def test_backup_table_has_to_be_moved(tmp_path: Path, toolbox: Toolbox, moved: bool) -> None:
    """The guest's disk is read as it is: no tool of the guest's is needed."""
    guest = Foreign(tmp_path, built=8 * MIB, size=16 * MIB)
    guest.write("/dev/sda", bytes(16 * MIB))
    disk = guest.root / "dev/sda"
    toolbox.run("sfdisk", "--quiet", disk, stdin=f"label: gpt\nstart=2048, size=16384, type={ROOT}, name=root\n")
    with disk.open("r+b") as file:
        file.truncate(32 * MIB)
    if moved:
        toolbox.run("sfdisk", "--quiet", "--relocate", "gpt-bak-std", disk)
    guest.devices = [dict(SDA1)]
    guest.partition("sda1", MIB, 30 * MIB, 32 * MIB)
    grown = suite.find_grown(guest, _contract(grow=True))
    if moved:
        suite.test_backup_table_is_at_the_end(guest, grown)
    else:
        with pytest.raises(AssertionError, match="the disk ends with"):
            suite.test_backup_table_is_at_the_end(guest, grown)
