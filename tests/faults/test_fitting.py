"""Faults fit an image where it has what they break; a disk in another format is broken in a raw copy."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vmtests import contract as contracts
from vmtests.faults import catalogue
from vmtests.faults.apply import broken
from vmtests.faults.fitting import misfit, seen
from vmtests.faults.run import Runner
from vmtests.host import tools
from vmtests.host.architecture import GUEST
from vmtests.image.inspect import Inspection, inspect
from vmtests.machine.hardware import FirmwareKind, Hardware
from vmtests.testing.images import SmallImage, small_image


@pytest.fixture
def image(tmp_path: Path) -> SmallImage:
    """A disk of our layout."""
    return small_image(tmp_path)


def _foreign(image: SmallImage) -> Inspection:
    """Inspect it as anybody's."""
    return inspect(image.path, contracts.ANY, tools.find())


def _fitting(found: Inspection) -> set[str]:
    return {name for name, fault in catalogue.catalogue().items() if not misfit(fault, found)}


def test_every_fault_fits_our_own_layout(image: SmallImage) -> None:
    """What was made for it is not left out."""
    assert set(catalogue.catalogue()) == _fitting(inspect(image.path, None, tools.find()))


def test_what_breaks_our_own_layout_fits_no_other(image: SmallImage) -> None:
    """Of somebody else's disk firmware and loader can be broken, and no store."""
    fitting = _fitting(_foreign(image))
    assert {"esp-missing", "loader-missing", "gpt-destroyed", "no-table", "disk-slow"} <= fitting
    assert fitting.isdisjoint({"erofs-data-bit", "init-unset", "unit-never-ends", "disk-read-errors", "mbr-only"})
    assert fitting.isdisjoint({"entry-missing", "kernel-missing", "menu-endless"})


def test_files_of_the_boot_are_those_that_were_seen(image: SmallImage) -> None:
    """Behind systemd-boot an entry, its kernel and its initrd can be broken; a unified kernel is an entry only."""
    steps = ("/EFI/BOOT/BOOTX64.EFI (systemd-boot)",)
    entry = (GUEST.fallback, "/loader/entries/a.conf", "/linux", "/initrd")
    fitting = _fitting(replace(_foreign(image), files=entry, steps=steps))
    assert {"entry-missing", "kernel-missing", "initrd-missing", "menu-endless"} <= fitting
    fitting = _fitting(replace(_foreign(image), files=(GUEST.fallback, "/EFI/Linux/a.efi"), steps=steps))
    assert "entry-missing" in fitting
    assert fitting.isdisjoint({"kernel-missing", "initrd-missing", "root-unknown-no-initrd"})


def test_why_a_fault_does_not_fit_is_a_sentence(image: SmallImage) -> None:
    """It names what the image has not."""
    fault = catalogue.catalogue()["disk-read-errors"]
    assert "the image has not a store, or a first write in stage 1" == misfit(fault, _foreign(image))


def test_disk_of_another_format_is_broken_in_a_raw_copy(image: SmallImage, tmp_path: Path) -> None:
    """Offsets of a disk are not those of a qcow2 file, which stays as it was."""
    toolbox = tools.find()
    disk = tmp_path / "disk.qcow2"
    toolbox.run("qemu-img", "convert", "-O", "qcow2", image.path, disk)
    before = disk.read_bytes()
    found = inspect(disk, contracts.ANY, toolbox)
    with broken(catalogue.catalogue()["esp-not-fat"], disk, tmp_path, seen(found), toolbox) as made:
        said = [str(breach) for breach in inspect(made.disk, contracts.ANY, toolbox).breaches]
    assert any("has no FAT that firmware could read" in sentence for sentence in said)
    assert before == disk.read_bytes()


def test_what_only_the_contents_tell_ends_no_other_fault(image: SmallImage, tmp_path: Path) -> None:
    """A fault whose initrd has not what it takes from it does not fit; that is no error of the whole run."""
    found = inspect(image.path, None, tools.find())
    lab: Any = SimpleNamespace(host=SimpleNamespace(scratch=tmp_path, toolbox=tools.find()))
    broken_image: Any = SimpleNamespace(inspection=found, path=image.path)
    outcome = Runner(broken_image, lab).run(catalogue.catalogue()["initrd-wrong-kernel"])
    assert "initrd" in outcome.misfit
    assert outcome.verdict is None
    assert list(tmp_path.glob(".initrd-wrong-kernel-*")) == []


class _OrderedError(Exception):
    """Ends a run where its machine is ordered."""


def test_a_broken_image_is_started_by_the_firmware_that_the_good_one_is_made_for(
    image: SmallImage, tmp_path: Path
) -> None:
    """A disk for BIOS, too, boots without its ESP; the fault is what UEFI firmware makes of that."""
    ordered = []

    def order(_image: object, hardware: Hardware, **_: object) -> None:
        ordered.append(hardware)
        raise _OrderedError

    good = _foreign(image)
    other: Any = SimpleNamespace(inspection=replace(good, bios_only=True), path=image.path, contract=None)
    lab: Any = SimpleNamespace(
        host=SimpleNamespace(scratch=tmp_path, toolbox=tools.find()),
        images=SimpleNamespace(find=lambda *_, **__: other),
        machine=order,
    )
    mine: Any = SimpleNamespace(inspection=good, path=image.path, contract=None)
    with pytest.raises(_OrderedError):
        Runner(mine, lab).run(catalogue.catalogue()["esp-missing"])
    assert [FirmwareKind.UEFI] == [hardware.firmware for hardware in ordered]
