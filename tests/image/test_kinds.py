"""Kinds of disks that were judged wrongly at first sight: what firmware, loader and Linux make of them."""

import struct
import time
import zlib
from pathlib import Path

import pytest

from tests.image.test_chain import BOOT, CPIO, ENTRY, GRUB, MENU, ROOT, SHIM, Maker
from vmtests.causes import Cause
from vmtests.host.tools import Toolbox
from vmtests.image import fat, features, filesystem, pe
from vmtests.image.check import Check, Slice
from vmtests.sizes import MIB
from vmtests.testing.images import MemoryDisk, kernel, program

FALLBACK, CONF = "/EFI/BOOT/BOOTX64.EFI", "/loader/entries/a.conf"
BASE = {FALLBACK: BOOT, CONF: ENTRY, "/vmlinuz": kernel(), "/initrd": CPIO}
OTHER = "99999999-2222-4333-8444-555555555555"
RELEASE = b"ID=appliance\nVERSION_ID="


@pytest.fixture
def disk(tmp_path: Path, toolbox: Toolbox) -> Maker:
    """Makes a disk."""
    return Maker(tmp_path, toolbox)


def _unified(line: str, version: bytes = b"1", release: bytes = RELEASE) -> bytes:
    sections = {".osrel": release + version + b"\n", ".cmdline": line.encode(), ".initrd": CPIO, ".linux": kernel()}
    return program(sections=sections)


def _for_arm(data: bytes) -> bytes:
    (start,) = struct.unpack_from("<I", data, 0x3C)
    return data[: start + 4] + (0xAA64).to_bytes(2, "little") + data[start + 6 :]


LINE = f"root=UUID={ROOT} console=ttyS0"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"/EFI/Linux/a-9.efi": _unified(LINE), "/EFI/Linux/b-10.efi": _for_arm(_unified("", b"10"))}, ""),
        ({"/EFI/Linux/a.efi": _unified(LINE, b"", b"HOME_URL=x\nX=")}, "has no ID, NAME, IMAGE_ID or PRETTY_NAME"),
        (
            {
                "/EFI/Linux/a.efi": _unified(f"root=UUID={OTHER}"),
                "/EFI/Linux/a.efi.extra.d/x.addon.efi": program(sections={".cmdline": LINE.encode()}),
            },
            "",
        ),
        (
            {
                "/EFI/Linux/a.efi": _unified(LINE),
                "/loader/addons/x.addon.efi": program(sections={".cmdline": f"root=UUID={OTHER}".encode()}),
            },
            "leads nowhere",
        ),
        ({CONF: b"uki /k.efi\n", "/k.efi": _unified(LINE)}, "says `uki`, which systemd-boot 257 does not know"),
    ],
    ids=["of another machine", "without a name", "addon of its own", "addon of all", "uki before 258"],
)
def test_a_unified_kernel_is_taken_as_systemd_takes_it(files: dict[str, bytes], words: str, disk: Maker) -> None:
    """One that it leaves out is not the one that starts, and addons have the last word on the command line."""
    disk.make({FALLBACK: BOOT, **files})
    said = disk.inspect()
    assert [words in str(check) for check in said.breaches] == [True] * bool(words)
    assert words or not any("no console" in str(check) for check in said.checks)


def test_sections_of_the_first_profile_take_the_place_of_the_common_ones() -> None:
    """A unified kernel image has what all profiles share first, and then theirs, one after the other."""
    sections = {".cmdline": b"base", ".linux": b"k", ".profile": b"ID=a", ".cmdlinX": b"first"}
    data = program(sections=sections).replace(b".cmdlinX", b".cmdline")
    found = pe.parse(data)
    assert isinstance(found, pe.Program)
    line = found.sections[".cmdline"]
    assert data[line.offset :][:5] == b"first"
    assert found.is_uki


