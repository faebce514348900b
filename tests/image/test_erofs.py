"""The erofs superblock, on the real one of the good image."""

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmtests.image import erofs
from vmtests.image.crc32c import crc32c
from vmtests.testing.images import MemoryDisk

WHERE = "partition `nix-store` (entry 2)"
PartitionBytes = Callable[[int], bytes]


@pytest.fixture
def store(partition_bytes: PartitionBytes) -> MemoryDisk:
    """The first bytes of the store."""
    return MemoryDisk(partition_bytes(2))


def sentences(disk: MemoryDisk, kernel: tuple[int, int] | None = (6, 12)) -> list[str]:
    """Return the breaches of a store."""
    return [check.sentence for check in erofs.check(disk, WHERE, kernel) if not check.ok]


def patch(disk: MemoryDisk, offset: int, value: bytes) -> None:
    """Change a field of the superblock and make its checksum right."""
    disk.content[1024 + offset : 1024 + offset + len(value)] = value
    disk.content[1028:1032] = bytes(4)
    disk.content[1028:1032] = struct.pack("<I", crc32c(bytes(disk.content[1024:4096])))


def test_crc32c_is_castagnolis() -> None:
    """The check value of CRC-32C (RFC 3720) is right once the end is inverted."""
    assert crc32c(b"123456789") ^ 0xFFFFFFFF == 0xE3069283


def test_a_good_store_has_no_breach(store: MemoryDisk) -> None:
    """What mkfs.erofs wrote is right, its checksum included."""
    assert sentences(store) == []
    superblock = erofs.parse(store.read(1024, 128))
    assert superblock is not None
    assert superblock.has_checksum
    assert (superblock.block_bits, superblock.volume_name) == (12, "nix-store")


def test_a_zeroed_superblock_is_named(store: MemoryDisk) -> None:
    """No magic, no file system."""
    store.content[1024:1152] = bytes(128)
    assert [f"erofs superblock magic is 00000000 on {WHERE}"] == sentences(store)


def test_a_partition_that_is_too_short_has_no_superblock() -> None:
    """Nothing is read beyond the end."""
    assert [f"erofs superblock magic is missing on {WHERE}"] == sentences(MemoryDisk(bytes(1030)))


def test_a_flipped_bit_breaks_the_checksum(store: MemoryDisk) -> None:
    """The checksum covers the first block."""
    kept = struct.unpack_from("<I", store.content, 1028)[0]
    store.content[1024 + 48] ^= 1
    real = crc32c(bytes(store.content[1024:1028]) + bytes(4) + bytes(store.content[1032:4096]))
    assert [f"erofs superblock checksum is {kept:08X} on {WHERE}, not {real:08X}"] == sentences(store)


def test_a_store_that_is_larger_than_its_partition_is_named(store: MemoryDisk) -> None:
    """All blocks are in the partition."""
    patch(store, 36, struct.pack("<I", 100))
    assert [f"erofs on {WHERE} has 409600 bytes, but the partition has 16384"] == sentences(store)


@pytest.mark.parametrize(
    ("bit", "name", "since"),
    [(0x10, "ztailpacking", (5, 17)), (0x20, "fragments, dedupe", (6, 1)), (0x80, "48bit", (6, 15))],
)
def test_a_feature_is_held_against_the_kernel(store: MemoryDisk, bit: int, name: str, since: tuple[int, int]) -> None:
    """A feature is a breach for kernels that are older than it, and for no other."""
    patch(store, 80, struct.pack("<I", bit))
    patch(store, 14, bytes(2))
    older = (since[0], since[1] - 1)
    old, new = (".".join(map(str, version)) for version in (older, since))
    expected = f"erofs on {WHERE} has feature {name}, since Linux {new}; the image's kernel is {old}"
    assert [expected] == sentences(store, older)
    assert sentences(store, since) == []
    assert sentences(store, None) == []


def test_a_compression_is_held_against_the_kernel(store: MemoryDisk) -> None:
    """A kernel must have the algorithm that the store is compressed with."""
    patch(store, 80, struct.pack("<IH", 0x2, 0x8))
    expected = f"erofs on {WHERE} has compression zstd, since Linux 6.10; the image's kernel is 6.6"
    assert [expected] == sentences(store, (6, 6))


def test_an_unknown_feature_is_named(store: MemoryDisk) -> None:
    """A bit that nobody knows is no bit to boot with."""
    patch(store, 80, struct.pack("<I", 0x40000000))
    assert [f"erofs on {WHERE} has unknown features: incompat bits 0x40000000"] == sentences(store)


def test_blocks_are_no_larger_than_a_page(store: MemoryDisk) -> None:
    """x86 does not mount larger blocks."""
    patch(store, 12, b"\x10")
    assert [f"erofs on {WHERE} has blocks of 2^16 bytes; x86 mounts 2^9 to 2^12"] == sentences(store)


def test_more_devices_are_named(store: MemoryDisk) -> None:
    """A store is whole in its partition."""
    patch(store, 86, struct.pack("<H", 2))
    assert [f"erofs on {WHERE} wants 2 more devices"] == sentences(store)


@given(st.binary(max_size=300))
def test_garbage_is_never_an_exception(content: bytes) -> None:
    """Any bytes behind the magic are checked to the end."""
    disk = MemoryDisk(bytes(1024) + struct.pack("<I", erofs.MAGIC) + content)
    assert list(erofs.check(disk, WHERE, (6, 1)))
    assert list(erofs.check(MemoryDisk(content), WHERE, None))
