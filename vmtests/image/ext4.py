"""The ext4 superblock (fs/ext4/ext4.h, struct ext4_super_block, of Linux 6.12)."""

import struct
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vmtests.causes import Cause
from vmtests.image.check import Check, Readable, Version, Word, breach, note, passed
from vmtests.image.crc32c import crc32c
from vmtests.sizes import format_size

OFFSET = 1024
SIZE = 1024
MAGIC = 0xEF53

_CLEAN = 0x1
_ERRORS = 0x2
_INCOMPAT_RECOVER = 0x4
_INCOMPAT_64BIT = 0x80
_RO_COMPAT_METADATA_CSUM = 0x400
_RO_COMPAT_READONLY = 0x1000
_CHECKSUM_AT = 0x3FC
_PAGE_SHIFT = 2  # s_log_block_size counts from 1 KiB; x86 has pages of 4 KiB

_ALWAYS: Version = (2, 6)

INCOMPAT: Mapping[int, tuple[str, Version]] = {
    0x00002: ("filetype", _ALWAYS),
    0x00004: ("needs_recovery", _ALWAYS),
    0x00010: ("meta_bg", _ALWAYS),
    0x00040: ("extent", _ALWAYS),
    0x00080: ("64bit", _ALWAYS),
    0x00100: ("mmp", (3, 0)),
    0x00200: ("flex_bg", _ALWAYS),
    0x00400: ("ea_inode", (4, 13)),
    0x02000: ("metadata_csum_seed", (4, 4)),
    0x04000: ("large_dir", (4, 13)),
    0x08000: ("inline_data", (3, 8)),
    0x10000: ("encrypt", (4, 1)),
    0x20000: ("casefold", (5, 2)),
}
"""Features without which a kernel won't mount (EXT4_FEATURE_INCOMPAT_SUPP): name, first Linux (ext4(5))."""

