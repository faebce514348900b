"""CD-ROM images: what firmware starts from them."""

import struct
from pathlib import Path

import pytest

from vmtests.errors import InputError
from vmtests.host.sandbox import run_in
from vmtests.host.tools import Toolbox
from vmtests.image.eltorito import BIOS, EFI, SECTOR, boot_images
from vmtests.image.inspect import Inspection, inspect
from vmtests.sizes import MIB
from vmtests.testing.images import MemoryDisk, kernel

CATALOG, BOOT_IMAGE = 20, 64


def catalog(*entries: tuple[int, int]) -> bytes:
    """Return a boot catalog with entries (platform, sector), the first of which is the default one."""
    (platform, place), *others = entries
    data = bytes([1, platform]) + bytes(28) + b"\x55\xaa" + struct.pack("<B7xI20x", 0x88, place)
    for number, (kind, start) in enumerate(others, start=1):
        head = 0x91 if number == len(others) else 0x90
        data += struct.pack("<BBH28x", head, kind, 1) + struct.pack("<B7xI20x", 0x88, start)
    return data


def disc(boot: bytes) -> bytearray:
    """Return a disc with a volume descriptor, and a boot catalog if that is not empty."""
    data = bytearray(4 * MIB)
    data[16 * SECTOR : 16 * SECTOR + 7] = b"\x01CD001\x01"
    if boot:
        data[17 * SECTOR : 17 * SECTOR + 30] = b"\x00CD001\x01EL TORITO SPECIFICATION"
        struct.pack_into("<I", data, 17 * SECTOR + 0x47, CATALOG)
        data[CATALOG * SECTOR : CATALOG * SECTOR + len(boot)] = boot
    return data


def inspected(place: Path, toolbox: Toolbox, data: bytearray) -> Inspection:
    """Inspect a disc."""
    path = place / "disc.iso"
    path.write_bytes(data)
    return inspect(path, None, toolbox)


def test_both_platforms() -> None:
    """A disc for both has an entry for each, where the specification puts them."""
    found = list(boot_images(MemoryDisk(bytes(disc(catalog((BIOS, 30), (EFI, 64)))))))  # type: ignore[arg-type]
    assert [(BIOS, 30 * SECTOR), (EFI, 64 * SECTOR)] == [(image.platform, image.start) for image in found]


@pytest.mark.parametrize("harm", [b"", b"\x02", catalog((EFI, 64))[:40]])
def test_no_sound_catalog(harm: bytes) -> None:
    """A catalog that is missing, of another kind or cut names nothing, or what is whole of it."""
    found = list(boot_images(MemoryDisk(bytes(disc(harm)))))  # type: ignore[arg-type]
    assert found == [] or len(harm) == 40


def test_disc_for_uefi(tmp_path: Path, toolbox: Toolbox) -> None:
    """The way through a disc begins in the FAT that its catalog names."""
    fat, loader = tmp_path / "fat", tmp_path / "loader"
    loader.write_bytes(kernel("6.12.1"))
    toolbox.run("mkfs.vfat", "-C", fat, "1024")
    for command in (["mmd", "-i", str(fat), "::EFI", "::EFI/BOOT"],
                    ["mcopy", "-i", str(fat), str(loader), "::EFI/BOOT/BOOTX64.EFI"]):  # fmt: skip
        run_in(toolbox.root("mcopy"), command)
    data = disc(catalog((EFI, BOOT_IMAGE)))
    data[BOOT_IMAGE * SECTOR : BOOT_IMAGE * SECTOR + MIB] = fat.read_bytes()
    found = inspected(tmp_path, toolbox, data)
    assert found.ok
    assert found.disc
    assert not found.bios_only
    assert found.steps[-1] == "Linux 6.12.1"


def test_disc_for_bios(tmp_path: Path, toolbox: Toolbox) -> None:
    """A disc with a boot image for BIOS only is no fault."""
    found = inspected(tmp_path, toolbox, disc(catalog((BIOS, BOOT_IMAGE))))
    assert found.ok
    assert (found.disc, found.bios_only) == (True, True)


def test_disc_that_nothing_boots_from(tmp_path: Path, toolbox: Toolbox) -> None:
    """A disc of data is a breach that says so."""
    (breach,) = inspected(tmp_path, toolbox, disc(b"")).breaches
    assert "nothing boots" in breach.sentence


def test_disc_that_was_cut(tmp_path: Path, toolbox: Toolbox) -> None:
    """Its volume descriptor says how long it is; the run-out behind the files may be missing."""
    data = disc(catalog((BIOS, BOOT_IMAGE)))
    struct.pack_into("<I", data, 16 * SECTOR + 80, len(data) // SECTOR + 150)
    assert inspected(tmp_path, toolbox, data).ok
    struct.pack_into("<I", data, 16 * SECTOR + 80, len(data) // SECTOR + 151)
    with pytest.raises(InputError, match="is truncated: by its volume descriptor"):
        inspected(tmp_path, toolbox, data)
