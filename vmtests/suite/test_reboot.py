"""What was written through the overlay outlives a reboot, and what was synced outlives a power cut."""

from collections.abc import Callable

import pytest

from vmtests.contract import Contract
from vmtests.guest.result import Result
from vmtests.plugin.machines import Machines
from vmtests.suite.conftest import Restarted, store_writer

pytestmark = pytest.mark.vm(promises="store")

Write = Callable[[str], Result]


@pytest.fixture(scope="session")
def rebooted(restarting: dict[str, Restarted], _vmtests_machines: Machines) -> Restarted:
    """The machine after its clean reboot."""
    return _ready(restarting["reboot"], _vmtests_machines)


@pytest.fixture(scope="session")
def cut(restarting: dict[str, Restarted], _vmtests_machines: Machines) -> Restarted:
    """The machine after its power cut: what was marked was synced before."""
    return _ready(restarting["cut"], _vmtests_machines)


def _ready(machine: Restarted, machines: Machines) -> Restarted:
    with machines.run.uncaptured():
        machine.vm.wait_ready()
    return machine


def test_reboot_is_another_boot(rebooted: Restarted) -> None:
    """A clean reboot brings the guest to ready again, under another boot id."""
    assert rebooted.vm.facts.boot_id() != rebooted.marks.boot_id


def test_written_path_survives_a_reboot(rebooted: Restarted, vm_contract: Contract) -> None:
    """A file written through the overlay is there after a clean reboot."""
    written = rebooted.vm.run(f"cat {vm_contract.store.mount}/vmtests-reboot").check().stdout
    assert written == f"{rebooted.marks.nonce}\n"


def test_whiteout_survives_a_reboot(rebooted: Restarted, vm_contract: Contract) -> None:
    """A file of the image that was deleted stays deleted after a clean reboot."""
    deleted = rebooted.marks.deleted
    assert rebooted.vm.run(f"test -e '{vm_contract.store.mount}/{deleted}'").exit_code == 1
    rebooted.vm.run(f"test -f '{vm_contract.store.lower}/{deleted}'").check()


def test_store_is_mounted_alike_after_a_reboot(rebooted: Restarted, vm_contract: Contract) -> None:
    """The second boot mounts the store as the first: overlay, and the read-only bind on top."""
    mounts = rebooted.vm.mounts.at(vm_contract.store.mount)
    assert [mount.fstype for mount in mounts] == ["overlay", "overlay"]
    assert set(vm_contract.store.bind_options) <= set(mounts[-1].options)


def test_database_is_not_loaded_again_at_boot(rebooted: Restarted) -> None:
    """A path that Nix deleted stays unknown after a reboot: the database is baked in, not loaded at each boot."""
    collected = rebooted.marks.collected
    assert rebooted.vm.run(f"nix-store --check-validity {collected}").exit_code != 0
    assert rebooted.vm.run(f"test -e {collected}").exit_code == 1


def test_power_cut_boots_again(cut: Restarted, vm_contract: Contract) -> None:
    """After a power cut the next boot gets ready, under another boot id, with no failed unit."""
    assert cut.vm.facts.boot_id() != cut.marks.boot_id
    assert [] == vm_contract.units.broken(unit.name for unit in cut.vm.units.failed)


def test_synced_path_survives_a_power_cut(cut: Restarted, vm_contract: Contract) -> None:
    """What was synced before the power cut is there with its content, whiteouts too."""
    assert cut.vm.run(f"cat {vm_contract.store.mount}/vmtests-cut").check().stdout == f"{cut.marks.nonce}\n"
    assert cut.vm.run(f"test -e '{vm_contract.store.mount}/{cut.marks.deleted}'").exit_code == 1


def test_overlay_is_writable_after_a_power_cut(cut: Restarted, vm_contract: Contract) -> None:
    """The overlay takes writes after a power cut: workdir was cleaned, upperdir is sound."""
    write: Write = store_writer(cut.vm, vm_contract)
    write("mkdir vmtests-after; echo x > vmtests-after/file; rm -r vmtests-after").check()