def test_a_base_with_profiles_joined_to_it_starts_as_itself() -> None:
    """Ukify 257 puts an empty profile, ID=main, behind the base, then those of --join-profile=: the first starts."""
    sections = {
        ".cmdline": b"base", ".linux": b"k", ".initrd": b"i", ".sbat": b"s",
        ".profile": b"ID=main", ".profilX": b"ID=p0", ".cmdlinX": b"other",
    }  # fmt: skip
    data = program(sections=sections).replace(b".cmdlinX", b".cmdline").replace(b".profilX", b".profile")
    found = pe.parse(data)
    assert isinstance(found, pe.Program)
    lines = {name: data[place.offset :][: place.size] for name, place in found.sections.items()}
    assert (lines[".cmdline"][:5].rstrip(b"\0"), lines[".profile"][:7]) == (b"base", b"ID=main")


def test_brackets_in_a_name_are_no_pattern(disk: Maker) -> None:
    """Mtools reads them as a set of characters, firmware and loaders do not."""
    name = "/Linux [1] (a+b), c=d;e~1"
    good = {FALLBACK: BOOT, "/initrd": CPIO, name: kernel(), "/Linux 1 (a+b), c=d;e~1": b"not this one"}
    disk.make({**good, CONF: ENTRY.replace(b"linux /vmlinuz", f"linux {name}".encode())})
    assert disk.said() == []
    disk.make({**good, "/x]y[": kernel(), CONF: ENTRY.replace(b"linux /vmlinuz", b"linux /x]y[")})
    assert disk.said() == []


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"/vmlinuz": b"\xea\x05" + kernel()[2:]}, "is no EFI program"),
        (
            {FALLBACK: program(sections={".text": b"SYSLINUX"}), "/EFI/BOOT/syslinux.cfg": b"x"},
            "does not find ldlinux",
        ),
        (
            {
                FALLBACK: SHIM,
                "/EFI/BOOT/grubx64.efi": BOOT,
                "/EFI/BOOT/fbx64.efi": BOOT,
                "/EFI/a/shimx64.efi": SHIM,
                "/EFI/a/BOOTX64.CSV": "shimx64.efi,a,,x\n".encode("utf-16"),
            },
            "shim finds no /EFI/a/grubx64.efi",
        ),
    ],
    ids=["a kernel without EFI's stub", "SYSLINUX alone", "shim's fallback goes first"],
)
def test_a_program_that_would_not_go_on_is_named(files: dict[str, bytes], words: str, disk: Maker) -> None:
    """What firmware or loader does not start is a breach, whatever lies beside it."""
    disk.make({**BASE, **files})
    (said,) = disk.said()
    assert words in said


@pytest.mark.parametrize(
    ("fstab", "words"),
    [
        (f"UUID={OTHER} /var ext4 defaults 0 2\n", "systemd waits for it"),
        (f"UUID={OTHER} /var ext4 nofail 0 2\nUUID={OTHER} none swap sw\n# x\nUUID={ROOT.upper()} / ext4 rw\n", ""),
    ],
)
def test_a_line_of_fstab_that_nothing_fits_is_named(fstab: str, words: str, disk: Maker) -> None:
    """Systemd ends in its emergency mode for it, unless it is told that the boot may go on."""
    disk.make(BASE, {"/etc/fstab": fstab.encode(), "/usr/lib/systemd/systemd": b"x"})
    assert [words in said for said in disk.said()] == [True] * bool(words)


