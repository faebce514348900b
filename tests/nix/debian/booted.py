"""What a variant of the NixOS image is there for holds in the booted machine (make nixos-vmtests).

pytest tests/nix/debian/booted.py -k "every or VARIANT" --vm-image=DIRECTORY/VARIANT.raw
"""

from pathlib import Path

import pytest

from vmtests import Vm
from vmtests.contract import Contract

ORDINARY = "HOME=/tmp setpriv --reuid=nobody --regid=nogroup --clear-groups"


@pytest.fixture(scope="session")
def disk(pytestconfig: pytest.Config) -> Path:
    """The image file, named after its variant."""
    return Path(pytestconfig.getoption("vm_image"))


def test_every_unit_is_well(vm: Vm) -> None:
    """No unit of the booted system has failed."""
    assert vm.units.failed == ()


def test_every_unit_is_valid(vm: Vm) -> None:
    """systemd has nothing to say against the units of the booted system."""
    assert vm.run("systemd-analyze verify --man=no default.target 2>&1", 600.0).check().stdout == ""


def test_every_image_is_whole_gibibytes(disk: Path) -> None:
    """The file has a size that Compute Engine takes."""
    assert disk.stat().st_size % (1 << 30) == 0


def test_debug_has_a_shell_and_keeps_the_getty(vm: Vm, vm_contract: Contract) -> None:
    """A root shell is on the second port, the console's getty has its template, and a failure does not panic."""
    for unit in ("debug-shell.service", f"serial-getty@{vm_contract.boot.console}.service"):
        assert vm.run(f"systemctl is-active '{unit}'").stdout.strip() == "active"
    getty = vm.run(f"systemctl show --property=Restart --value serial-getty@{vm_contract.boot.console}").stdout
    assert getty.strip() == "always"
    assert "panic" not in vm.run("cat /proc/cmdline").stdout


def test_overlay_store_is_everybodys(vm: Vm, vm_contract: Contract) -> None:
    """Root and an ordinary user see the image's paths, and adding and deleting one leaves no whiteout."""
    system = vm.run("readlink /run/current-system").check().stdout.strip()
    for who in ("", ORDINARY):
        vm.run(f"{who or 'env'} nix-store --check-validity {system}").check()
    added = vm.run(f"echo x > /tmp/x; {ORDINARY} nix-store --add /tmp/x").check().stdout.strip()
    assert vm.run(f"cat {added}").check().stdout == "x\n"
    vm.run(f"nix-store --delete {added}", 600.0).check()
    assert vm.run(f"test -e {added}").exit_code == 1
    vm.run(f"nix-store --check-validity {system}").check()
    assert vm.run(f"find {vm_contract.store.upper} -maxdepth 1 -type c").check().stdout == ""


def test_bloat_has_its_size(vm: Vm) -> None:
    """The paths of bloat have 2 GiB together."""
    sizes = vm.run("find /nix/store/*-bloat-* -type f -printf '%s\\n'", 600.0).check().stdout.split()
    assert sum(map(int, sizes)) == 2 << 30
