"""The files of an ext2, ext3 or ext4 that is not mounted (Documentation/filesystems/ext4 of Linux 6.12).

Own code, since the file system may be in any image format, of which only what is asked for is read, and since its
bytes are hostile: every walk is bounded, and nothing is followed twice.
"""

import functools
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from vmtests.image.check import Readable, clean
from vmtests.image.files import FilesError

_ROOT_INODE = 2
_EXTENTS, _INLINE = 0x80000, 0x10000000
_META_BG, _64BIT = 0x10, 0x80
_DIRECTORY, _REGULAR, _LINK = 0x4000, 0x8000, 0xA000
_DIRECTORY_LIMIT = 4 << 20  # bytes of a directory
_LINKS = 40  # that are followed (path_resolution(7))
_BLOCKS_LIMIT = 1 << 20  # of a file
_PIECE = 1 << 20
_LOOKED_AT = 4 << 20  # entries and blocks of directories, in all: names may lead from one large one to the next
_NODES = 20_000  # of a file's extent tree; one of _BLOCKS_LIMIT pieces has fewer


@dataclass(frozen=True, slots=True)
class _Inode:
    number: int
    mode: int
    size: int
    flags: int
    blocks: bytes

    @property
    def kind(self) -> int:
        return self.mode & 0xF000


