"""Reading and checking partition tables, on disks in memory."""

import struct
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmtests.image import gpt
from vmtests.testing.images import ALL_SECTOR_SIZES, LINUX, MemoryDisk, entry, table


def sentences(disk: MemoryDisk, size: int = 512) -> list[str]:
    """Return the breaches of a disk's table."""
    return [check.sentence for check in gpt.read(disk, size).checks if not check.ok]


def reseal(disk: MemoryDisk, place: int = 512) -> None:
    """Make a header's checksum right again."""
    disk.content[place + 16 : place + 20] = bytes(4)
    crc = zlib.crc32(disk.content[place : place + 92])
    struct.pack_into("<I", disk.content, place + 16, crc)


@pytest.fixture
def disk() -> MemoryDisk:
    """A disk of 4096 sectors with two partitions."""
    return table([entry(LINUX, 100, 199, "one"), entry(LINUX, 200, 299, "two")])


@pytest.mark.parametrize("size", ALL_SECTOR_SIZES)
def test_a_good_table_has_no_breach(size: int) -> None:
    """A table by the specification is read whole, whatever the sector size."""
    disk = table([entry(LINUX, 100, 199, "one"), entry(LINUX, 200, 299, "two")], size=size)
    found = gpt.read(disk, size)
    assert gpt.sector_size(disk) == size
    assert [check.sentence for check in found.checks if check.sentence] == []
    assert [item.label for item in found.entries] == ["one", "two"]
    assert (100 * size, 100 * size) == (found.start(found.entries[0]), found.length(found.entries[0]))


def test_a_zeroed_primary_header_is_named_and_the_backup_is_used(disk: MemoryDisk) -> None:
    """Without a primary header the entries are those of the backup."""
    disk.content[512:1024] = bytes(512)
    expected = "primary GPT header: signature is 0000000000000000, not 'EFI PART'; the backup is good"
    assert [expected] == sentences(disk)
    assert [item.label for item in gpt.read(disk, 512).entries] == ["one", "two"]
    assert gpt.sector_size(disk) == 512


def test_a_zeroed_backup_header_is_named(disk: MemoryDisk) -> None:
    """The backup is checked even where the primary is good."""
    disk.content[-512:] = bytes(512)
    assert sentences(disk) == ["backup GPT header: signature is 0000000000000000, not 'EFI PART'; the primary is good"]


def test_entries_beyond_the_disk_are_named(disk: MemoryDisk) -> None:
    """An array that is not on the disk is a fault of its copy, also where the checksum is that of nothing."""
    struct.pack_into("<Q", disk.content, 512 + 72, 1 << 40)
    struct.pack_into("<I", disk.content, 512 + 88, 0)
    reseal(disk)
    place = "its 128 entries, from sector 1099511627776 on, lie beyond the end of the disk"
    assert sentences(disk) == [f"primary GPT header: {place}; the backup is good"]


def test_two_bad_headers_leave_no_entries(disk: MemoryDisk) -> None:
    """With both headers gone each is named, and nothing is made up."""
    disk.content[512:1024] = disk.content[-512:] = bytes(512)
    bad = "signature is 0000000000000000, not 'EFI PART'; the"
    assert [
        f"primary GPT header: {bad} backup is bad too",
        f"backup GPT header: {bad} primary is bad too",
    ] == sentences(disk)
    assert gpt.read(disk, 512).entries == ()


def test_a_flipped_bit_of_the_header_breaks_its_checksum(disk: MemoryDisk) -> None:
    """The header's checksum covers the header."""
    good = struct.unpack_from("<I", disk.content, 528)[0]
    disk.content[512 + 57] ^= 1
    real = zlib.crc32(disk.content[512:528] + bytes(4) + disk.content[532:604])
    assert [
        (f"primary GPT header: checksum is {good:08X}, but the header's content gives {real:08X}; the backup is good")
    ] == sentences(disk)


def test_a_flipped_bit_of_the_entries_breaks_their_checksum(disk: MemoryDisk) -> None:
    """The array's checksum covers the entries, and the good copy is used."""
    disk.content[1024 + 56] ^= 1
    (found,) = sentences(disk)
    assert found.startswith("primary GPT header: checksum of the entries is ")
    assert found.endswith("; the backup is good")
    assert gpt.read(disk, 512).entries[0].label == "one"


@pytest.mark.parametrize(
    ("offset", "value", "expected"),
    [
        (8, struct.pack("<I", 0x20000), "revision is 00020000, not 00010000"),
        (12, struct.pack("<I", 4), "header size is 4, not between 92 and 512"),
        (24, struct.pack("<Q", 7), "it says it is in sector 7, but it is in 1"),
        (80, struct.pack("<II", 1 << 31, 128), "2147483648 entries of 128 bytes are no table"),
        (84, struct.pack("<I", 100), "128 entries of 100 bytes are no table"),
        (48, struct.pack("<Q", 9999), "usable sectors 34-9999 are not on the disk of 4096 sectors"),
    ],
)
def test_a_field_that_cannot_be_is_named(disk: MemoryDisk, offset: int, value: bytes, expected: str) -> None:
    """Fields are checked even where the checksum is right."""
    disk.content[512 + offset : 512 + offset + len(value)] = value
    reseal(disk)
    assert [f"primary GPT header: {expected}; the backup is good"] == sentences(disk)