RO_COMPAT: Mapping[int, tuple[str, Version]] = {
    0x00001: ("sparse_super", _ALWAYS),
    0x00002: ("large_file", _ALWAYS),
    0x00004: ("btree_dir", _ALWAYS),
    0x00008: ("huge_file", _ALWAYS),
    0x00010: ("uninit_bg", _ALWAYS),
    0x00020: ("dir_nlink", _ALWAYS),
    0x00040: ("extra_isize", _ALWAYS),
    0x00100: ("quota", (3, 6)),
    0x00200: ("bigalloc", (3, 2)),
    0x00400: ("metadata_csum", (3, 5)),
    0x02000: ("project", (4, 5)),
    0x08000: ("verity", (5, 4)),
    0x10000: ("orphan_present", (5, 15)),
}
"""Features without which a kernel mounts only to read (EXT4_FEATURE_RO_COMPAT_SUPP): name, first Linux."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Superblock:
    """The superblock of an ext4; `blocks` counts blocks of `1024 << block_shift` bytes."""

    magic: int
    blocks: int
    block_shift: int
    state: int
    compat: int
    incompat: int
    ro_compat: int
    uuid: uuid.UUID
    label: str
    error_count: int
    checksum: int

    @property
    def size(self) -> int:
        """The size of the file system in bytes."""
        return self.blocks * 1024 << self.block_shift


def parse(data: bytes) -> Superblock | None:
    """Return the superblock in `data`, which begins at OFFSET; None where it is too short to be one."""
    if len(data) < SIZE:
        return None
    (low,) = struct.unpack_from("<I", data, 0x4)
    (shift,) = struct.unpack_from("<I", data, 0x18)
    magic, state = struct.unpack_from("<HH", data, 0x38)
    compat, incompat, ro_compat, identifier, label = struct.unpack_from("<III16s16s", data, 0x5C)
    (high,) = struct.unpack_from("<I", data, 0x150)
    (errors,) = struct.unpack_from("<I", data, 0x194)
    (checksum,) = struct.unpack_from("<I", data, _CHECKSUM_AT)
    return Superblock(
        magic=magic,
        blocks=low | (high << 32 if incompat & _INCOMPAT_64BIT else 0),
        block_shift=min(shift, 64),
        state=state,
        compat=compat,
        incompat=incompat,
        ro_compat=ro_compat,
        uuid=uuid.UUID(bytes=identifier),
        label=label.split(b"\0", 1)[0].decode("utf-8", errors="replace"),
        error_count=errors,
        checksum=checksum,
    )


def check(partition: Readable, where: str, kernel: Version | None) -> Iterator[Check]:
    """Check the ext4 of a partition against the kernel that will mount it.

    `where` names the partition in sentences; without `kernel` (major, minor) features are only named.
    """
    data = partition.read(OFFSET, SIZE)
    superblock = parse(data)
    subject = f"ext4 on {where}"
    if superblock is None or superblock.magic != MAGIC:
        value = "missing" if superblock is None else f"{superblock.magic:04X}"
        yield breach(
            subject,
            "magic",
            value,
            f"ext4 superblock magic is {value} on {where}, not {MAGIC:04X}",
            cause=Cause.EXT4_SUPERBLOCK,
        )
        return
    yield passed(subject, "magic", f"{superblock.magic:04X}")
    if superblock.block_shift > _PAGE_SHIFT:
        yield breach(
            subject,
            "block size",
            f"1024 << {superblock.block_shift}",
            f"ext4 on {where} has blocks of more than 4096 bytes, which x86 does not mount",
            cause=Cause.EXT4_FEATURE,
        )
        return
    yield from _checksum(data, superblock, subject, where)
    yield from _state(superblock, subject, where)
    if 0 < superblock.size <= partition.size:
        yield passed(subject, Word.SIZE, format_size(superblock.size))
    else:
        yield breach(
            subject,
            Word.SIZE,
            format_size(superblock.size),
            f"ext4 on {where} has {superblock.size} bytes, but the partition has {partition.size}",
            cause=Cause.EXT4_DAMAGED,
        )
    yield from _features(superblock, subject, where, kernel)
    yield passed(subject, "UUID", superblock.uuid)
    yield passed(subject, "label", superblock.label or "none")


def _checksum(data: bytes, superblock: Superblock, subject: str, where: str) -> Iterator[Check]:
    if not superblock.ro_compat & _RO_COMPAT_METADATA_CSUM:
        yield passed(subject, "checksum", "none")
    elif (real := crc32c(data[:_CHECKSUM_AT])) == superblock.checksum:
        yield passed(subject, "checksum", f"{real:08X}")
    else:
        yield breach(
            subject,
            "checksum",
            f"{superblock.checksum:08X}",
            f"ext4 superblock checksum is {superblock.checksum:08X} on {where}, not {real:08X}",
            "e2fsck has a copy of the superblock",
            cause=Cause.EXT4_DAMAGED,
        )


def _state(superblock: Superblock, subject: str, where: str) -> Iterator[Check]:
    if superblock.state & _ERRORS or superblock.error_count:
        count = superblock.error_count
        yield breach(
            subject,
            Word.STATE,
            "errors",
            f"ext4 on {where} has recorded errors ({count})",
            "run e2fsck",
            cause=Cause.FSCK_FAILED,
        )
    elif superblock.incompat & _INCOMPAT_RECOVER:
        yield note(
            subject,
            Word.STATE,
            "journal",
            f"ext4 on {where} was not unmounted; its journal is replayed at boot",
        )
    elif not superblock.state & _CLEAN:
        yield breach(
            subject,
            Word.STATE,
            "not clean",
            f"ext4 on {where} is not clean and has no journal",
            "run e2fsck",
            cause=Cause.FSCK_FAILED,
        )
    else:
        yield passed(subject, Word.STATE, "clean")


def _features(superblock: Superblock, subject: str, where: str, kernel: Version | None) -> Iterator[Check]:
    if superblock.ro_compat & _RO_COMPAT_READONLY:
        yield breach(
            subject,
            "features",
            "read-only",
            f"ext4 on {where} is marked read-only; root must be writable",
            cause=Cause.ROOT_READ_ONLY,
        )
    names: list[str] = []
    for kind, bits, table in (
        ("incompat", superblock.incompat, INCOMPAT),
        ("ro_compat", superblock.ro_compat & ~_RO_COMPAT_READONLY, RO_COMPAT),
    ):
        if unknown := bits & ~sum(table):
            text = f"ext4 on {where} has unknown features: {kind} bits {unknown:#x}"
            yield breach(
                subject, "features", f"{unknown:#x}", text, "mkfs.ext4 -O without them", cause=Cause.EXT4_FEATURE
            )
        for bit, (name, since) in table.items():
            if not bits & bit:
                continue
            names.append(name)
            if kernel is not None and kernel < since:
                wanted, has = (".".join(map(str, version)) for version in (since, kernel))
                text = f"ext4 on {where} has {name}, since Linux {wanted}; the image's kernel is {has}"
                yield breach(
                    subject,
                    f"feature {name}",
                    f"Linux {wanted} or newer",
                    text,
                    f"mkfs.ext4 -O ^{name}",
                    cause=Cause.EXT4_FEATURE,
                )
    yield passed(subject, "features", " ".join(names) or "none")


def holds(partition: Readable) -> bool:
    """Return whether a partition holds an ext2, ext3 or ext4."""
    superblock = parse(partition.read(OFFSET, SIZE))
    return superblock is not None and superblock.magic == MAGIC
