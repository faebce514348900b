"""The files of an erofs that is not mounted (fs/erofs/erofs_fs.h of Linux 6.12).

Own code, as for ext4: the file system may be in any image format, of which only what is asked for is read, and its
bytes are hostile. What is compressed is listed, and its content is not read.
"""

import functools
import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vmtests.image import erofs
from vmtests.image.check import Readable
from vmtests.image.files import FilesError

_SLOT = 32  # bytes, in which inodes are numbered
_PLAIN, _INLINE, _CHUNKS = 0, 2, 4  # EROFS_INODE_*: how data is laid out; the others are compressed
_48BIT = 0x80
_DIRECTORY_LIMIT = 64 << 20  # bytes of a directory
_PIECE = 1 << 20
_LOOKED_AT = 2 << 20  # blocks of directories, in all: many may be the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Inode:
    """A file: its mode with the file type, and its size in bytes; `layout` is erofs' number for it."""

    number: int
    mode: int
    size: int
    layout: int
    where: int
    """A block's address, or a chunk's format."""
    behind: int
    """Bytes from the start of the file system to what stands behind the inode and its attributes."""

    @property
    def packed(self) -> bool:
        """Whether its content is compressed, and not read here."""
        return self.layout not in {_PLAIN, _INLINE, _CHUNKS}


class ErofsFiles:
    """The files of the erofs in `content`; making one raises FilesError where there is none."""

    def __init__(self, content: Readable) -> None:
        self._content = content
        head = content.read(erofs.OFFSET, erofs.SIZE)
        known = erofs.parse(head)
        if known is None or known.magic != erofs.MAGIC or not 9 <= known.block_bits <= 16:
            raise FilesError("there is no erofs superblock")
        self._bits = known.block_bits
        self._looked_at = 0
        (meta,) = struct.unpack_from("<I", head, 40)
        self._meta = meta << self._bits
        (self.root,) = (
            struct.unpack_from("<Q", head, 112)
            if known.feature_incompat & _48BIT
            else struct.unpack_from("<H", head, 14)
        )

    def inode(self, number: int) -> Inode:
        """Return an inode; raises FilesError."""
        place = self._meta + number * _SLOT
        raw = self._content.read(place, 64)
        if number < 0 or len(raw) < _SLOT:
            raise FilesError(f"inode {number} lies beyond its end")
        form, attributes, mode = struct.unpack_from("<HHH", raw)
        if form & 1:
            if len(raw) < 64:
                raise FilesError(f"inode {number} lies beyond its end")
            (size, where), length = struct.unpack_from("<QI", raw, 8), 64
        else:
            (size,), (where,), length = struct.unpack_from("<I", raw, 8), struct.unpack_from("<I", raw, 16), 32
        behind = place + length + (12 + 4 * (attributes - 1) if attributes else 0)
        return Inode(number=number, mode=mode, size=size, layout=form >> 1 & 7, where=where, behind=behind)

    def top(self) -> Iterator[tuple[str, int]]:
        """Yield names and inodes of the root directory; raises FilesError."""
        return self.entries(self.inode(self.root))

    def entries(self, directory: Inode) -> Iterator[tuple[str, int]]:
        """Yield names and inodes of a directory, without `.` and `..`; raises FilesError."""
        if directory.size > _DIRECTORY_LIMIT:
            raise FilesError("it has a directory that is too large to be read here")
        data = b"".join(self.chunks(directory))
        step = 1 << self._bits
        for start in range(0, len(data), step):
            block = data[start : start + step]
            self._looked_at += 1
            if self._looked_at > _LOOKED_AT:
                raise FilesError("its directories lead to too much")
            if len(block) < 12:
                return
            (first,) = struct.unpack_from("<H", block, 8)
            count = first // 12
            if not 0 < count <= len(block) // 12:
                raise FilesError("it has a directory that is none")
            places = [struct.unpack_from("<H", block, 12 * n + 8)[0] for n in range(count)] + [len(block)]
            for n in range(count):
                (number,) = struct.unpack_from("<Q", block, 12 * n)
                name = block[places[n] : places[n + 1]].split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
                if name not in {"", ".", ".."}:
                    yield name, number

    def walk(
        self, limit: int, enter: Callable[[str], bool]
    ) -> Iterator[tuple[str, int, int, Callable[[], Iterator[bytes]]]]:
        """Yield files, `limit` at most: path, mode, size in bytes, and what gives the content. Raises FilesError.

        A directory is entered once, if `enter` says so of its path.
        """
        seen = {self.root}
        waiting = [("", self.inode(self.root))]
        while waiting:
            place, directory = waiting.pop()
            for name, number in self.entries(directory):
                if limit <= 0:
                    raise FilesError("it has more files than are read")
                limit -= 1
                inode = self.inode(number)
                path = f"{place}/{name}"
                yield path, inode.mode, inode.size, functools.partial(self.chunks, inode)
                if stat.S_ISDIR(inode.mode) and number not in seen and enter(path):
                    seen.add(number)
                    waiting.append((path, inode))

    def chunks(self, inode: Inode) -> Iterator[bytes]:
        """Yield the content of a file, piece by piece; raises FilesError, also where it is compressed."""
        for place, size in self._pieces(inode):
            done = 0
            while done < size:
                length = min(_PIECE, size - done)
                data = bytes(length) if place is None else self._content.read(place + done, length)
                if len(data) < length:
                    raise FilesError("its blocks lie beyond its end")
                yield data
                done += length

    def _pieces(self, inode: Inode) -> Iterator[tuple[int | None, int]]:
        """Yield (place, size) in bytes; None for a hole."""
        block = 1 << self._bits
        if inode.layout == _PLAIN:
            yield inode.where << self._bits, inode.size
        elif inode.layout == _INLINE:
            tail = inode.size % block
            yield inode.where << self._bits, inode.size - tail
            yield inode.behind, tail
        elif inode.layout == _CHUNKS:
            yield from self._chunked(inode)
        else:
            raise FilesError("it is compressed")

    def _chunked(self, inode: Inode) -> Iterator[tuple[int | None, int]]:
        indexed = bool(inode.where & 0x20)
        step = 8 if indexed else 4
        size = 1 << (self._bits + (inode.where & 0x1F))
        table = -(-inode.behind // step) * step
        for n in range(-(-inode.size // size)):
            raw = self._content.read(table + n * step, step)
            if len(raw) < step:
                raise FilesError("its chunks lie beyond its end")
            if indexed and struct.unpack_from("<H", raw, 2)[0]:
                raise FilesError("it has data on another device")
            (block,) = struct.unpack_from("<I", raw, step - 4)
            length = min(size, inode.size - n * size)
            yield (None if block == 0xFFFFFFFF else block << self._bits), length