def test_a_configuration_of_empty_lines_is_read_at_once(disk: Maker) -> None:
    """Blanks before a word are those of its line."""
    disk.make({**BASE, FALLBACK: program(sections={".text": b"SYSLINUX"}), "/EFI/BOOT/ldlinux.e64": b"x",
               "/EFI/BOOT/syslinux.cfg": b"\n" * (256 << 10)})  # fmt: skip
    began = time.process_time()
    disk.inspect()
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("kind", "end", "magic"),
    [
        ("linux_raid_member", MIB - (MIB // 512 - 16) // 8 * 8 * 512, b"\xfc\x4e\x2b\xa9\1\0\0\0"),
        ("drbd", 4096 - 60, b"\x83\x74\x02\x6d"),
        ("ddf_raid_member", 512, b"\xde\x11\xde\x11"),
        ("isw_raid_member", 1024, b"Intel Raid ISM Cfg Sig. 1.1"),
    ],
)
def test_a_file_system_of_an_array_with_its_superblock_at_the_end_is_seen(kind: str, end: int, magic: bytes) -> None:
    """An ESP is mirrored so: firmware sees a FAT, and udev a member of an array; DRBD replicates a root so."""
    data = bytearray(MIB)
    data[0], data[510:512], data[82:90] = 0xEB, b"\x55\xaa", b"FAT32   "
    struct.pack_into("<HBHBHHBH", data, 11, 512, 1, 32, 2, 0, 0, 0xF8, 0)
    struct.pack_into("<II", data, 32, 2000, 10)
    data[MIB - end : MIB - end + len(magic)] = magic
    found = filesystem.probe(Slice(MemoryDisk(bytes(data)), 0, MIB))
    assert found is not None
    assert found.inner is not None
    assert (found.type, found.inner.type) == (kind, "vfat")


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (21, b"\xe5", "media type 0xe5"),
        (40, b"\x81", "mirroring"),
        (43, b"\1", "version 1.0"),
        (0, b"\x90", "clusters"),
    ],
)
def test_a_fat_that_firmware_does_not_mount_says_why(place: int, value: bytes, words: str) -> None:
    """EDK2 looks at more than mtools and Linux do, and not at the jump in front."""
    data = bytearray(512)
    data[0], data[510:512], data[82:90] = 0xEB, b"\x55\xaa", b"FAT32   "
    struct.pack_into("<HBHBHHBH", data, 11, 512, 1, 32, 2, 0, 0, 0xF8, 0)
    struct.pack_into("<II", data, 32, 2000 if place == 0 else 80000, 600)
    data[place : place + 1] = value
    found = fat.parse(bytes(data))
    assert found is not None
    assert words in found.unread


@pytest.mark.parametrize(
    ("bit", "kernel_version", "words"),
    [
        (0x100, (6, 12), "has metadir, since Linux 6.13"),
        (0x100, (6, 13), ""),
        (0x100, None, ""),
        (0x10, None, "repaired"),
        (1 << 30, None, "unknown"),
    ],
)
def test_an_xfs_is_held_against_the_kernel_that_mounts_it(
    bit: int, kernel_version: tuple[int, int] | None, words: str
) -> None:
    """A feature that it does not know keeps it from mounting, and so does one that asks for a repair."""
    data = bytearray(4096)
    data[:4], data[100:102] = b"XFSB", b"\xb4\xa5"
    struct.pack_into(">I", data, 216, 0x3 | bit)
    found: list[Check] = list(features.check(Slice(MemoryDisk(bytes(data)), 0, 4096), "xfs", "x", kernel_version))
    assert [words in str(check) for check in found] == [True] * bool(words)


def test_damage_to_what_is_not_root_is_no_breach(disk: Maker) -> None:
    """Nothing waits for a partition that no one asks for; that of root is one."""
    disk.make(BASE)
    disk.poke(34 * MIB + 1024 + 0x60 + 2, b"\x88")
    assert any("unknown features" in said for said in disk.said())
    disk.make({**BASE, CONF: ENTRY.replace(f"UUID={ROOT}".encode(), b"PARTLABEL=boot")})
    disk.poke(34 * MIB + 1024 + 0x60 + 2, b"\x88")
    assert disk.said() == []


def test_a_gpt_whose_entries_linux_does_not_take_has_no_root(disk: Maker) -> None:
    """Firmware reads entries of 256 bytes, Linux those of 128 only."""
    disk.make(BASE)
    data = disk.path.read_bytes()
    table = b"".join(data[1024 + at : 1152 + at].ljust(256, b"\0") for at in range(0, 8192, 128))
    disk.poke(1024, table)
    header = bytearray(data[512:604])
    struct.pack_into("<III", header, 80, 64, 256, zlib.crc32(table))
    struct.pack_into("<I", header, 16, 0)
    struct.pack_into("<I", header, 16, zlib.crc32(bytes(header)))
    disk.poke(512, bytes(header))
    assert any("Linux ignores the GPT: its entries have 256 bytes" in said for said in disk.said())


