"""Store paths in groups while mkfs.erofs(1) makes the file system, and back in its root directory afterwards.

mkfs.erofs looks for each new name of a tar stream among all names of its directory, one after the other: a root
directory of 20,000 names takes it five seconds, one of 100,000 minutes. So that the time follows the number of names,
tar(1) puts them into directories of about a thousandth each, and when the file system stands, one directory of all
names is written at its end and becomes the root.
"""

import os
import re
import struct
from collections import Counter
from collections.abc import Sequence

from vmtests.image import erofs
from vmtests.image.crc32c import crc32c
from vmtests.image.erofstree import COMPACT, DIRECTORY, EXTENDED, FLAT_PLAIN, Entry, Tree, directory_blocks

LEAST = 2000
"""Names in a directory up to which mkfs.erofs is left to itself."""

_GROUP = re.compile(rb"\.[0-9A-Za-z]{2}")  # no store path begins with a dot
_SAMPLE = 4000  # names that say where they differ most
_NLINK_LIMIT = 0xFFFF


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


class _Groups(Tree):
    """An erofs whose groups are dissolved."""

    def __init__(self, descriptor: int) -> None:
        self._file = descriptor
        super().__init__(lambda place, length: os.pread(descriptor, length, place))

    def _write(self, data: bytes | bytearray, place: int) -> None:
        os.pwrite(self._file, data, place)

    def reparent(self, nid: int) -> None:
        """Make the root the directory above `nid`."""
        for entry in self.entries(nid):
            if entry.name == b"..":
                self._write(struct.pack("<Q", self.root), entry.place)
                return

    def write_root(self, entries: Sequence[Entry], removed: int) -> int:
        """Write the root directory anew, behind all that is there, and return the size of the file system."""
        content = directory_blocks(((entry.name, entry.nid, entry.kind) for entry in entries), self.block_size)
        blocks = self.superblock.blocks
        self._write(content + bytes(-len(content) % self.block_size), blocks * self.block_size)
        inode = self.inode(self.root)
        raw = bytearray(inode.raw[: EXTENDED if inode.extended else COMPACT])
        raw[0] = raw[0] & ~0xE | FLAT_PLAIN << 1
        links = 2 + sum(entry.kind == DIRECTORY for entry in entries if entry.name not in {b".", b".."})
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
        data = bytearray(self.read(erofs.OFFSET, length))
        struct.pack_into("<Q", data, 16, inodes)
        struct.pack_into("<I", data, 36, blocks)
        if self.superblock.has_checksum:
            struct.pack_into("<I", data, 4, 0)
            struct.pack_into("<I", data, 4, crc32c(bytes(data)))
        self._write(data, erofs.OFFSET)


def undo(descriptor: int) -> int:
    """Move what is in groups into the root directory of the erofs in a file; return its new size in bytes.

    The inodes of the groups stay behind, where no directory names them. Raises HostError, OSError.
    """
    image = _Groups(descriptor)
    merged: list[Entry] = []
    removed = 0
    for entry in image.entries(image.root):
        if entry.kind != DIRECTORY or not _GROUP.fullmatch(entry.name):
            merged.append(entry)
            continue
        removed += 1
        for inner in image.entries(entry.nid):
            if inner.name in {b".", b".."}:
                continue
            merged.append(inner)
            if inner.kind == DIRECTORY:
                image.reparent(inner.nid)
    return image.write_root(merged, removed)
