"""The ext4 superblock, on the real one of the good image."""

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmtests.image import ext4
from vmtests.image.crc32c import crc32c
from vmtests.sizes import MIB
from vmtests.testing.images import MemoryDisk

WHERE = "partition `root` (entry 3)"


class _Root(MemoryDisk):
    """A partition of 1 GiB of which only the beginning is there."""

    size = 1024 * MIB


@pytest.fixture
def root(partition_bytes: Callable[[int], bytes]) -> _Root:
    """The first bytes of root."""
    return _Root(partition_bytes(3))


def sentences(disk: MemoryDisk, kernel: tuple[int, int] | None = (6, 12)) -> list[str]:
    """Return the breaches of a root."""
    return [check.sentence for check in ext4.check(disk, WHERE, kernel) if not check.ok]


def patch(disk: MemoryDisk, offset: int, value: bytes) -> None:
    """Change a field of the superblock and make its checksum right."""
    disk.content[1024 + offset : 1024 + offset + len(value)] = value
    disk.content[2044:2048] = struct.pack("<I", crc32c(bytes(disk.content[1024:2044])))


def feature(disk: MemoryDisk, offset: int, bit: int) -> None:
    """Set a feature bit."""
    patch(disk, offset, struct.pack("<I", struct.unpack_from("<I", disk.content, 1024 + offset)[0] | bit))


def test_a_good_root_has_no_breach(root: _Root) -> None:
    """What mkfs.ext4 wrote is right, its checksum included."""
    assert sentences(root) == []
    superblock = ext4.parse(root.read(1024, 1024))
    assert superblock is not None
    assert superblock.label == "root"
    assert superblock.size >= 512 * MIB


def test_a_zeroed_superblock_is_named(root: _Root) -> None:
    """No magic, no file system."""
    root.content[1024:2048] = bytes(1024)
    assert [f"ext4 superblock magic is 0000 on {WHERE}, not EF53"] == sentences(root)


def test_a_flipped_bit_breaks_the_checksum(root: _Root) -> None:
    """The checksum covers the superblock."""
    kept = struct.unpack_from("<I", root.content, 2044)[0]
    root.content[1024 + 0x68] ^= 1
    real = crc32c(bytes(root.content[1024:2044]))
    assert [f"ext4 superblock checksum is {kept:08X} on {WHERE}, not {real:08X}"] == sentences(root)


def test_recorded_errors_are_named(root: _Root) -> None:
    """A file system that met errors is not shipped."""
    patch(root, 0x3A, struct.pack("<H", 3))
    assert [f"ext4 on {WHERE} has recorded errors (0)"] == sentences(root)


def test_a_journal_to_replay_is_worth_a_note(root: _Root) -> None:
    """A disk of a running machine boots: the journal is replayed."""
    feature(root, 0x60, 0x4)
    assert sentences(root) == []
    notes = [check.sentence for check in ext4.check(root, WHERE, None) if check.sentence]
    assert [f"ext4 on {WHERE} was not unmounted; its journal is replayed at boot"] == notes


def test_an_unclean_root_is_named(root: _Root) -> None:
    """Neither clean nor a journal to replay: e2fsck is due."""
    patch(root, 0x3A, bytes(2))
    assert [f"ext4 on {WHERE} is not clean and has no journal"] == sentences(root)


def test_a_root_that_is_larger_than_its_partition_is_named(root: _Root) -> None:
    """All blocks are in the partition."""
    patch(root, 0x4, struct.pack("<I", 1 << 20))
    expected = f"ext4 on {WHERE} has {1 << 32} bytes, but the partition has {1 << 30}"
    assert [expected] == sentences(root)


def test_a_feature_is_held_against_the_kernel(root: _Root) -> None:
    """A feature is a breach for kernels that are older than it."""
    feature(root, 0x64, 0x10000)
    expected = f"ext4 on {WHERE} has orphan_present, since Linux 5.15; the image's kernel is 5.10"
    assert [expected] == sentences(root, (5, 10))
    assert sentences(root, (5, 15)) == []


def test_an_unknown_feature_is_named(root: _Root) -> None:
    """A bit that nobody knows is no bit to boot with."""
    feature(root, 0x60, 0x80000000)
    assert [f"ext4 on {WHERE} has unknown features: incompat bits 0x80000000"] == sentences(root)


def test_a_read_only_root_is_named(root: _Root) -> None:
    """Root is written to."""
    feature(root, 0x64, 0x1000)
    assert [f"ext4 on {WHERE} is marked read-only; root must be writable"] == sentences(root)


@given(st.binary(min_size=1024, max_size=1024))
def test_garbage_is_never_an_exception(content: bytes) -> None:
    """Any bytes around the magic are checked to the end."""
    disk = MemoryDisk(bytes(1024) + content[:0x38] + b"\x53\xef" + content[0x3A:])
    assert list(ext4.check(disk, WHERE, (6, 1)))
    assert list(ext4.check(MemoryDisk(content), WHERE, None))
