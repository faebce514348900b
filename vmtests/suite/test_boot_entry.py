"""The firmware's variables say what was booted: systemd-boot, from our ESP, with our entry."""

from pathlib import PurePosixPath

import pytest

from vmtests.contract import Contract
from vmtests.vm import Vm

pytestmark = pytest.mark.vm(promises="entry")

# The vendor GUID of the boot loader's variables (systemd's "Boot Loader Interface").
LOADER = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"


def _text(vm: Vm, name: str) -> str:
    """Return one of the loader's variables, without the four bytes of attributes in front (efivarfs)."""
    value = vm.run(f"cat /sys/firmware/efi/efivars/{name}-{LOADER}").check().stdout_bytes[4:]
    return value.decode("utf-16-le").rstrip("\0")


def test_booted_by_uefi(vm: Vm) -> None:
    """The guest was booted by UEFI firmware."""
    vm.run("test -d /sys/firmware/efi").check()


def test_boot_loader_is_systemd_boot(vm: Vm) -> None:
    """The loader that booted the kernel calls itself systemd-boot."""
    assert _text(vm, "LoaderInfo").startswith("systemd-boot")


def test_booted_entry_is_the_contracts(vm: Vm, vm_contract: Contract) -> None:
    """The entry that was selected is the one in the contract."""
    assert _text(vm, "LoaderEntrySelected") == PurePosixPath(vm_contract.boot.entry).name


def test_loader_came_from_the_esp(vm: Vm, vm_contract: Contract) -> None:
    """The partition that the loader was read from is the contract's ESP."""
    wanted = vm.run(f"lsblk --noheadings --output PARTUUID {vm_contract.esp.device}").check().stdout.strip()
    assert _text(vm, "LoaderDevicePartUUID").lower() == wanted.lower()


def test_kernel_command_line_is_the_entrys(vm: Vm, vm_contract: Contract) -> None:
    """Every option of the entry on the ESP is on the kernel's command line."""
    entry = vm.run(f"cat /boot{vm_contract.boot.entry}").check().lines
    options = [word for line in entry if line.startswith("options ") for word in line.split()[1:]]
    assert options
    assert set(options) <= set(vm.facts.cmdline())


def test_console_is_the_contracts(vm: Vm, vm_contract: Contract) -> None:
    """The kernel's console is the serial port of the contract."""
    assert vm_contract.boot.console in vm.run("cat /sys/class/tty/console/active").check().stdout.split()


def test_secure_boot_is_off(vm: Vm) -> None:
    """Secure boot is off, as this machine was made: the firmware says 0, or was built without it."""
    variable = f"/sys/firmware/efi/efivars/SecureBoot-{GLOBAL}"
    value = vm.run(f"if [ -e {variable} ]; then tail --bytes 1 {variable} | od -An -tu1; else echo 0; fi")
    assert value.check().stdout.strip() == "0"
