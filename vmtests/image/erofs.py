"""The erofs superblock (fs/erofs/erofs_fs.h, fs/erofs/super.c of Linux 6.17)."""

import struct
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vmtests.causes import Cause
from vmtests.image.check import Check, Readable, Version, Word, breach, passed
from vmtests.image.crc32c import crc32c
from vmtests.sizes import format_size

OFFSET = 1024
MAGIC = 0xE0F5E1E2

SIZE = 128
"""Bytes of a superblock."""
_SUPERBLOCK = struct.Struct("<IIIBBHQQIIII16s16sIHHHBBIQ")
_COMPAT_CHECKSUM, _COMPAT_MTIME = 0x1, 0x2
_INCOMPAT_COMPR_CFGS = 0x2
_INCOMPAT_48BIT = 0x80
_PAGE_BITS = 12  # x86 has pages of 4096 bytes, and larger blocks do not mount

INCOMPAT: Mapping[int, tuple[str, Version]] = {
    0x001: ("lz4_0padding", (5, 3)),
    0x002: ("compr_cfgs, big_pcluster", (5, 13)),
    0x004: ("chunked_file", (5, 15)),
    0x008: ("device_table, compr_head2", (5, 16)),
    0x010: ("ztailpacking", (5, 17)),
    0x020: ("fragments, dedupe", (6, 1)),
    0x040: ("xattr_prefixes", (6, 4)),
    0x080: ("48bit", (6, 15)),
    0x100: ("metabox", (6, 17)),
}
"""Feature bits without which a kernel refuses to mount: name, and the first Linux that knows it.

Names as in EROFS_FEATURE_INCOMPAT_*; versions by mkfs.erofs(1) and the release whose erofs_fs.h has the bit
first. Two features share a bit where they came together.
"""