def test_a_missing_protective_mbr_is_named(disk: MemoryDisk) -> None:
    """Without a partition of type EE the disk does not say that it has a GPT."""
    disk.content[450] = 0x83
    expected = "there is no protective MBR: partition types in the first sector are 83, not EE"
    assert [expected] == sentences(disk)


def test_partitions_that_overlap_are_named() -> None:
    """A sector belongs to one partition."""
    disk = table([entry(LINUX, 200, 299, "two"), entry(LINUX, 100, 200, "one")])
    assert sentences(disk) == ["partitions `one` (entry 2) and `two` (entry 1) overlap from sector 200"]


def test_a_partition_inside_another_is_an_overlap() -> None:
    """Overlaps are found behind a smaller partition too."""
    disk = table([entry(LINUX, 100, 500, "a"), entry(LINUX, 150, 160, "b"), entry(LINUX, 400, 600, "c")])
    assert sentences(disk) == [
        "partitions `a` (entry 1) and `b` (entry 2) overlap from sector 150",
        "partitions `a` (entry 1) and `c` (entry 3) overlap from sector 400",
    ]


def test_a_partition_on_the_table_is_named() -> None:
    """Partitions keep off the sectors of the table."""
    disk = table([entry(LINUX, 20, 199, "one")])
    expected = "partition `one` (entry 1) has sectors 20-199; those that may be used are 34-4062"
    assert [expected] == sentences(disk)


def test_a_partition_that_ends_before_it_begins_is_named() -> None:
    """A partition has at least one sector."""
    disk = table([entry(LINUX, 300, 200, "one")])
    assert sentences(disk) == ["partition `one` (entry 1) ends before it begins: sectors 300-200"]


def test_a_guid_is_used_once() -> None:
    """The unique GUID of a partition is unique."""
    disk = table([entry(LINUX, 100, 199, "one", 5), entry(LINUX, 200, 299, "two", 5)])
    assert sentences(disk) == [
        "partition `two` (entry 2) has the unique GUID 00000000-0000-0000-0000-000000000005 of entry 1"
    ]


def test_a_backup_that_is_not_at_the_end_is_worth_a_note(disk: MemoryDisk) -> None:
    """A disk that was made larger is no fault."""
    disk.content += bytes(512 * 100)
    notes = [check.sentence for check in gpt.read(disk, 512).checks if check.sentence]
    assert notes == ["the backup GPT is in sector 4095, the disk ends with 4195"]
    assert sentences(disk) == []


def test_copies_that_differ_are_named(disk: MemoryDisk) -> None:
    """Two good copies say the same."""
    other = table([entry(LINUX, 100, 199, "one")])
    disk.content[-33 * 512 :] = other.content[-33 * 512 :]
    assert sentences(disk) == ["the entries of the backup GPT are not those of the primary GPT"]


def test_a_hostile_label_is_escaped() -> None:
    """No byte of a label reaches a terminal as it is."""
    disk = table([entry(LINUX, 300, 200, "\x1b[2J\u202e\ud800")])
    (found,) = sentences(disk)
    assert "partition `\\x1b[2J\\u202e" in found
    assert found.isprintable()


def test_the_sectors_that_a_table_claims_tell_a_truncated_disk(disk: MemoryDisk) -> None:
    """The primary header knows where the disk ends."""
    assert gpt.claimed_sectors(disk, 512) == 4096
    disk.content[512] = 0
    disk.content[530] ^= 1
    assert gpt.claimed_sectors(disk, 512) is None


@given(st.binary(max_size=6000), st.sampled_from(ALL_SECTOR_SIZES))
def test_garbage_is_never_an_exception(content: bytes, size: int) -> None:
    """Any bytes give a table, if one without entries."""
    disk = MemoryDisk(content)
    gpt.sector_size(disk)
    gpt.mbr_types(disk)
    gpt.claimed_sectors(disk, size)
    assert gpt.read(disk, size).checks


@given(st.lists(st.tuples(st.integers(0, 20000), st.binary(min_size=1, max_size=8)), max_size=6))
def test_a_damaged_table_is_never_an_exception(damage: list[tuple[int, bytes]]) -> None:
    """Whatever is written over a table, reading it ends well."""
    disk = table([entry(LINUX, 100, 199, "one"), entry(LINUX, 200, 299, "two")])
    for offset, data in damage:
        disk.content[offset : offset + len(data)] = data
        if offset >= 512:
            reseal(disk)
    size = gpt.sector_size(disk)
    assert gpt.read(disk, size or 512).checks


def test_firmware_makes_no_device_of_what_overlaps_or_lies_outside() -> None:
    """Linux takes such entries, and EDK2 does not; nor those that say so themselves."""
    parts = [(100, 199), (150, 160), (200, 299), (1, 90), (300, 399)]
    disk = table([entry(LINUX, first, last, "x", number + 1) for number, (first, last) in enumerate(parts)])
    found = gpt.read(disk, 512)
    own = replace(found.entries[4], attributes=2)
    unseen = gpt.unseen_by_firmware(replace(found, entries=(*found.entries[:4], own)))
    assert unseen == {
        1: "it overlaps partition 2",
        2: "it overlaps partition 1",
        4: "it is not on the sectors that partitions may use",
        5: "it has the attribute 1, no block IO protocol",
    }
