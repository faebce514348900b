"""Places in the store's erofs, by what is there."""

import mmap
import re
import struct
from pathlib import Path

from vmtests.errors import InputError
from vmtests.image import erofs
from vmtests.image.crc32c import crc32c

SUPERBLOCK = "superblock"
"""The first byte of the superblock."""

ROOT_INODE = "root-inode"
"""The high byte of the mode of the root directory's inode."""

# fs/erofs/erofs_fs.h: magic, block size, number of the root's inode, first block of metadata.
_NUMBERS = struct.Struct("<I8xBxH24xI")
_CHECKSUM, _INCOMPAT = 4, 80
_MODE = 5  # `i_mode` is at byte 4 of both kinds of inode, little-endian
_SLOT_BITS = 5  # an inode's number counts slots of 32 bytes


def place(at: str, disk: Path, start: int, size: int) -> int:
    """Return the byte of `disk` that `at` means: SUPERBLOCK, ROOT_INODE, or a pattern of the partition's bytes.

    `start` and `size` are the partition's, in bytes. Raises InputError when it is not there; a compressed store has
    no text to be found.
    """
    with disk.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if at == SUPERBLOCK:
            return start + erofs.OFFSET
        if at == ROOT_INODE:
            superblock = content[start + erofs.OFFSET : start + erofs.OFFSET + _NUMBERS.size]
            magic, block_bits, root, metadata = _NUMBERS.unpack(superblock)
            if magic != erofs.MAGIC:
                raise InputError("the store partition has no erofs")
            return start + int(metadata << block_bits) + int(root << _SLOT_BITS) + _MODE
        match = re.compile(at.encode(), re.MULTILINE).search(content, start, start + size)
        if match is None:
            raise InputError(f"nothing in the store fits {at!r}", hint="the store must not be compressed")
        return match.start()


def with_feature(block: bytes, incompat: int) -> bytes:
    """Return the first block of an erofs with feature bits added and its checksum made good."""
    changed = bytearray(block)
    (old,) = struct.unpack_from("<I", changed, erofs.OFFSET + _INCOMPAT)
    struct.pack_into("<I", changed, erofs.OFFSET + _INCOMPAT, old | incompat)
    struct.pack_into("<I", changed, erofs.OFFSET + _CHECKSUM, 0)
    # The rest of the first block, the checksum itself being zero (fs/erofs/super.c).
    struct.pack_into("<I", changed, erofs.OFFSET + _CHECKSUM, crc32c(bytes(changed[erofs.OFFSET :])))
    return bytes(changed)