ALGORITHMS: Mapping[int, tuple[str, Version]] = {
    0x1: ("lz4", (5, 3)),
    0x2: ("lzma", (5, 16)),
    0x4: ("deflate", (6, 6)),
    0x8: ("zstd", (6, 10)),
}
"""Compression algorithms (Z_EROFS_COMPRESSION_*): name, and the first Linux that has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Superblock:
    """The superblock of an erofs; `blocks` counts blocks of `1 << block_bits` bytes."""

    magic: int
    checksum: int
    feature_compat: int
    feature_incompat: int
    block_bits: int
    inodes: int
    blocks: int
    uuid: uuid.UUID
    volume_name: str
    algorithms: int
    extra_devices: int
    directory_bits: int
    packed: bool
    """Whether one more inode holds the ends of all files (mkfs.erofs(1), fragments)."""

    @property
    def has_checksum(self) -> bool:
        """Whether the superblock is protected by a checksum."""
        return bool(self.feature_compat & _COMPAT_CHECKSUM)

    @property
    def size(self) -> int:
        """The size of the file system in bytes."""
        return self.blocks << self.block_bits


def parse(data: bytes) -> Superblock | None:
    """Return the superblock in `data`, which begins at OFFSET; None where it is too short to be one."""
    if len(data) < SIZE:
        return None
    fields = _SUPERBLOCK.unpack_from(data)
    magic, checksum, compat, bits, _, low16, inodes, _, _, blocks = fields[:10]
    identifier, name, incompat, algorithms, devices, _, directory_bits = fields[12:19]
    packed_inode = fields[21]
    return Superblock(
        magic=magic,
        checksum=checksum,
        feature_compat=compat,
        feature_incompat=incompat,
        block_bits=bits,
        inodes=inodes,
        # With 48-bit addresses the field of the root's number holds the upper half of the count.
        blocks=blocks | (low16 << 32 if incompat & _INCOMPAT_48BIT else 0),
        uuid=uuid.UUID(bytes=identifier),
        volume_name=name.split(b"\0", 1)[0].decode("utf-8", errors="replace"),
        algorithms=algorithms if incompat & _INCOMPAT_COMPR_CFGS else 0,
        extra_devices=devices,
        directory_bits=directory_bits,
        packed=packed_inode != 0,
    )


def pack(*, root: int, inodes: int, blocks: int, time: int, identifier: str, label: str) -> bytes:
    """Return the superblock of an uncompressed file system of blocks of 4 KiB, without its checksum.

    `root` is the number of the root's inode, and they are counted from the first byte; `time` is in seconds.
    """
    compat = _COMPAT_CHECKSUM | _COMPAT_MTIME
    head = (MAGIC, 0, compat, _PAGE_BITS, 0, root, inodes, time, 0, blocks, 0, 0)
    name = label.encode()
    return _SUPERBLOCK.pack(*head, uuid.UUID(identifier).bytes, name, 0, 0, 0, 0, 0, 0, 0, 0)


def check(partition: Readable, where: str, kernel: Version | None) -> Iterator[Check]:
    """Check the erofs of a partition against the kernel that will mount it.

    `where` names the partition in sentences; without `kernel` (major, minor) features are only named.
    """
    data = partition.read(OFFSET, 4096)
    superblock = parse(data)
    subject = f"erofs on {where}"
    if superblock is None or superblock.magic != MAGIC:
        value = "missing" if superblock is None else f"{superblock.magic:08X}"
        yield breach(
            subject,
            "magic",
            value,
            f"erofs superblock magic is {value} on {where}",
            "mkfs.erofs did not write here, or something wrote over it",
            cause=Cause.EROFS_SUPERBLOCK,
        )
        return
    yield passed(subject, "magic", f"{superblock.magic:08X}")
    if not 9 <= superblock.block_bits <= _PAGE_BITS:
        yield breach(
            subject,
            "block size",
            f"2^{superblock.block_bits}",
            f"erofs on {where} has blocks of 2^{superblock.block_bits} bytes; x86 mounts 2^9 to 2^12",
            "mkfs.erofs -b4096",
            cause=Cause.EROFS_FEATURE,
        )
        return
    yield from _checksum(partition, superblock, subject, where)
    yield from _size(partition, superblock, subject, where)
    yield from _features(superblock, subject, where, kernel)
    yield passed(subject, "UUID", superblock.uuid)
    yield passed(subject, "volume name", superblock.volume_name or "none")


def _checksum(partition: Readable, superblock: Superblock, subject: str, where: str) -> Iterator[Check]:
    if not superblock.has_checksum:
        yield passed(subject, "checksum", "none")
        return
    # erofs_superblock_csum_verify(): the rest of the first block, the checksum itself being zero.
    block = 1 << superblock.block_bits
    length = block - OFFSET if block > OFFSET else block
    data = partition.read(OFFSET, length)
    real = crc32c(data[:4] + bytes(4) + data[8:])
    if real == superblock.checksum:
        yield passed(subject, "checksum", f"{real:08X}")
    else:
        yield breach(
            subject,
            "checksum",
            f"{superblock.checksum:08X}",
            f"erofs superblock checksum is {superblock.checksum:08X} on {where}, not {real:08X}",
            "the file system was written over after it was made",
            cause=Cause.EROFS_DAMAGED,
        )


def _size(partition: Readable, superblock: Superblock, subject: str, where: str) -> Iterator[Check]:
    size = superblock.size
    if 0 < size <= partition.size:
        yield passed(subject, Word.SIZE, format_size(size))
    else:
        yield breach(
            subject,
            Word.SIZE,
            format_size(size),
            f"erofs on {where} has {size} bytes, but the partition has {partition.size}",
            "the partition was cut, or mkfs.erofs ran out of space",
            cause=Cause.STORE_TRUNCATED,
        )
    if superblock.extra_devices:
        count = superblock.extra_devices
        yield breach(
            subject, "devices", count, f"erofs on {where} wants {count} more devices", "mkfs.erofs without --blobdev"
        )
    if superblock.directory_bits:
        value = superblock.directory_bits
        yield breach(
            subject,
            "directory blocks",
            value,
            f"erofs on {where} has directory blocks of their own size ({value})",
            cause=Cause.EROFS_FEATURE,
        )


def _features(superblock: Superblock, subject: str, where: str, kernel: Version | None) -> Iterator[Check]:
    found = [
        (f"feature {name}", since) for bit, (name, since) in INCOMPAT.items() if superblock.feature_incompat & bit
    ]
    found += [
        (f"compression {name}", since) for bit, (name, since) in ALGORITHMS.items() if superblock.algorithms & bit
    ]
    if unknown := superblock.feature_incompat & ~sum(INCOMPAT):
        yield breach(
            subject,
            "features",
            f"{unknown:#x}",
            f"erofs on {where} has unknown features: incompat bits {unknown:#x}",
            cause=Cause.EROFS_FEATURE,
        )
    if unknown := superblock.algorithms & ~sum(ALGORITHMS):
        yield breach(
            subject,
            "features",
            f"{unknown:#x}",
            f"erofs on {where} has unknown compression: bits {unknown:#x}",
            cause=Cause.EROFS_FEATURE,
        )
    for name, since in found:
        wanted = ".".join(map(str, since))
        if kernel is None or kernel >= since:
            yield passed(subject, name, f"Linux {wanted} or newer")
        else:
            has = ".".join(map(str, kernel))
            text = f"erofs on {where} has {name}, since Linux {wanted}; the image's kernel is {has}"
            yield breach(
                subject,
                name,
                f"Linux {wanted} or newer",
                text,
                "a newer kernel, or mkfs.erofs without it",
                cause=Cause.EROFS_FEATURE,
            )


def holds(partition: Readable) -> bool:
    """Return whether a partition holds an erofs."""
    superblock = parse(partition.read(OFFSET, SIZE))
    return superblock is not None and superblock.magic == MAGIC
