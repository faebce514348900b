"""systemd-boot, Lanzaboote's stub and names of partitions, where they were judged wrongly at first sight."""

import struct
from pathlib import Path

import pytest

from tests.image.test_chain import BOOT, CPIO, ENTRY, ROOT, Maker
from vmtests.host.tools import Toolbox
from vmtests.image import filesystem, layout
from vmtests.image.check import Slice
from vmtests.sizes import MIB
from vmtests.testing.images import MemoryDisk, kernel, program

FALLBACK, CONF = "/EFI/BOOT/BOOTX64.EFI", "/loader/entries/a.conf"
BASE = {FALLBACK: BOOT, "/vmlinuz": kernel(), "/initrd": CPIO}


@pytest.fixture
def disk(tmp_path: Path, toolbox: Toolbox) -> Maker:
    """Makes a disk."""
    return Maker(tmp_path, toolbox)


def test_quotes_around_a_value_are_none_of_it(disk: Maker) -> None:
    """systemd-boot takes them away, of both kinds, in entries and in loader.conf."""
    entry = f'linux "/vmlinuz"\ninitrd \'/initrd\'\noptions "root=UUID={ROOT} console=ttyS0"\n'.encode()
    other = {
        "/loader/entries/z.conf": ENTRY.replace(b"/vmlinuz", b"/initrd"),
        "/loader/loader.conf": b'default "a*"\n',
    }
    disk.make({**BASE, CONF: entry, **other})
    assert disk.said() == []
    assert disk.inspect().steps[1] == CONF


def test_entries_are_read_from_what_there_is_a_driver_for(disk: Maker) -> None:
    """An XBOOTLDR with ext4 counts as soon as systemd-boot loads a driver; without, nobody reads it."""
    root = {"/loader/entries/b.conf": ENTRY, "/vmlinuz": kernel(), "/initrd": CPIO}
    driver = {"/EFI/systemd/drivers/ext4_x64.efi": BOOT}
    for esp, said in (({FALLBACK: BOOT}, 1), ({FALLBACK: BOOT, **driver}, 0)):
        disk.make(esp, root)
        disk._toolbox.run("sfdisk", "-q", "--part-type", disk.path, "2", "BC13C2FF-59E6-4262-A352-B275FD6F7172")
        assert len(disk.said()) == said
    disk.poke(34 * MIB, bytes(MIB))
    disk.poke(34 * MIB + 0x8000, b"JFS1")
    assert disk.said() == []


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("\\vmlinuz", "\\initrd"), ""),
        (("\\gone", "\\initrd"), "kernel /gone, named by /EFI/Linux/a.efi, is not on"),
        (("\\vmlinuz", "\\gone"), "initrd /gone, named by /EFI/Linux/a.efi, is not on"),
    ],
)
def test_a_stub_that_names_its_kernel_is_followed_to_it(names: tuple[str, str], words: str, disk: Maker) -> None:
    """Lanzaboote's has paths and hashes where others have kernel and initrd."""
    sections = {
        ".osrel": b"ID=nixos\n", ".cmdline": f"root=UUID={ROOT} console=ttyS0".encode(),
        ".linux": names[0].encode(), ".linuxh": bytes(32), ".initrd": names[1].encode(), ".initrdh": bytes(32),
    }  # fmt: skip
    disk.make({**BASE, "/EFI/Linux/a.efi": program(sections=sections)})
    assert [words in said for said in disk.said()] == [True] * bool(words)
    assert words or disk.inspect().steps[-1] == "Linux 6.12.1-test"


@pytest.mark.parametrize("kind", ["-F32", "-F16", "-F12"])
def test_a_label_of_a_fat_is_that_of_its_root_directory(kind: str, tmp_path: Path, toolbox: Toolbox) -> None:
    """The boot sector may have another, or none: udev and GRUB do not look there."""
    path = tmp_path / "fat"
    toolbox.run("mkfs.vfat", "-C", kind, "-s1", "-n", "ESP", path, {"-F32": "34816", "-F16": "8192"}.get(kind, "1024"))
    data = bytearray(path.read_bytes())
    at = data.index(b"ESP        ")
    data[at : at + 11] = b"NO NAME    "
    found = filesystem.probe(Slice(MemoryDisk(bytes(data)), 0, len(data)))
    assert found is not None
    assert (found.type, found.label) == ("vfat", "ESP")


def test_a_disc_with_partitions_is_a_volume_too(disk: Maker, tmp_path: Path) -> None:
    """What is looked for by its label or UUID is the disk as a whole, or an entry of type 00, and it is no CD-ROM."""
    entry = ENTRY.replace(f"UUID={ROOT}".encode(), b"LABEL=LIVE")
    for table in ("gpt", "dos"):
        disk.make({**BASE, CONF: entry}, table=table)
        assert len(disk.said()) == 1
        descriptor = b"\1CD001\1".ljust(40, b"\0") + b"LIVE".ljust(32)
        disk.poke(0x8000, descriptor.ljust(80, b"\0") + struct.pack("<I", 52 * 512))
        found = disk.inspect()
        assert found.breaches == ()
        assert [volume.number for volume in found.volumes] == [1, 2, 0]
        assert not found.disc
    disk.poke(446 + 32, struct.pack("<B3sB3sII", 0x80, bytes(3), 0, bytes(3), 0, 52 * 2048))
    found = disk.inspect()
    assert found.breaches == ()
    assert [(volume.number, volume.type) for volume in found.volumes][2:] == [(3, layout.EMPTY)]
