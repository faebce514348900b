"""The suite's tests of the boot entry, wherever the ESP is mounted and whatever the contract calls it."""

from dataclasses import replace

import pytest

from tests.suite.conftest import ESP, Foreign
from vmtests import contract as contracts
from vmtests.contract import Contract
from vmtests.image.check import Check, Word
from vmtests.suite import test_boot_entry as suite

UUID = "6d0fa6e5-5d1b-4a0e-9f3f-1f0f5b1d2a3c"


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


@pytest.mark.parametrize(("given", "passes"), [("root=LABEL=r quiet $tuned", True), ("root=LABEL=r debug", False)])
def test_options_are_those_that_the_loader_was_seen_to_give(guest: Foreign, given: str, passes: bool) -> None:
    """Whether they are an entry's, a unified kernel image's or GRUB's, whose variables nobody knows before."""
    line = Check(subject="boot", what=Word.COMMAND_LINE, value=given)
    guest.image = replace(guest.image, inspection=replace(guest.image.inspection, checks=(line,)))
    if passes:
        suite.test_kernel_command_line_is_the_entrys(guest)
    else:
        with pytest.raises(AssertionError):
            suite.test_kernel_command_line_is_the_entrys(guest)
