"""What Nix does with a store whose lower layer it cannot write to: nothing breaks, and nothing is copied up."""

import secrets

import pytest

from vmtests.contract import Contract
from vmtests.vm import Vm

pytestmark = pytest.mark.vm(promises="store")


def _count(vm: Vm, directory: str, kind: str) -> int:
    return int(vm.run(f"find {directory} -type {kind} | wc -l").check().stdout)


def _add(vm: Vm) -> str:
    """Add a path that nothing refers to."""
    command = f"echo {secrets.token_hex(8)} > /run/garbage && nix-store --add /run/garbage"
    return vm.run(command).check().stdout.strip()


def test_system_profile_is_the_booted_system(vm: Vm, vm_contract: Contract) -> None:
    """The image ships a system profile, so that a rebuild and a rollback have something to count from."""
    booted = vm.run("readlink -f /run/booted-system").check().stdout
    assert vm.run(f"readlink -f {vm_contract.store.state}/profiles/system").check().stdout == booted


def test_roots_keep_the_booted_system(vm: Vm, vm_contract: Contract) -> None:
    """Collection is told by links that what was booted and what is current, and every profile, is in use."""
    roots = f"{vm_contract.store.state}/gcroots"
    for name in ("booted-system", "current-system"):
        assert vm.run(f"readlink -f {roots}/{name}").check().stdout == vm.run(f"readlink -f /run/{name}").stdout
    profiles = f"{vm_contract.store.state}/profiles"
    assert vm.run(f"readlink -f {roots}/profiles").check().stdout.strip() == profiles


def test_garbage_collection_takes_garbage_only(vm: Vm, vm_contract: Contract) -> None:
    """`nix-store --gc` deletes a path that was added, and of the image nothing: no whiteout, every path valid."""
    before = vm.run("nix-store --query --requisites $(readlink -f /run/booted-system)").check().lines
    whiteouts = _count(vm, vm_contract.store.upper, "c")
    path = _add(vm)
    deleted = vm.run("nix-store --gc", timeout=600).check()
    assert path in deleted.stdout + deleted.stderr
    assert vm.run(f"test -e {path}").exit_code == 1
    assert vm.run("nix-store --query --requisites $(readlink -f /run/booted-system)").check().lines == before
    assert _count(vm, vm_contract.store.upper, "c") == whiteouts
    vm.run(f"nix-store --check-validity {' '.join(before)}").check()


def test_collected_path_can_be_added_again(vm: Vm) -> None:
    """A path that was collected is added again under its name, with its content."""
    command = "echo again > /run/again && nix-store --add /run/again"
    path = vm.run(command).check().stdout.strip()
    vm.run(f"nix-store --delete {path}").check()
    assert vm.run(command).check().stdout.strip() == path
    assert vm.run(f"cat {path}").check().stdout == "again\n"
    vm.run(f"nix-store --delete {path}").check()


def test_reloading_the_overlays_mount_changes_nothing(vm: Vm, vm_contract: Contract) -> None:
    """An overlay cannot be reconfigured, so reloading its unit may fail; the store stays as it is mounted."""
    unit = vm_contract.stage1_mount[-1].unit.removeprefix("sysroot-")
    before = vm.mounts.at(vm_contract.store.mount)
    vm.run(f"systemctl reload {unit}")
    assert vm.mounts.at(vm_contract.store.mount) == before
    assert vm.units[unit].active == "active"
    assert [] == vm_contract.units.broken(failed.name for failed in vm.units.failed)


def test_sshd_runs_no_command_from_the_store(vm: Vm, vm_contract: Contract) -> None:
    """sshd is not asked to run a command below the store, which it refuses since the store is group-writable."""
    shown = vm.run("sshd=$(command -v sshd || echo /usr/sbin/sshd); $sshd -T").check().lines
    options = [line.split() for line in shown]
    commands = [words[1] for words in options if words[0] in {"authorizedkeyscommand", "authorizedprincipalscommand"}]
    assert len(commands) == 2
    assert [command for command in commands if command.startswith(vm_contract.store.mount)] == []


def test_local_overlay_store_copies_nothing_up(vm: Vm, vm_contract: Contract) -> None:
    """Nix's own overlay store accepts the two layers, and optimising through it copies nothing up."""
    store = vm_contract.store
    vm.run(f"rm -rf /run/lower /run/state && cp -r {store.state} /run/lower && mkdir /run/state").check()
    lower = f"local%3Freal%3D{store.lower}%26state%3D/run/lower%26read-only%3Dtrue".replace("/", "%2F")
    url = f"local-overlay://?lower-store={lower}&upper-layer={store.upper}&state=/run/state&check-mount=false"
    nix = (
        "NIX_CONFIG='experimental-features = local-overlay-store read-only-local-store nix-command' "
        f"nix-store --store '{url}'"
    )
    files = _count(vm, store.upper, "f")
    booted = vm.run("readlink -f /run/booted-system").check().stdout.strip()
    vm.run(f"{nix} --check-validity {booted}").check()
    vm.run(f"{nix} --optimise", timeout=600).check()
    assert _count(vm, store.upper, "f") == files
