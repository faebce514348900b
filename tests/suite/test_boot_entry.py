"""The suite's tests of the boot entry, wherever the ESP is mounted and whatever the contract calls it."""

import pytest

from tests.suite.conftest import ESP, Foreign
from vmtests import contract as contracts
from vmtests.contract import Contract
from vmtests.suite import test_boot_entry as suite

UUID = "6d0fa6e5-5d1b-4a0e-9f3f-1f0f5b1d2a3c"
ENTRY = 'title\tTheirs\nlinux\t/vmlinuz\noptions\troot=LABEL=r quiet\noptions\tname="a b"\n'


def _contract(entry: str = "/loader/entries/Theirs-6.1.conf", label: str = "EFI system partition") -> Contract:
    return contracts.from_data({"boot": {"entry": entry}, "partition": [{"label": label, "type": "esp"}]}, "here")


@pytest.fixture
def guest(foreign: Foreign) -> Foreign:
    """A guest that systemd-boot has started, with its ESP at /efi."""
    for name, text in {"LoaderEntrySelected": "theirs-6.1.conf", "LoaderDevicePartUUID": UUID.upper()}.items():
        value = bytes(4) + f"{text}\0".encode("utf-16-le")
        foreign.write(f"/sys/firmware/efi/efivars/{name}-{suite.LOADER}", value)
    foreign.devices = [
        {"name": "vda1", "kname": "vda1", "partuuid": UUID, "partlabel": "EFI system partition", "parttype": ESP},
        {"name": "vda2", "kname": "vda2", "partuuid": UUID.replace("6", "7"), "partlabel": "root"},
    ]
    foreign.mountinfo = ["22 1 8:1 / / rw - ext4 /dev/vda2 rw", "23 22 8:2 / /efi rw - vfat /dev/vda1 rw"]
    foreign.said["cat /proc/cmdline"] = 'initrd=\\initrd root=LABEL=r quiet name="a b" mitigations=auto\n'
    return foreign


@pytest.mark.parametrize("entry", ["/loader/entries/Theirs-6.1.conf", "/loader/entries/Theirs-6.1+3-0.conf"])
def test_entry_is_known_whatever_its_case_and_counter(guest: Foreign, entry: str) -> None:
    """systemd-boot spells names in small letters, and systemd takes the counter away once the boot is good."""
    suite.test_booted_entry_is_the_contracts(guest, _contract(entry))


def test_another_entry_fails(guest: Foreign) -> None:
    """Another one was selected."""
    with pytest.raises(AssertionError):
        suite.test_booted_entry_is_the_contracts(guest, _contract("/loader/entries/theirs-6.2.conf"))


def test_esp_is_known_by_its_type(guest: Foreign) -> None:
    """A contract that calls it otherwise, or has none, is held to the same; another partition is none."""
    suite.test_loader_came_from_the_esp(guest, _contract())
    suite.test_loader_came_from_the_esp(guest, contracts.from_data({"boot": {"entry": "/x.conf"}}, "here"))
    with pytest.raises(AssertionError):
        suite.test_loader_came_from_the_esp(guest, _contract(label="root"))


@pytest.mark.parametrize("place", ["/efi", "/boot"])
@pytest.mark.parametrize("name", ["Theirs-6.1.conf", "Theirs-6.1+2-1.conf"])
def test_entry_is_read_where_it_is_mounted(guest: Foreign, place: str, name: str) -> None:
    """On the ESP, or on an XBOOTLDR whose file system may be any."""
    guest.write(f"{place}/loader/entries/{name}", ENTRY.encode())
    suite.test_kernel_command_line_is_the_entrys(guest, _contract())
    guest.said["cat /proc/cmdline"] = "root=LABEL=r quiet\n"
    with pytest.raises(AssertionError):
        suite.test_kernel_command_line_is_the_entrys(guest, _contract())


@pytest.mark.parametrize("entry", ["/loader/entries/theirs-6.1.conf", "/EFI/Linux/theirs.efi"])
def test_entry_that_the_guest_does_not_see_is_no_failure(guest: Foreign, entry: str) -> None:
    """The ESP need not be mounted, and a unified kernel image has its options inside."""
    with pytest.raises(pytest.skip.Exception):
        suite.test_kernel_command_line_is_the_entrys(guest, _contract(entry))
