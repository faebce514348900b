"""Directories and inodes of an erofs that is not mounted (fs/erofs/erofs_fs.h of Linux 6.17).

Only for one that was made here: it does not expect a hostile one, which is what `erofsfiles` is for.
"""

import stat
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from vmtests.errors import HostError
from vmtests.image import erofs

DIRENT = struct.Struct("<QHBB")
DIRECTORY = 2
"""The file type of a directory in an entry."""

KINDS = {stat.S_IFREG: 1, stat.S_IFDIR: DIRECTORY, stat.S_IFLNK: 7}
"""File types that an image holds (EROFS_FT_*)."""

FLAT_PLAIN, FLAT_INLINE = 0, 2
"""Layouts of content in one piece, the second with its end behind the inode."""

COMPACT, EXTENDED = 32, 64
"""Bytes of an inode."""

COMPACT_INODE, EXTENDED_INODE = struct.Struct("<4H4I2HI"), struct.Struct("<4HQ4IQ2I16x")
"""The two kinds of an inode, field by field."""

_NID_UNIT = 32
_UNSUPPORTED = 0x080 | 0x100  # 48bit, metabox: other fields


def runs(names: Sequence[bytes], block_size: int) -> Iterator[tuple[int, int, int]]:
    """Give, for each block of a directory of sorted names, where its own begin and end, and the bytes they take."""
    begin = 0
    while begin < len(names):
        end, used = begin, 0
        while end < len(names) and used + DIRENT.size + len(names[end]) <= block_size:
            used += DIRENT.size + len(names[end])
            end += 1
        yield begin, end, used
        begin = end


def directory_blocks(entries: Iterable[tuple[bytes, int, int]], block_size: int) -> bytes:
    """Return the content of a directory of entries, each a name, the number of its inode and its file type."""
    found = sorted(entries)
    content = bytearray()
    for begin, end, _ in runs([name for name, _, _ in found], block_size):
        content += bytes(-len(content) % block_size)
        start = (end - begin) * DIRENT.size
        for name, nid, kind in found[begin:end]:
            content += DIRENT.pack(nid, start, kind, 0)
            start += len(name)
        content += b"".join(name for name, _, _ in found[begin:end])
    return bytes(content)


@dataclass(slots=True)
class Inode:
    """An inode, as it is on the disk at `place`."""

    place: int
    raw: bytes

    @property
    def extended(self) -> bool:
        """Whether it has 64 bytes."""
        return bool(self.raw[0] & 1)

    @property
    def layout(self) -> int:
        """How its content is kept."""
        return self.raw[0] >> 1 & 7

    @property
    def size(self) -> int:
        """Bytes of its content."""
        kind = "<Q" if self.extended else "<I"
        return int(struct.unpack_from(kind, self.raw, 8)[0])

    @property
    def block(self) -> int:
        """The first block of its content, where that is in one piece."""
        return int(struct.unpack_from("<I", self.raw, 16)[0])

    @property
    def inline(self) -> int:
        """Where inline content begins: behind the inode and its extended attributes."""
        (count,) = struct.unpack_from("<H", self.raw, 2)
        attributes = 12 + (count - 1) * 4 if count else 0
        return self.place + (EXTENDED if self.extended else COMPACT) + attributes


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in a directory: what it leads to, its file type, and where the entry itself is."""

    name: bytes
    nid: int
    kind: int
    place: int


class Tree:
    """The erofs that `read` gives: a function of offset and length, both in bytes."""

    def __init__(self, read: Callable[[int, int], bytes]) -> None:
        self.read = read
        block = read(erofs.OFFSET, 128)
        found = erofs.parse(block)
        assert found is not None
        if found.feature_incompat & _UNSUPPORTED:
            raise HostError("mkfs.erofs wrote a file system with 48-bit addresses, which cannot be changed")
        self.superblock = found
        self.block_size = 1 << found.block_bits
        (self.root,) = struct.unpack_from("<H", block, 14)
        (self._meta,) = struct.unpack_from("<I", block, 40)

    def inode(self, nid: int) -> Inode:
        """Return an inode by its number."""
        # Inodes may be in front of where their numbers count from: those numbers are negative, modulo 2^64.
        offset = (nid * _NID_UNIT + (1 << 63)) % (1 << 64) - (1 << 63)
        place = self._meta * self.block_size + offset
        return Inode(place, self.read(place, EXTENDED))

    def blocks(self, inode: Inode) -> Iterator[tuple[int, bytes]]:
        """Give a directory's blocks and where each is."""
        if inode.layout not in {FLAT_PLAIN, FLAT_INLINE}:
            raise HostError(f"mkfs.erofs wrote a directory of the unknown layout {inode.layout}")
        for offset in range(0, inode.size, self.block_size):
            length = min(self.block_size, inode.size - offset)
            last = offset + length == inode.size
            place = inode.block * self.block_size + offset
            if last and inode.layout == FLAT_INLINE:
                place = inode.inline
            yield place, self.read(place, length)

    def entries(self, nid: int) -> Iterator[Entry]:
        """Give the entries of a directory, in order."""
        for place, block in self.blocks(self.inode(nid)):
            count = DIRENT.unpack_from(block)[1] // DIRENT.size
            heads = [DIRENT.unpack_from(block, index * DIRENT.size) for index in range(count)]
            ends = [head[1] for head in heads[1:]] + [len(block)]
            for index, ((target, start, kind, _), end) in enumerate(zip(heads, ends, strict=True)):
                name = block[start:end].split(b"\0", 1)[0]
                yield Entry(name, target, kind, place + index * DIRENT.size)

    def walk(self) -> Iterator[tuple[str, Entry]]:
        """Give everything below the root, with its path; directories come before what is in them."""
        waiting = [("", self.root)]
        while waiting:
            above, nid = waiting.pop()
            for entry in self.entries(nid):
                if entry.name not in {b".", b".."}:
                    path = f"{above}/{entry.name.decode(errors='replace')}"
                    yield path, entry
                    if entry.kind == DIRECTORY:
                        waiting.append((path, entry.nid))
