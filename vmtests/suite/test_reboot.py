"""What was written through the overlay outlives a reboot, and what was synced outlives a power cut."""

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from vmtests.contract import Contract
from vmtests.guest.result import Result
from vmtests.lab import Vm
from vmtests.suite.conftest import store_writer

Write = Callable[[str], Result]


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """What was left before a restart: a nonce in a new file, a file of the image deleted, a path collected by Nix."""

    nonce: str
    deleted: str
    boot_id: str
    collected: str


@pytest.fixture(scope="module")
def rebooted(boot: Vm, contract: Contract) -> Iterator[Marks]:
    """The shared machine after a clean reboot, with marks from before."""
    marks = _leave_marks(boot, contract, "reboot")
    boot.reboot()
    yield marks
    _wipe_marks(boot, contract, marks, "reboot")


@pytest.fixture(scope="module")
def cut(boot: Vm, contract: Contract, rebooted: Marks) -> Iterator[Marks]:  # noqa: ARG001 - one after the other
    """The shared machine after its power was cut, with marks that were synced before."""
    marks = _leave_marks(boot, contract, "cut")
    boot.run("sync").check()
    store_writer(boot, contract)("echo unsynced > vmtests-unsynced").check()
    boot.power_cut()
    boot.power_on()
    yield marks
    _wipe_marks(boot, contract, marks, "cut")
    store_writer(boot, contract)("rm -f vmtests-unsynced").check()


def _leave_marks(vm: Vm, contract: Contract, name: str) -> Marks:
    nonce = secrets.token_hex(8)
    deleted = vm.run(
        f"cd {contract.store.lower} && find . -type f -path '*/share/*' -size -8k | sort | "
        f"{'head' if name == 'reboot' else 'tail'} -n 1"
    )
    path = deleted.check().stdout.strip().removeprefix("./")
    store_writer(vm, contract)(f"echo {nonce} > vmtests-{name}; rm '{path}'").check()
    collected = vm.run(f"echo {nonce} > /run/gone && nix-store --add /run/gone").check().stdout.strip()
    vm.run(f"nix-store --delete {collected}").check()
    return Marks(nonce=nonce, deleted=path, boot_id=vm.facts.boot_id(), collected=collected)


def _wipe_marks(vm: Vm, contract: Contract, marks: Marks, name: str) -> None:
    back = f"cp --preserve=all '{contract.store.lower}/{marks.deleted}' '{marks.deleted}'"
    store_writer(vm, contract)(f"rm vmtests-{name}; {back}").check()


def test_reboot_is_another_boot(vm: Vm, rebooted: Marks) -> None:
    """A clean reboot brings the guest to ready again, under another boot id."""
    assert vm.facts.boot_id() != rebooted.boot_id


def test_written_path_survives_a_reboot(vm: Vm, rebooted: Marks, contract: Contract) -> None:
    """A file written through the overlay is there after a clean reboot."""
    assert vm.run(f"cat {contract.store.mount}/vmtests-reboot").check().stdout == f"{rebooted.nonce}\n"


def test_whiteout_survives_a_reboot(vm: Vm, rebooted: Marks, contract: Contract) -> None:
    """A file of the image that was deleted stays deleted after a clean reboot."""
    assert vm.run(f"test -e '{contract.store.mount}/{rebooted.deleted}'").exit_code == 1
    vm.run(f"test -f '{contract.store.lower}/{rebooted.deleted}'").check()


def test_store_is_mounted_alike_after_a_reboot(vm: Vm, rebooted: Marks, contract: Contract) -> None:  # noqa: ARG001
    """The second boot mounts the store as the first: overlay, and the read-only bind on top."""
    mounts = vm.mounts.at(contract.store.mount)
    assert [mount.fstype for mount in mounts] == ["overlay", "overlay"]
    assert set(contract.store.bind_options) <= set(mounts[-1].options)


def test_database_is_not_loaded_again_at_boot(vm: Vm, rebooted: Marks) -> None:
    """A path that Nix deleted stays unknown after a reboot: the database is baked in, not loaded at each boot."""
    assert vm.run(f"nix-store --check-validity {rebooted.collected}").exit_code != 0
    assert vm.run(f"test -e {rebooted.collected}").exit_code == 1


def test_power_cut_boots_again(vm: Vm, cut: Marks) -> None:
    """After a power cut the next boot gets ready, under another boot id, with no failed unit."""
    assert vm.facts.boot_id() != cut.boot_id
    assert [unit.name for unit in vm.units.failed] == []


def test_synced_path_survives_a_power_cut(vm: Vm, cut: Marks, contract: Contract) -> None:
    """What was synced before the power cut is there with its content, whiteouts too."""
    assert vm.run(f"cat {contract.store.mount}/vmtests-cut").check().stdout == f"{cut.nonce}\n"
    assert vm.run(f"test -e '{contract.store.mount}/{cut.deleted}'").exit_code == 1


def test_overlay_is_writable_after_a_power_cut(vm: Vm, cut: Marks, contract: Contract) -> None:  # noqa: ARG001
    """The overlay takes writes after a power cut: workdir was cleaned, upperdir is sound."""
    write: Write = store_writer(vm, contract)
    write("mkdir vmtests-after; echo x > vmtests-after/file; rm -r vmtests-after").check()
