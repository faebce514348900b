"""Store paths in groups while mkfs.erofs(1) makes the file system, and back in its root directory afterwards.

mkfs.erofs looks for each new name of a tar stream among all names of its directory, one after the other: a root
directory of 20,000 names takes it five seconds, one of 100,000 minutes. So that the time follows the number of names,
tar(1) puts them into directories of about a thousandth each, and when the file system stands, one directory of all
names is written at its end and becomes the root. The format is that of fs/erofs/erofs_fs.h of Linux 6.17.
"""

import os
import re
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vmtests.errors import HostError
from vmtests.image import erofs
from vmtests.image.crc32c import crc32c

LEAST = 2000
"""Names in a directory up to which mkfs.erofs is left to itself."""

_GROUP = re.compile(rb"\.[0-9A-Za-z]{2}")  # no store path begins with a dot
_SAMPLE = 4000  # names that say where they differ most
_DIRENT = struct.Struct("<QHBB")
_DIRECTORY = 2  # file type in a directory entry
_FLAT_PLAIN, _FLAT_INLINE = 0, 2
_COMPACT, _EXTENDED = 32, 64  # bytes of an inode
_NID_UNIT = 32
_NLINK_LIMIT = 0xFFFF
_UNSUPPORTED = 0x080 | 0x100  # 48bit, metabox: other fields


