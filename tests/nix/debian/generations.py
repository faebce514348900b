"""Further generations in a booted NixOS: switched to, rebooted into, rolled back, collected (make nixos-vmtests).

pytest tests/nix/debian/generations.py --vm-image=DIRECTORY/default.raw, where tests.nix.debian.make has made the
generations in DIRECTORY. What is done is what nixos-rebuild does: nixpkgs' switch-to-configuration and builder of
the boot loader's entries run as they are, compiled by Debian's rustc and run by Debian's Python.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest

from vmtests import ColdVm, Vm

PROFILE = "/nix/var/nix/profiles/system"
SLOW = 900.0  # seconds, for what is compiled or hashed in a machine without KVM


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A system, and what /etc/generation says in it."""

    path: str
    name: str


@pytest.fixture
def machine(cold_vm: ColdVm) -> Vm:
    """A machine that nothing else uses: it is changed for good."""
    return cold_vm()


def bring(vm: Vm, directory: Path, name: str) -> Generation:
    """Copy a generation's store paths into the machine, as `nix copy` does."""
    archive = (directory / f"{name}.export").read_bytes()
    vm.run("nix-store --import", SLOW, stdin=archive).check()
    return Generation(path=(directory / f"{name}.path").read_text(), name=name)


def activate(vm: Vm, action: str) -> str:
    """Run the profile's switch-to-configuration, with systemd's search path alone; return what it said."""
    command = f"systemd-run --quiet --pipe --wait --collect {PROFILE}/bin/switch-to-configuration {action} 2>&1"
    result = vm.run(command, SLOW)
    assert result.ok, result.stdout
    return result.stdout


def entries(vm: Vm) -> list[str]:
    """Return the systems that the ESP's boot entries boot, sorted."""
    return (
        vm.run("sed -n 's|^options init=\\(.*\\)/init .*|\\1|p' /boot/loader/entries/*.conf | sort")
        .check()
        .stdout.split()
    )


def kernels(vm: Vm) -> int:
    """Return how many initrds are on the ESP."""
    return len(vm.run("ls /boot/EFI/nixos/*initrd*").check().stdout.split())


def running(vm: Vm) -> tuple[str, str]:
    """Return the system that was booted, and the one that runs."""
    booted, current = vm.run("readlink /run/booted-system /run/current-system").check().stdout.split()
    return booted, current


def healthy(vm: Vm) -> None:
    """No unit has failed."""
    assert vm.units.failed == ()


def test_a_generation_is_switched_to_booted_rolled_back_and_collected(
    machine: Vm, pytestconfig: pytest.Config
) -> None:
    """What nixos-rebuild does to the image's system holds: at once, over reboots, and on the ESP."""
    vm, directory = machine, Path(pytestconfig.getoption("vm_image")).parent
    first, booted = running(vm)
    assert first == booted
    second = bring(vm, directory, "second")

    # Switch: units of the new system run, the boot loader offers both, and the image's own entry is gone.
    vm.run(f"nix-env --profile {PROFILE} --set {second.path}").check()
    activate(vm, "switch")
    assert running(vm) == (first, second.path)
    assert vm.run("cat /etc/generation; echo; cat /run/generation").check().stdout.split() == ["second", "second"]
    assert entries(vm) == sorted([first, second.path])
    assert kernels(vm) == 2
    assert vm.run("test -e /boot/loader/entries/nixos.conf").exit_code == 1
    healthy(vm)

    # The next boot is of the new system.
    vm.reboot()
    assert running(vm) == (second.path, second.path)
    assert f"init={second.path}/init" in vm.run("cat /proc/cmdline").check().stdout
    healthy(vm)

    # Rolled back: at once, and by the next boot.
    vm.run(f"nix-env --profile {PROFILE} --rollback").check()
    activate(vm, "switch")
    assert running(vm) == (second.path, first)
    assert vm.run("test -e /etc/generation").exit_code == 1
    assert vm.run("systemctl is-active generation.service").stdout.strip() == "inactive"
    vm.reboot()
    assert running(vm) == (first, first)
    healthy(vm)

    # A third one: the ESP has the two newest, so that it does not fill up.
    third = bring(vm, directory, "third")
    vm.run(f"nix-env --profile {PROFILE} --set {third.path}").check()
    activate(vm, "boot")
    assert running(vm) == (first, first)
    assert entries(vm) == sorted([second.path, third.path])
    assert kernels(vm) == 2
    vm.reboot()
    assert running(vm) == (third.path, third.path)

    # Without the image's own system and the second one: what they alone needed goes, and the machine boots.
    vm.run(f"nix-env --profile {PROFILE} --delete-generations old").check()
    collected = vm.run("nix-collect-garbage 2>&1", SLOW).check().stdout
    assert "store paths deleted" in collected
    for gone in (first, second.path):
        assert vm.run(f"test -e {gone}").exit_code == 1
        assert vm.run(f"nix-store --check-validity {gone}").exit_code == 1
    activate(vm, "boot")
    assert entries(vm) == [third.path]
    assert kernels(vm) == 1
    vm.reboot()
    assert running(vm) == (third.path, third.path)
    vm.run(f"nix-store --verify && nix-store --check-validity $(nix-store -qR {third.path})", SLOW).check()
    healthy(vm)
