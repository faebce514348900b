"""The root partition is the contract's, writable, and grows to the disk at first boot."""

import pytest

from vmtests.contract import Contract
from vmtests.sizes import MIB
from vmtests.vm import Vm

_SECTOR = 512  # /sys/class/block/*/size counts these, whatever the disk's own are (block/partitions/core.c)


@pytest.mark.vm(promises="root")
def test_root_is_the_contracts_partition(vm: Vm, vm_contract: Contract) -> None:
    """The root file system is the contract's, on the partition that its partlabel names, mounted read-write."""
    mount = vm.mounts.top("/")
    device = vm.run(f"readlink -f {vm_contract.root.device}").check().stdout.strip()
    assert (device, vm_contract.root.filesystem) == (mount.source, mount.fstype)
    assert "rw" in mount.options


@pytest.mark.vm(promises="grow")
def test_partition_reaches_the_end_of_the_disk(vm: Vm, vm_contract: Contract) -> None:
    """On a disk that is larger than the image the root partition grew to its last MiB."""
    name = vm.run(f"basename $(readlink -f {vm_contract.root.device})").check().stdout.strip()
    sizes = vm.run(f"cd /sys/class/block/{name}; cat start size ../size").check().lines
    start, size, disk = (int(line) * _SECTOR for line in sizes)
    assert disk > vm.image.inspection.size
    assert 0 <= disk - (start + size) <= MIB


@pytest.mark.vm(promises="grow")
def test_file_system_fills_the_partition(vm: Vm, vm_contract: Contract) -> None:
    """The file system grew with its partition."""
    name = vm.run(f"basename $(readlink -f {vm_contract.root.device})").check().stdout.strip()
    partition = int(vm.run(f"cat /sys/class/block/{name}/size").check().stdout) * _SECTOR
    blocks = vm.run("findmnt --noheadings --bytes --output SIZE /").check().stdout
    assert int(blocks) > partition * 0.9


@pytest.mark.vm(promises="grow")
def test_backup_table_is_at_the_end(vm: Vm) -> None:
    """The backup GPT was moved to the end of the larger disk: the kernel and sfdisk find nothing wrong."""
    disk = vm.run("echo /dev/$(lsblk --noheadings --output PKNAME $(findmnt --noheadings --output SOURCE /))").check()
    result = vm.run(f"sfdisk --verify {disk.stdout.strip()}").check()
    assert "No errors detected" in result.stdout


@pytest.mark.vm(promises="store")
def test_every_partition_is_found_by_its_label(vm: Vm, vm_contract: Contract) -> None:
    """udev links every partition of the contract by its partlabel, numbered in the contract's order."""
    links = [vm.run(f"readlink -f {partition.device}").check().stdout.strip() for partition in vm_contract.partition]
    assert [f"{index}" for index in range(1, len(links) + 1)] == [link[-1] for link in links]