def transform(names: Sequence[str]) -> str | None:
    """Return tar's `--transform` that spreads `names` over groups, by the two characters that differ most."""
    if len(names) < LEAST:
        return None
    sample = names[:: -(-len(names) // _SAMPLE)]
    length = min(map(len, sample))

    def largest(place: int) -> int:
        return max(Counter(name[place : place + 2] for name in sample).values())

    place = min(range(max(length - 1, 1)), key=largest)
    return _expression(place)


def _expression(place: int) -> str:
    # Neither in the target of a symlink (S) nor of a hard link (H).
    if place == 0:
        return r"s,^\([0-9A-Za-z][0-9A-Za-z]\),.\1/\1,SH"
    return rf"s,^\([^./][^/]\{{{place - 1}\}}\)\([0-9A-Za-z][0-9A-Za-z]\),.\2/\1\2,SH"


@dataclass(slots=True)
class _Inode:
    """A directory's inode, as it is on the disk."""

    place: int
    raw: bytes

    @property
    def extended(self) -> bool:
        return bool(self.raw[0] & 1)

    @property
    def layout(self) -> int:
        return self.raw[0] >> 1 & 7

    @property
    def size(self) -> int:
        kind = "<Q" if self.extended else "<I"
        return int(struct.unpack_from(kind, self.raw, 8)[0])

    @property
    def block(self) -> int:
        return int(struct.unpack_from("<I", self.raw, 16)[0])

    @property
    def inline(self) -> int:
        """Where inline content begins: behind the inode and its extended attributes."""
        (count,) = struct.unpack_from("<H", self.raw, 2)
        attributes = 12 + (count - 1) * 4 if count else 0
        return self.place + (_EXTENDED if self.extended else _COMPACT) + attributes


@dataclass(frozen=True, slots=True)
class _Entry:
    name: bytes
    nid: int
    kind: int
    place: int  # of the entry itself


class _Image:
    """An erofs in a file that is open for reading and writing, from `offset` on."""

    def __init__(self, descriptor: int, offset: int) -> None:
        self._file = descriptor
        self._offset = offset
        self._block = self._read(128, erofs.OFFSET)
        found = erofs.parse(self._block)
        assert found is not None
        if found.feature_incompat & _UNSUPPORTED:
            raise HostError("mkfs.erofs wrote a file system with 48-bit addresses, which cannot be changed")
        self.superblock = found
        self.block_size = 1 << found.block_bits
        (self.root,) = struct.unpack_from("<H", self._block, 14)
        (self._meta,) = struct.unpack_from("<I", self._block, 40)

    def _read(self, length: int, place: int) -> bytes:
        return os.pread(self._file, length, self._offset + place)

    def _write(self, data: bytes | bytearray, place: int) -> None:
        os.pwrite(self._file, data, self._offset + place)

    def inode(self, nid: int) -> _Inode:
        # Inodes may be in front of where their numbers count from: those numbers are negative, modulo 2^64.
        offset = (nid * _NID_UNIT + (1 << 63)) % (1 << 64) - (1 << 63)
        place = self._meta * self.block_size + offset
        return _Inode(place, self._read(_EXTENDED, place))

    def _blocks(self, inode: _Inode) -> Iterator[tuple[int, bytes]]:
        """Give a directory's blocks and where each is."""
        if inode.layout not in {_FLAT_PLAIN, _FLAT_INLINE}:
            raise HostError(f"mkfs.erofs wrote a directory of the unknown layout {inode.layout}")
        for offset in range(0, inode.size, self.block_size):
            length = min(self.block_size, inode.size - offset)
            last = offset + length == inode.size
            place = inode.block * self.block_size + offset
            if last and inode.layout == _FLAT_INLINE:
                place = inode.inline
            yield place, self._read(length, place)

    def entries(self, nid: int) -> Iterator[_Entry]:
        """Give the entries of a directory, in order."""
        for place, block in self._blocks(self.inode(nid)):
            count = _DIRENT.unpack_from(block)[1] // _DIRENT.size
            heads = [_DIRENT.unpack_from(block, index * _DIRENT.size) for index in range(count)]
            ends = [head[1] for head in heads[1:]] + [len(block)]
            for index, ((target, start, kind, _), end) in enumerate(zip(heads, ends, strict=True)):
                name = block[start:end].split(b"\0", 1)[0]
                yield _Entry(name, target, kind, place + index * _DIRENT.size)

    def reparent(self, nid: int) -> None:
        """Make the root the directory above `nid`."""
        for entry in self.entries(nid):
            if entry.name == b"..":
                self._write(struct.pack("<Q", self.root), entry.place)
                return

    def write_root(self, entries: Sequence[_Entry], removed: int) -> int:
        """Write the root directory anew, behind all that is there, and return the size of the file system."""
        content = b"".join(_pack(sorted(entries, key=lambda entry: entry.name), self.block_size))
        blocks = self.superblock.blocks
        self._write(content + bytes(-len(content) % self.block_size), blocks * self.block_size)
        inode = self.inode(self.root)
        raw = bytearray(inode.raw[: _EXTENDED if inode.extended else _COMPACT])
        raw[0] = raw[0] & ~0xE | _FLAT_PLAIN << 1
        links = 2 + sum(entry.kind == _DIRECTORY for entry in entries if entry.name not in {b".", b".."})
        struct.pack_into("<Q" if inode.extended else "<I", raw, 8, len(content))
        struct.pack_into("<I", raw, 16, blocks)
        if inode.extended:
            struct.pack_into("<I", raw, 44, links)
        else:
            # What does not fit is given as 1, as other file systems do for "many".
            struct.pack_into("<H", raw, 6, links if links <= _NLINK_LIMIT else 1)
        self._write(raw, inode.place)
        blocks += -(-len(content) // self.block_size)
        self._write_superblock(blocks, self.superblock.inodes - removed)
        return blocks * self.block_size

    def _write_superblock(self, blocks: int, inodes: int) -> None:
        length = self.block_size - erofs.OFFSET if self.block_size > erofs.OFFSET else self.block_size
        data = bytearray(self._read(length, erofs.OFFSET))
        struct.pack_into("<Q", data, 16, inodes)
        struct.pack_into("<I", data, 36, blocks)
        if self.superblock.has_checksum:
            struct.pack_into("<I", data, 4, 0)
            struct.pack_into("<I", data, 4, crc32c(bytes(data)))
        self._write(data, erofs.OFFSET)


def _pack(entries: Sequence[_Entry], block_size: int) -> Iterator[bytes]:
    """Give the blocks of a directory; each but the last is filled up with zeros."""
    begin = 0
    while begin < len(entries):
        end, used = begin, 0
        while end < len(entries) and used + _DIRENT.size + len(entries[end].name) <= block_size:
            used += _DIRENT.size + len(entries[end].name)
            end += 1
        part = entries[begin:end]
        place = len(part) * _DIRENT.size
        heads, names = bytearray(), bytearray()
        for entry in part:
            heads += _DIRENT.pack(entry.nid, place + len(names), entry.kind, 0)
            names += entry.name
        block = bytes(heads + names)
        yield block if end == len(entries) else block + bytes(block_size - len(block))
        begin = end


def undo(descriptor: int, offset: int) -> int:
    """Move what is in groups into the root directory of the erofs at `offset` of a file; return its new size in bytes.

    The inodes of the groups stay behind, where no directory names them. Raises HostError, OSError.
    """
    image = _Image(descriptor, offset)
    merged: list[_Entry] = []
    removed = 0
    for entry in image.entries(image.root):
        if entry.kind != _DIRECTORY or not _GROUP.fullmatch(entry.name):
            merged.append(entry)
            continue
        removed += 1
        for inner in image.entries(entry.nid):
            if inner.name in {b".", b".."}:
                continue
            merged.append(inner)
            if inner.kind == _DIRECTORY:
                image.reparent(inner.nid)
    return image.write_root(merged, removed)
