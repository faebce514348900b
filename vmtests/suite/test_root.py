"""The root partition is the contract's, mounted as it says, and the partition that is to grow does at first boot."""

import shlex
from dataclasses import dataclass

import pytest

from vmtests.contract import Contract, Partition
from vmtests.guest import devices, promises
from vmtests.guest.facts import Mount
from vmtests.image import ext4, filesystem, gpt, layout
from vmtests.image.check import Status, Word
from vmtests.image.filesystem import CONTAINERS
from vmtests.image.promised import matching
from vmtests.sizes import MIB
from vmtests.vm import Vm

_SECTOR = 512  # /sys/class/block/*/size counts these, whatever the disk's own are (block/partitions/core.c)
_HIDING = CONTAINERS - {"crypto_LUKS"}
"""What may hold several file systems, of which none has to fill it."""

_NEVER_WRITTEN = frozenset({"cramfs", "erofs", "iso9660", "romfs", "squashfs"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """The partition that is to grow, on a disk larger than the image: places and sizes in bytes, `built` in the image.

    `name` and `disk` are its name and its disk's below /dev, `holds` what is on the partition, as blkid names it.
    """

    partition: Partition
    name: str
    disk: str
    disk_size: int
    end: int
    size: int
    built: int
    holds: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestDisk:
    """The guest's disk as the guest reads it: a `Readable`."""

    vm: Vm
    name: str
    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`, fewer where the end comes first."""
        first, behind = offset // _SECTOR, -(-(offset + length) // _SECTOR)
        command = f"dd if=/dev/{self.name} bs={_SECTOR} skip={first} count={behind - first} 2>/dev/null"
        return self.vm.run(command).check().stdout_bytes[offset % _SECTOR :][:length]


@pytest.fixture
def grown(vm: Vm, vm_contract: Contract) -> Grown:
    """The partition that is to grow."""
    return find_grown(vm, vm_contract)


def find_grown(vm: Vm, contract: Contract) -> Grown:
    """Ask the guest for the partition that is to grow."""
    partition = next(item for item in contract.partition if item.grow)
    name = devices.find(partition, vm).kname
    told = (
        vm.run(f'cd /sys/class/block/{name} && cat start size ../size && basename "$(readlink -f ..)"').check().lines
    )
    start, size, disk = (int(line) * _SECTOR for line in told[:3])
    # A machine has a GiB more than the image, unless somebody ordered another disk.
    assert disk > vm.image.inspection.size, "the disk is no larger than the image: there is nothing to grow into"
    found = matching(partition, vm.image.inspection.volumes)
    assert found, f"the image has no partition {partition.shown}"
    built = found[-1]
    return Grown(
        partition=partition,
        name=name,
        disk=told[3],
        disk_size=disk,
        end=start + size,
        size=size,
        built=built.content.size,
        holds="" if built.system is None else built.system.type,
    )


@pytest.mark.vm(promises="root")
def test_root_is_the_contracts_partition(vm: Vm, vm_contract: Contract) -> None:
    """The root file system is of the contract's partition, and can be written to unless that is read-only."""
    root, mount = vm_contract.root, vm.mounts.top("/")
    assert list(promises.source(root, mount, vm)) == []
    # Where dm-crypt, verity or LVM are between them the partition holds something else.
    if root.filesystem and devices.is_of(root, devices.under(mount, vm)[0]):
        assert root.filesystem == mount.fstype
    told = any(item.where == "/" and "ro" in item.options for item in vm_contract.mount)
    read_only = root.read_only or bool(root.verity) or told or mount.fstype in _NEVER_WRITTEN
    assert mount.read_only is read_only


@pytest.mark.vm(promises="grow")
def test_partition_reaches_the_end_of_the_disk(grown: Grown) -> None:
    """On a disk that is larger than the image the partition that is to grow did, to the last MiB."""
    assert grown.size > grown.built
    assert 0 <= grown.disk_size - grown.end <= MIB


@pytest.mark.vm(promises="grow")
def test_file_system_fills_the_partition(vm: Vm, grown: Grown) -> None:
    """The file system grew with its partition: it is larger than that was in the image."""
    if grown.holds in _HIDING:
        pytest.skip(f"it holds {grown.holds}, which may be many file systems: no contract says which of them fills it")
    # One of each device, of the root file system first.
    there = {mount.device: mount for mount in vm.mounts if mount.source.startswith("/dev/")}
    mounts = sorted(there.values(), key=lambda mount: mount.target != "/")
    mount = next((mount for mount in mounts if not list(promises.source(grown.partition, mount, vm))), None)
    size = _size_at_rest(vm, grown) if mount is None else _size(vm, mount)
    assert size is not None, f"nothing is mounted of it, and the size of what it holds is not read: {grown.holds}"
    assert size > grown.built
    assert size > grown.size * 0.9


def _size_at_rest(vm: Vm, grown: Grown) -> int | None:
    """Return the size of a file system that is not mounted."""
    found = filesystem.probe(GuestDisk(vm=vm, name=grown.name, size=grown.size))
    return None if found is None else found.size


def _size(vm: Vm, mount: Mount) -> int:
    """Return the size of a mounted file system; ext leaves its tables out of what statfs(2) says."""
    if mount.fstype.startswith("ext"):
        disk = GuestDisk(vm=vm, name=devices.under(mount, vm)[0].kname, size=0)
        found = ext4.parse(disk.read(ext4.OFFSET, ext4.SIZE))
        assert found is not None
        return found.size
    blocks, size = vm.run(f"stat -f -c '%b %S' {shlex.quote(mount.target)}").check().stdout.split()
    return int(blocks) * int(size)


@pytest.mark.vm(promises="grow")
def test_backup_table_is_at_the_end(vm: Vm, grown: Grown) -> None:
    """The backup GPT was moved to the end of the larger disk, and nothing is wrong with either copy."""
    disk = GuestDisk(vm=vm, name=grown.disk, size=grown.disk_size)
    if layout.by_mbr(disk):
        pytest.skip("its partitions are those of an MBR, of which no disk has a backup")
    size = gpt.sector_size(disk)
    assert size is not None, "the disk has no GPT any more"
    checks = [check for check in gpt.read(disk, size).checks if check.subject != Word.PROTECTIVE_MBR]
    assert [] == [check.sentence for check in checks if check.status is not Status.OK]


@pytest.mark.vm(promises="store")
def test_every_partition_is_found_by_its_label(vm: Vm, vm_contract: Contract) -> None:
    """udev links every partition of the contract by its partlabel, numbered in the contract's order."""
    links = [vm.run(f"readlink -f {partition.device}").check().stdout.strip() for partition in vm_contract.partition]
    assert [f"{index}" for index in range(1, len(links) + 1)] == [link[-1] for link in links]
