"""The store is an erofs that nothing can write to, and Nix finds every path in it sound."""

import pytest

from vmtests.contract import Contract
from vmtests.vm import Vm

pytestmark = pytest.mark.vm(promises="store")


def test_lower_is_the_erofs_by_partlabel(vm: Vm, vm_contract: Contract) -> None:
    """The lower layer is an erofs on the partition that the contract's partlabel names."""
    mount = vm.mounts.top(vm_contract.store.lower)
    assert mount.fstype == "erofs"
    device = vm.run(f"readlink -f {vm_contract.store_partition.device}").check().stdout.strip()
    assert device == mount.source


def test_lower_is_mounted_read_only(vm: Vm, vm_contract: Contract) -> None:
    """The lower layer is read-only, the mount as well as the file system."""
    mount = vm.mounts.top(vm_contract.store.lower)
    assert "ro" in mount.options
    assert "ro" in mount.super_options


def test_lower_refuses_writes_of_root(vm: Vm, vm_contract: Contract) -> None:
    """Root cannot create a file in the lower layer: EROFS."""
    result = vm.run(f"touch {vm_contract.store.lower}/vmtests")
    assert result.exit_code != 0
    assert "Read-only file system" in result.stderr


def test_lower_refuses_writes_even_after_a_remount(vm: Vm, vm_contract: Contract) -> None:
    """`mount -o remount,rw` does not open the lower layer: erofs cannot be written."""
    lower = vm_contract.store.lower
    result = vm.run(
        f"unshare --mount --propagation private sh -c 'mount -o remount,rw {lower}; touch {lower}/vmtests'"
    )
    assert result.exit_code != 0
    assert "Read-only file system" in result.stderr


def test_partition_cannot_be_overwritten_through_a_file(vm: Vm, vm_contract: Contract, lower_file: str) -> None:
    """Opening a file of the lower layer for writing fails, whatever its mode: EROFS."""
    result = vm.run(f"echo x >> '{vm_contract.store.lower}/{lower_file}'")
    assert result.exit_code != 0
    assert "Read-only file system" in result.stderr


def test_every_path_verifies(vm: Vm) -> None:
    """`nix-store --verify --check-contents` hashes every path of the store and finds nothing wrong."""
    result = vm.run("nix-store --verify --check-contents", timeout=900).check()
    assert "checking store hashes" in result.stderr + result.stdout
    assert "modified" not in result.stderr
    assert "disappeared" not in result.stderr


def test_every_path_of_the_image_is_registered(vm: Vm, vm_contract: Contract) -> None:
    """What lies in the lower layer is what the database calls valid, path by path, and nothing else lies there.

    A registration file among the paths would be deleted as garbage; Nix's own directory of links is empty.
    """
    there = vm.run(f"ls -A1 {vm_contract.store.lower}").check().lines
    valid = {path.path for path in vm.facts.valid_paths()}
    assert {f"{vm_contract.store.mount}/{name}" for name in there if name != ".links"} == valid
    assert vm.run(f"ls -A {vm_contract.store.lower}/.links").check().lines == []


def test_booted_system_is_valid_and_rooted(vm: Vm) -> None:
    """The booted system is a valid path that garbage collection keeps."""
    vm.run("nix-store --check-validity $(readlink -f /run/booted-system)").check()
    dead = vm.run("nix-store --gc --print-dead").check().lines
    closure = vm.run("nix-store --query --requisites $(readlink -f /run/booted-system)").check().lines
    assert closure
    assert set(dead) & set(closure) == set()


def test_store_has_the_mode_and_group_of_a_nix_store(vm: Vm, vm_contract: Contract) -> None:
    """The store directory has the mode and group by which Nix's build users may add to it."""
    result = vm.run(f"stat --format '%a %u %g' {vm_contract.store.mount}").check()
    assert result.stdout.split() == [vm_contract.store.mode, "0", str(vm_contract.store.group)]


def test_auto_optimise_is_off(vm: Vm) -> None:
    """Nix does not hard-link store paths by itself, which would copy the whole lower layer up, nor by a timer."""
    shown = vm.run("nix --extra-experimental-features nix-command config show").check()
    assert "auto-optimise-store = false" in shown.lines
    assert vm.run("systemctl is-enabled nix-optimise.timer").stdout.strip() != "enabled"
