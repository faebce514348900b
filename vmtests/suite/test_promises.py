"""What the image's contract promises of the running system, whatever image it is (docs/contract.md)."""

import pytest

from vmtests.contract import Contract
from vmtests.guest import promises
from vmtests.vm import Vm


def test_units_are_as_promised(vm: Vm, vm_contract: Contract) -> None:
    """No unit has failed but those that may, and those that are promised are active."""
    assert list(promises.units(vm_contract, vm)) == []


@pytest.mark.vm(promises="mounts")
def test_mounts_are_as_promised(vm: Vm, vm_contract: Contract) -> None:
    """Every mount is there, with its file system, its options, and of its partition."""
    assert list(promises.mounts(vm_contract, vm)) == []


@pytest.mark.vm(promises="partitions")
def test_image_has_the_promised_partitions(vm: Vm) -> None:
    """Inspection finds every partition as promised, and nothing else that would keep the image from booting."""
    assert [str(breach) for breach in vm.image.inspection.breaches] == []


@pytest.mark.vm(promises="partitions")
def test_verity_is_as_promised(vm: Vm, vm_contract: Contract) -> None:
    """What is to be protected by dm-verity is."""
    assert list(promises.verity(vm_contract, vm)) == []