def test_a_gpt_that_is_left_under_an_mbr_counts_for_nothing(disk: Maker) -> None:
    """Firmware and Linux look for a GPT only where an entry of the MBR says that there is one."""
    disk.make(BASE)
    entries = [
        struct.pack("<4xB3xII", kind, start * 2048, size * 2048)
        for kind, start, size in ((0xEF, 1, 33), (0x83, 34, 16))
    ]
    disk.poke(446, b"".join(entries).ljust(64, b"\0"))
    said = disk.inspect()
    assert said.breaches == ()
    assert any("a GPT is left from before" in str(check) for check in said.checks)


def test_a_partition_that_ends_beyond_the_disk_is_none(disk: Maker) -> None:
    """Linux makes no device of it, so its file system is not found."""
    disk.make(BASE)
    data = bytearray(disk.path.read_bytes())
    struct.pack_into("<Q", data, 1024 + 128 + 40, 1 << 30)
    for at in (512, len(data) - 512):
        entries = struct.unpack_from("<Q", data, at + 72)[0] * 512
        struct.pack_into("<Q", data, entries + 128 + 40, 1 << 30)
        struct.pack_into("<I", data, at + 88, zlib.crc32(data[entries : entries + 128 * 128]))
        struct.pack_into("<I", data, at + 16, 0)
        struct.pack_into("<I", data, at + 16, zlib.crc32(data[at : at + 92]))
    disk.path.write_bytes(data)
    assert any(f"root=UUID={ROOT}" in said and "leads nowhere" in said for said in disk.said())


def test_menu_that_is_forced_waits(disk: Maker) -> None:
    """It is no breach: somebody may press the key."""
    disk.make({**BASE, "/loader/loader.conf": b"timeout menu-force\n"})
    said = disk.inspect()
    assert said.breaches == ()
    assert any(check.cause is Cause.BOOT_MENU for check in said.checks)


@pytest.mark.parametrize(
    "way",
    ["set root=(hd0,gpt2)", "set root='hd0,gpt2'", "search --no-floppy --set root --fs-uuid {}",
     "search --fs-uuid --set root {}"],
)  # fmt: skip
def test_grub_finds_its_kernel_where_root_was_set(disk: Maker, way: str) -> None:
    """By a partition's number, or by `search` in each of its forms; what is on no disk of ours is not judged."""
    menu = MENU.replace(f"search --no-floppy --fs-uuid --set=root {ROOT}", way.format(ROOT))
    root = {"/boot/vmlinuz": kernel(), "/boot/initrd": CPIO}
    disk.make({FALLBACK: GRUB, "/EFI/BOOT/grub.cfg": menu.encode()}, root)
    assert disk.said() == []
    assert disk.inspect().steps[-1] == "Linux 6.12.1-test"
    elsewhere = menu.replace(way.format(ROOT), "set root=(hd1,gpt2)").encode()
    disk.make({FALLBACK: GRUB, "/EFI/BOOT/grub.cfg": elsewhere})
    assert disk.said() == []
    assert any("the kernel is on hd1,gpt2, which is not followed" in str(check) for check in disk.inspect().checks)


def test_a_root_by_a_name_that_is_not_read_is_not_called_missing(disk: Maker) -> None:
    """Of some file systems neither UUID nor label is read here; udev knows them."""
    entry = ENTRY.replace(ROOT.encode(), b"aaaaaaaa-0000-4000-8000-000000000000")
    disk.make({**BASE, CONF: entry})
    assert any("leads nowhere" in said for said in disk.said())
    with disk.path.open("r+b") as file:
        start = 34 * MIB
        file.seek(start + 1024)
        file.write(bytes(1024))
        file.seek(start + 0x8000)
        file.write(b"JFS1")
    assert disk.inspect().volumes[1].system is not None
    assert not any("leads nowhere" in said for said in disk.said())


@pytest.mark.parametrize("root", ["/dev/sda" + "7" * 5000, "/dev/sda²"])
def test_a_root_of_digits_without_end_is_no_number(disk: Maker, root: str) -> None:
    """What cannot be a partition's number is not taken for one."""
    disk.make({**BASE, CONF: ENTRY.replace(f"UUID={ROOT}".encode(), root.encode())})
    disk.inspect()