class ExtFiles:
    """The files of the ext4 in `content`; making one raises FilesError where there is none."""

    def __init__(self, content: Readable) -> None:
        self._content = content
        head = content.read(1024, 1024)
        if len(head) < 1024 or head[0x38:0x3A] != b"\x53\xef":
            raise FilesError("there is no ext4 superblock")
        self._first, log = struct.unpack_from("<II", head, 0x14)
        self._per_group, self._inodes = struct.unpack_from("<I", head, 0x28)[0], struct.unpack_from("<I", head)[0]
        (self._inode_size,) = struct.unpack_from("<H", head, 0x58) if head[0x4C] else (128,)
        (incompat,) = struct.unpack_from("<I", head, 0x60)
        (descriptor,) = struct.unpack_from("<H", head, 0xFE)
        self._descriptor = descriptor if incompat & _64BIT else 32
        if log > 6 or not self._per_group or self._inode_size < 128 or self._descriptor < 32:
            raise FilesError("its superblock has impossible values")
        if incompat & _META_BG:
            raise FilesError("it keeps its group descriptors apart (meta_bg), which is not read here")
        self._block = 1024 << log
        self._looked_at = 0

    def find(self, path: str) -> str | None:
        """Return the real path of what `path` leads to, through all links; None where that is nothing."""
        found = self._resolve(path)
        return None if found is None else found[0]

    def directory(self, path: str) -> bool:
        """Whether there is a directory at a path, through all links. Raises FilesError."""
        return (found := self._resolve(path)) is not None and found[1].kind == _DIRECTORY

    def below(self, directory: str, suffix: str) -> list[str]:
        """Return the files directly in `directory` whose names end with `suffix` in any case, sorted."""
        found = self._resolve(directory)
        if found is None or found[1].kind != _DIRECTORY:
            return []
        place = found[0].rstrip("/")
        names = (name for name, _ in self._entries(found[1]) if name not in (".", ".."))
        return sorted(f"{place}/{name}" for name in names if name.lower().endswith(suffix))

    def read(self, path: str, limit: int) -> bytes:
        """Return the first `limit` bytes of a file, fewer where it is shorter. Raises FilesError."""
        return self.pick(path, ((0, limit),))[0]

    def pick(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return ranges (offset, size in bytes) of a file; one beyond its end is short. Raises FilesError."""
        return [b"".join(self.chunks(path, offset, size)) for offset, size in ranges]

    def chunks(self, path: str, offset: int, size: int) -> Iterator[bytes]:
        """Yield a range of a file, piece by piece; raises FilesError."""
        found = self._resolve(path)
        if found is None or found[1].kind != _REGULAR:
            raise FilesError(f"{clean(path)} is no file")
        yield from self._data(found[1], offset, size)

    def walk(
        self, limit: int, enter: Callable[[str], bool]
    ) -> Iterator[tuple[str, int, int, Callable[[], Iterator[bytes]]]]:
        """Yield files, `limit` at most: path, mode, size in bytes, and what gives the content. Raises FilesError.

        A directory is entered once, if `enter` says so of its path.
        """
        seen = {_ROOT_INODE}
        waiting: list[tuple[str, _Inode]] = [("", self._inode(_ROOT_INODE))]
        while waiting:
            place, directory = waiting.pop()
            for name, number in self._entries(directory, "surrogateescape"):
                if name in (".", ".."):
                    continue
                if limit <= 0:
                    raise FilesError("it has more files than are read")
                limit -= 1
                inode = self._inode(number)
                path = f"{place}/{name}"
                yield path, inode.mode, inode.size, functools.partial(self._content_of, inode)
                if inode.kind == _DIRECTORY and number not in seen and enter(path):
                    seen.add(number)
                    waiting.append((path, inode))

    def _content_of(self, inode: _Inode) -> Iterator[bytes]:
        if inode.kind == _LINK:
            yield self._link(inode)
        elif inode.kind == _REGULAR:
            yield from self._data(inode, 0, inode.size)

    def lacks(self, path: str) -> bool:
        """Whether nothing can be at `path`: it is not here, nor below an empty directory, on which another may be."""
        found, stop = self._go(path)
        if found is not None or stop is None:
            return False
        return stop.number == _ROOT_INODE or any(name not in (".", "..") for name, _ in self._entries(stop))

    def _resolve(self, path: str) -> tuple[str, _Inode] | None:
        return self._go(path)[0]

    def _go(self, path: str) -> tuple[tuple[str, _Inode] | None, _Inode | None]:
        """Return what `path` leads to; where it leads to nothing, the directory that has not the next name."""
        waiting = [part for part in path.split("/") if part]
        waiting.reverse()
        trail: list[tuple[str, _Inode]] = [("", self._inode(_ROOT_INODE))]
        links = 0
        while waiting:
            name = waiting.pop()
            if name == ".":
                continue
            if name == "..":
                trail = trail[:-1] or trail
                continue
            if trail[-1][1].kind != _DIRECTORY:
                return None, None
            number = next((number for other, number in self._entries(trail[-1][1]) if other == name), None)
            if number is None:
                return None, trail[-1][1]
            inode = self._inode(number)
            if inode.kind != _LINK:
                trail.append((name, inode))
                continue
            links += 1
            if links > _LINKS:
                return None, None
            target = self._target(inode)
            if target.startswith("/"):
                trail = trail[:1]
            waiting += reversed([part for part in target.split("/") if part])
        return ("/".join(name for name, _ in trail) or "/", trail[-1][1]), None

    def _target(self, inode: _Inode) -> str:
        return self._link(inode).decode("utf-8", errors="replace")

    def _link(self, inode: _Inode) -> bytes:
        return inode.blocks[: inode.size] if inode.size < 60 else b"".join(self._data(inode, 0, 4096))

    def _inode(self, number: int) -> _Inode:
        if not 0 < number <= self._inodes:
            raise FilesError(f"it names inode {number}, and has {self._inodes}")
        group, index = divmod(number - 1, self._per_group)
        data = self._content.read((self._first + 1) * self._block + group * self._descriptor, self._descriptor)
        if len(data) < self._descriptor:
            raise FilesError("its group descriptors lie beyond its end")
        (table,) = struct.unpack_from("<I", data, 8)
        if self._descriptor >= 64:
            table |= struct.unpack_from("<I", data, 0x28)[0] << 32
        raw = self._content.read(table * self._block + index * self._inode_size, 128)
        if len(raw) < 128:
            raise FilesError("its inodes lie beyond its end")
        (mode, _, low), (flags,), (high,) = (
            struct.unpack_from("<HHI", raw),
            struct.unpack_from("<I", raw, 32),
            struct.unpack_from("<I", raw, 108),
        )
        size = low | (high << 32 if mode & 0xF000 == _REGULAR else 0)
        return _Inode(number, mode, size, flags, raw[40:100])

    def _entries(self, inode: _Inode, errors: str = "replace") -> Iterator[tuple[str, int]]:
        """Yield names and inodes of a directory; indexed ones can be read from end to end as well.

        `errors` is what is done with a name that is no UTF-8.
        """
        data = b"".join(self._data(inode, 0, _DIRECTORY_LIMIT))
        for start in range(0, len(data), self._block):
            block, place = data[start : start + self._block], 0
            self._look()
            while place + 8 <= len(block):
                self._look()
                number, length, size = struct.unpack_from("<IHB", block, place)
                if length < 8:
                    break
                if number and size:
                    yield block[place + 8 : place + 8 + size].decode("utf-8", errors), number
                place += length

    def _look(self) -> None:
        self._looked_at += 1
        if self._looked_at > _LOOKED_AT:
            raise FilesError("its directories lead to too much")

    def _data(self, inode: _Inode, offset: int, size: int) -> Iterator[bytes]:
        end = min(offset + size, inode.size)
        if inode.flags & _INLINE:
            raise FilesError("it keeps files in their inodes (inline_data), which is not read here")
        if end > _BLOCKS_LIMIT * self._block:
            raise FilesError("it has a file that is too large to be read here")
        for place, start, length in self._pieces(inode, offset // self._block, -(-end // self._block)):
            begin, stop = max(place, offset), min(place + length, end)
            while begin < stop:
                step = min(_PIECE, stop - begin)
                data = bytes(step) if start is None else self._content.read(start + begin - place, step)
                if len(data) < step:
                    raise FilesError("its blocks lie beyond its end")
                yield data
                begin += step

    def _pieces(self, inode: _Inode, first: int, last: int) -> Iterator[tuple[int, int | None, int]]:
        """Yield (place in the file, place on the disk, length) in bytes, None for a hole, from block to block."""
        runs = self._ascending(inode.blocks) if inode.flags & _EXTENTS else self._mapped(inode.blocks, last)
        at = first
        for logical, physical, count in runs:
            if logical >= last:
                break
            if logical + count <= at:
                continue
            if logical > at:
                yield at * self._block, None, (logical - at) * self._block
                at = logical
            skip = at - logical
            here = min(count - skip, last - at)
            start = None if physical is None else (physical + skip) * self._block
            yield at * self._block, start, here * self._block
            at += here
        if at < last:
            yield at * self._block, None, (last - at) * self._block

    def _ascending(self, root: bytes) -> Iterator[tuple[int, int | None, int]]:
        """Yield the runs of an extent tree, which are in order: a node that is reached twice is not."""
        end, nodes = 0, iter(range(_NODES))
        for logical, physical, count in self._extents(root, None, nodes):
            if logical < end or not count:
                raise FilesError("it has an extent tree that is none")
            end = logical + count
            yield logical, physical, count

    def _extents(self, node: bytes, depth: int | None, nodes: Iterator[int]) -> Iterator[tuple[int, int | None, int]]:
        magic, count, _, level = struct.unpack_from("<HHHH", node)
        if (
            magic != 0xF30A
            or level > 5
            or depth not in (None, level)
            or 12 + 12 * count > len(node)
            or next(nodes, None) is None
        ):
            raise FilesError("it has an extent tree that is none")
        for index in range(count):
            logical, one, two, three = struct.unpack_from("<IHHI", node, 12 + 12 * index)
            if level:
                _, low, high = struct.unpack_from("<IIH", node, 12 + 12 * index)
                block = self._content.read((low | high << 32) * self._block, self._block)
                yield from self._extents(block if len(block) >= 12 else bytes(12), level - 1, nodes)
            elif one > 0x8000:
                yield logical, None, one - 0x8000  # made room for, but never written
            else:
                yield logical, three | two << 32, one

    def _mapped(self, blocks: bytes, last: int) -> Iterator[tuple[int, int | None, int]]:
        """Yield the runs of a file of ext2 and ext3: twelve blocks, then one, two and three times indirect."""
        numbers = struct.unpack("<15I", blocks)
        for index, number in enumerate(numbers[:12]):
            yield index, number or None, 1
        per, at = self._block // 4, 12
        for level in (1, 2, 3):
            if at >= last:
                return
            yield from self._indirect(numbers[11 + level], level, at, last)
            at += per**level

    def _indirect(self, number: int, level: int, at: int, last: int) -> Iterator[tuple[int, int | None, int]]:
        per = self._block // 4
        if not number or at >= last:
            return
        if level == 0:
            yield at, number, 1
            return
        block = self._content.read(number * self._block, self._block)
        for index, child in enumerate(struct.unpack(f"<{len(block) // 4}I", block[: len(block) // 4 * 4])):
            if (place := at + index * per ** (level - 1)) >= last:
                return
            yield from self._indirect(child, level - 1, place, last)
