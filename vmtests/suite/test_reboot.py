"""What was written through the overlay outlives a reboot, and what was synced outlives a power cut."""

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

import pytest

from vmtests import progress
from vmtests.contract import Contract
from vmtests.guest.result import Result
from vmtests.snapshots import Snapshot
from vmtests.suite.conftest import store_writer
from vmtests.vm import Image, Laboratory, Vm

Write = Callable[[str], Result]


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """What was left before a restart: a nonce in a new file, a file of the image deleted, a path collected by Nix."""

    nonce: str
    deleted: str
    boot_id: str
    collected: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarted:
    """A machine that was restarted, and what was left on it before."""

    vm: Vm
    marks: Marks


@pytest.fixture(scope="module")
def restarted(
    lab: Laboratory,
    image: Image,
    snapshot: Snapshot | None,
    contract: Contract,
    uncaptured: Callable[[], AbstractContextManager[None]],
) -> Iterator[dict[str, Restarted]]:
    """Two forks of the booted machine, one rebooted cleanly and one whose power was cut, at the same time."""

    def reboot(vm: Vm) -> Restarted:
        marks = _leave_marks(vm, contract, "reboot")
        vm.reboot()
        return Restarted(vm=vm, marks=marks)

    def cut(vm: Vm) -> Restarted:
        marks = _leave_marks(vm, contract, "cut")
        vm.run("sync").check()
        store_writer(vm, contract)("echo unsynced > vmtests-unsynced").check()
        vm.power_cut()
        vm.power_on()
        return Restarted(vm=vm, marks=marks)

    with ExitStack() as stack:
        with uncaptured(), progress.step("a clean reboot and a power cut"), ThreadPoolExecutor() as pool:
            running = {}
            for way in (reboot, cut):
                vm = stack.enter_context(lab.fork(image, snapshot, name=way.__name__))
                running[way.__name__] = pool.submit(way, vm)
        yield {name: future.result() for name, future in running.items()}


@pytest.fixture
def rebooted(restarted: dict[str, Restarted]) -> Restarted:
    """The machine after its clean reboot."""
    return restarted["reboot"]


@pytest.fixture
def cut(restarted: dict[str, Restarted]) -> Restarted:
    """The machine after its power cut: what was marked was synced before."""
    return restarted["cut"]


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


def test_reboot_is_another_boot(rebooted: Restarted) -> None:
    """A clean reboot brings the guest to ready again, under another boot id."""
    assert rebooted.vm.facts.boot_id() != rebooted.marks.boot_id


def test_written_path_survives_a_reboot(rebooted: Restarted, contract: Contract) -> None:
    """A file written through the overlay is there after a clean reboot."""
    written = rebooted.vm.run(f"cat {contract.store.mount}/vmtests-reboot").check().stdout
    assert written == f"{rebooted.marks.nonce}\n"


def test_whiteout_survives_a_reboot(rebooted: Restarted, contract: Contract) -> None:
    """A file of the image that was deleted stays deleted after a clean reboot."""
    deleted = rebooted.marks.deleted
    assert rebooted.vm.run(f"test -e '{contract.store.mount}/{deleted}'").exit_code == 1
    rebooted.vm.run(f"test -f '{contract.store.lower}/{deleted}'").check()


def test_store_is_mounted_alike_after_a_reboot(rebooted: Restarted, contract: Contract) -> None:
    """The second boot mounts the store as the first: overlay, and the read-only bind on top."""
    mounts = rebooted.vm.mounts.at(contract.store.mount)
    assert [mount.fstype for mount in mounts] == ["overlay", "overlay"]
    assert set(contract.store.bind_options) <= set(mounts[-1].options)


def test_database_is_not_loaded_again_at_boot(rebooted: Restarted) -> None:
    """A path that Nix deleted stays unknown after a reboot: the database is baked in, not loaded at each boot."""
    collected = rebooted.marks.collected
    assert rebooted.vm.run(f"nix-store --check-validity {collected}").exit_code != 0
    assert rebooted.vm.run(f"test -e {collected}").exit_code == 1


def test_power_cut_boots_again(cut: Restarted) -> None:
    """After a power cut the next boot gets ready, under another boot id, with no failed unit."""
    assert cut.vm.facts.boot_id() != cut.marks.boot_id
    assert [unit.name for unit in cut.vm.units.failed] == []


def test_synced_path_survives_a_power_cut(cut: Restarted, contract: Contract) -> None:
    """What was synced before the power cut is there with its content, whiteouts too."""
    assert cut.vm.run(f"cat {contract.store.mount}/vmtests-cut").check().stdout == f"{cut.marks.nonce}\n"
    assert cut.vm.run(f"test -e '{contract.store.mount}/{cut.marks.deleted}'").exit_code == 1


def test_overlay_is_writable_after_a_power_cut(cut: Restarted, contract: Contract) -> None:
    """The overlay takes writes after a power cut: workdir was cleaned, upperdir is sound."""
    write: Write = store_writer(cut.vm, contract)
    write("mkdir vmtests-after; echo x > vmtests-after/file; rm -r vmtests-after").check()
