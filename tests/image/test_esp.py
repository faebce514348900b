"""What is on the ESP: boot sectors, entries, programs, kernels and initrds."""

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmtests.image import cmdline, esp, fat, pe
from vmtests.testing.images import ENTRY, MemoryDisk, kernel, program

WHERE = "partition `ESP` (entry 1)"


def boot_sector(**changes: int) -> MemoryDisk:
    """Return a partition of 128 MiB with a FAT32 boot sector of one sector a cluster."""
    fields = {"size": 512, "cluster": 1, "fats": 2, "fat16": 0, "fat32": 2017, "sectors": 262144, **changes}
    sector = bytearray(512)
    sector[:3] = b"\xeb\x58\x90"
    numbers = (fields["size"], fields["cluster"], 32, fields["fats"], 0, 0, 0xF8, fields["fat16"])
    struct.pack_into("<HBHBHHBH", sector, 11, *numbers)
    struct.pack_into("<II", sector, 32, fields["sectors"], fields["fat32"])
    sector[510:] = b"\x55\xaa"

    class _Partition(MemoryDisk):
        size = 262144 * 512

    return _Partition(bytes(sector))


def sentences(disk: MemoryDisk) -> list[str]:
    """Return the breaches of a boot sector."""
    return [check.sentence for check in esp.check_boot_sector(disk, WHERE) if not check.ok]


def test_the_boot_sector_of_the_good_image_has_no_breach(partition_bytes: Callable[[int], bytes]) -> None:
    """What mkfs.vfat wrote with one sector a cluster is FAT32 for OVMF."""
    sector = fat.parse(partition_bytes(1))
    assert sector is not None
    assert (sector.sector_size, sector.fat32_layout, sector.type) == (512, True, "FAT32")
    assert sentences(boot_sector()) == []


def test_fat32_with_too_few_clusters_is_named() -> None:
    """The number of clusters alone decides the type, so a small FAT32 is read as FAT16."""
    expected = f"FAT32 on {WHERE} has 32259 clusters only, so OVMF reads it as FAT16"
    assert [expected] == sentences(boot_sector(cluster=8))


def test_large_sectors_are_no_fault() -> None:
    """OVMF counts clusters only: of sectors of 4096 bytes too, it starts programs (2022.11 and 2025.02 were tried)."""
    assert sentences(boot_sector(size=4096, sectors=32768, fat32=100)) == [
        f"FAT32 on {WHERE} has 32536 clusters only, so OVMF reads it as FAT16"
    ]


def test_a_file_system_larger_than_its_partition_is_named() -> None:
    """All sectors are in the partition."""
    expected = f"FAT on {WHERE} has 268435456 bytes, but the partition has 134217728"
    assert [expected] == sentences(boot_sector(sectors=524288))


def test_a_zeroed_boot_sector_is_named() -> None:
    """No boot sector, no FAT."""
    assert [f"no FAT boot sector on {WHERE}: it begins with 000000"] == sentences(MemoryDisk(bytes(512)))


@given(st.binary(min_size=510, max_size=510))
def test_a_garbage_boot_sector_is_never_an_exception(content: bytes) -> None:
    """Any fields are checked to the end."""
    assert list(esp.check_boot_sector(MemoryDisk(b"\xeb" + content[1:] + b"\x55\xaa"), WHERE))


def test_an_entry_is_read_by_its_keys() -> None:
    """Comments and unknown keys are left out; options of several lines are one command line."""
    found = esp.parse_entry(ENTRY)
    assert found.title == "Test image"
    assert found.kernel == "/EFI/nixos/kernel.efi"
    assert found.initrds == ("/EFI/nixos/initrd.efi",)
    assert found.options.endswith("/init root=fstab console=tty0 console=ttyS0,115200n8")


@given(st.text(max_size=200))
def test_any_text_is_an_entry(text: str) -> None:
    """Reading an entry never fails."""
    cmdline.values(esp.parse_entry(text).options, "init")


def test_a_command_line_is_split_outside_quotes() -> None:
    """Spaces in double quotes do not end a parameter, and the last value of a parameter is the last."""
    line = 'a="b c" init=/one quiet init=/two'
    assert cmdline.words(line) == ['a="b c"', "init=/one", "quiet", "init=/two"]
    assert cmdline.values(line, "init") == ["/one", "/two"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (program(), None),
        (b"", "it begins with nothing, not with MZ"),
        (b"\x7fELF" + bytes(100), r"it begins with '\x7fELF\x00\x00\x00\x00\x00\x00\x00\x00', not with MZ"),
        (b"not a kernel\n", "it begins with 'not a kernel', not with MZ"),
        (b"MZ" + bytes(100), "it has no PE header"),
        (program(machine=0xAA64), "it is for machine aa64, not 8664 (x86-64)"),
        (program(subsystem=3), "its subsystem is 3, not 10 (EFI application)"),
        (program(magic=0x10B), "its optional header has magic 10b, not 20b (PE32+)"),
        (program()[:0x60], "it ends within its header"),
    ],
)
def test_only_an_efi_application_for_x86_64_is_started(content: bytes, expected: str | None) -> None:
    """The firmware starts PE32+ programs of its own machine with the right subsystem."""
    assert expected == pe.fault(pe.parse(content))


def test_a_kernel_says_its_release() -> None:
    """The version string is where the boot protocol says."""
    found = pe.parse_kernel(kernel("6.1.0-9-cloud"))
    assert found is not None
    assert (found.protocol, found.release, found.version) == ((2, 15), "6.1.0-9-cloud", (6, 1))
    assert pe.parse_kernel(program()) is None


def test_lz4_frames_that_linux_does_not_know_are_no_initrd() -> None:
    """Linux unpacks the legacy frame of lz4 only."""
    assert pe.initrd_format(b"\x02\x21\x4c\x18....") == "lz4"
    assert pe.initrd_format(b"\x04\x22\x4d\x18....") is None
    assert pe.initrd_format(b"\x28\xb5\x2f\xfd....") == "zstd"


@given(st.binary(max_size=1024))
def test_a_garbage_program_is_never_an_exception(content: bytes) -> None:
    """Any bytes are a program or a reason why not."""
    pe.fault(pe.parse(content))
    pe.fault(pe.parse(program()[:0x44] + content))
    pe.parse_kernel(content)
    pe.parse_kernel(kernel()[:0x20E] + content)
