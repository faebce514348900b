"""The firmware's variables say what was booted: systemd-boot, from our ESP, with our entry."""

from pathlib import PurePosixPath

import pytest

from vmtests.contract import Contract, Partition, Promise
from vmtests.guest import devices
from vmtests.guest.facts import parse_cmdline
from vmtests.image import loader
from vmtests.vm import Image, Vm

pytestmark = pytest.mark.vm(promises="entry")

# The vendor GUID of the boot loader's variables (systemd's "Boot Loader Interface").
LOADER = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
ESP = Partition(type="esp", type_uuid="c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"


def _text(vm: Vm, name: str) -> str:
    """Return one of the loader's variables, without the four bytes of attributes in front (efivarfs)."""
    value = vm.run(f"cat /sys/firmware/efi/efivars/{name}-{LOADER}").check().stdout_bytes[4:]
    return value.decode("utf-16-le").rstrip("\0")


@pytest.fixture
def by_systemd_boot(vm_image: Image, vm_contract: Contract) -> None:
    """Needs an image that systemd-boot starts: others do not say in the firmware's variables what they have started.

    One of a contract with a store is started by it, and one whose way was not followed may be.
    """
    steps = vm_image.inspection.steps
    if Promise.STORE not in vm_contract.promises and steps and not any("systemd-boot" in step for step in steps):
        pytest.skip(f"another boot loader starts it, which says nothing of its entries: {' → '.join(steps)}")


def test_booted_by_uefi(vm: Vm) -> None:
    """The guest was booted by UEFI firmware."""
    vm.run("test -d /sys/firmware/efi").check()


@pytest.mark.usefixtures("by_systemd_boot")
def test_boot_loader_is_systemd_boot(vm: Vm) -> None:
    """The loader that booted the kernel calls itself systemd-boot."""
    assert _text(vm, "LoaderInfo").startswith("systemd-boot")


@pytest.mark.usefixtures("by_systemd_boot")
def test_booted_entry_is_the_contracts(vm: Vm, vm_contract: Contract) -> None:
    """The entry that was selected is the one in the contract, whatever its counter of tries says by now."""
    wanted = PurePosixPath(vm_contract.boot.entry).name.lower()  # as systemd-boot spells it
    assert loader.counted(wanted)[0] == loader.counted(_text(vm, "LoaderEntrySelected").lower())[0]


@pytest.mark.usefixtures("by_systemd_boot")
def test_loader_came_from_the_esp(vm: Vm, vm_contract: Contract) -> None:
    """The partition that the loader was read from is the contract's ESP, or an ESP where the contract has none."""
    esp = next((partition for partition in vm_contract.partition if partition.type == "esp"), ESP)
    of = [device.partuuid or "" for device in devices.each(devices.listed(vm)) if devices.is_of(esp, device)]
    assert _text(vm, "LoaderDevicePartUUID").lower() in [uuid.lower() for uuid in of]


def test_kernel_command_line_is_the_entrys(vm: Vm) -> None:
    """Every option that the boot loader was seen to give in the image is on the kernel's command line.

    What only the loader knows when it runs, as GRUB's variables, has a `$`.
    """
    options = [word for word in parse_cmdline(vm.image.inspection.command_line) if "$" not in word]
    assert options
    assert set(options) <= set(vm.facts.cmdline())


def test_console_is_the_contracts(vm: Vm, vm_contract: Contract) -> None:
    """The kernel's console is the serial port of the contract."""
    if not vm_contract.boot.console:
        pytest.skip('the contract has `console = ""`: it promises none')
    assert vm_contract.boot.console in vm.run("cat /sys/class/tty/console/active").check().stdout.split()


def test_secure_boot_is_off(vm: Vm) -> None:
    """Secure boot is off, as this machine was made: the firmware says 0, or was built without it."""
    variable = f"/sys/firmware/efi/efivars/SecureBoot-{GLOBAL}"
    value = vm.run(f"if [ -e {variable} ]; then tail --bytes 1 {variable} | od -An -tu1; else echo 0; fi")
    assert value.check().stdout.strip() == "0"
