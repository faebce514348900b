"""Where everything of an uncompressed erofs goes, which is known before a byte of it is written.

Names and sizes are enough: inodes come first, each with the end of its content behind it where that fits into the
block, then all whole blocks of content in the order of the walk (fs/erofs/erofs_fs.h of Linux 6.17). So files can be
copied by any number of threads, and what stands behind the file system on a disk can be made at the same time.
"""

import bisect
import contextlib
import gc
import operator
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from vmtests.image import erofs
from vmtests.image.erofstree import (
    COMPACT,
    COMPACT_INODE,
    DIRENT,
    EXTENDED,
    EXTENDED_INODE,
    FLAT_INLINE,
    FLAT_PLAIN,
    KINDS,
    directory_blocks,
    runs,
)
from vmtests.image.mkerofs import STORE_TIME
from vmtests.image.survey import below, opened, refuse_special, unreadable

BLOCK = 4096
"""Bytes of a block: a page, since Linux mounts no larger ones."""

_SUPERBLOCK = 128  # bytes
NID = 32
"""Bytes that an inode's number counts."""

_GAPS = 1024  # places that are kept in mind, in blocks of inodes that have room left


@dataclass(slots=True)
class Node:
    """A file, directory or symlink: `place` is that of its inode in bytes, `block` the first of its content.

    Blocks are counted from where content begins, so that they are known before that is.
    """

    name: bytes
    mode: int
    size: int
    place: int = 0
    block: int = 0
    children: "list[Node] | None" = None

    @property
    def extended(self) -> bool:
        """Whether its numbers need an inode of 64 bytes."""
        return self.size >> 32 != 0 or self.links >> 16 != 0

    @property
    def links(self) -> int:
        """The number of its names."""
        if self.children is None:
            return 1
        return 2 + sum(child.children is not None for child in self.children)

    @property
    def kind(self) -> int:
        """Its file type in a directory entry."""
        return KINDS[stat.S_IFMT(self.mode)]

    def split(self) -> tuple[int, int, int]:
        """Return the bytes of its inode, the number of its whole blocks, and the bytes of its end behind the inode."""
        head = EXTENDED if self.extended else COMPACT
        blocks, rest = divmod(self.size, BLOCK)
        return (head, blocks + 1, 0) if rest > BLOCK - head else (head, blocks, rest)


@dataclass(slots=True)
class Plan:
    """A whole file system in the order of the walk; `blocks` and `begin`, where content is, are in blocks."""

    root: Node
    inodes: int = 0
    begin: int = 0
    blocks: int = 0
    _next: int = 0
    _gaps: list[tuple[int, int]] = field(default_factory=list)

    @property
    def size(self) -> int:
        """The size of the file system in bytes."""
        return self.blocks * BLOCK

    def walk(self) -> Iterator[tuple[bytes, Node, Node]]:
        """Give each node with its path below the root, and the directory that it is in; a directory comes first."""
        waiting = [(b"", self.root, self.root)]
        while waiting:
            path, node, parent = waiting.pop()
            yield path, node, parent
            if node.children is None:
                continue
            for child in node.children:
                if child.children is None:
                    yield _join(path, child.name), child, node
            waiting += [
                (_join(path, child.name), child, node) for child in node.children if child.children is not None
            ]

    def put(self, node: Node) -> None:
        """Give a node its places."""
        head, blocks, rest = node.split()
        need = -(-(head + rest) // NID) * NID
        index = bisect.bisect_left(self._gaps, (need, 0))
        if index < len(self._gaps):
            room, node.place = self._gaps.pop(index)
        else:
            room = BLOCK - self._next % BLOCK
            if room < need:  # the first block, most of which is the superblock's
                bisect.insort(self._gaps, (room, self._next))
                self._next += room
                room = BLOCK
            node.place = self._next
            self._next += room
        if room > need:
            bisect.insort(self._gaps, (room - need, node.place + need))
            if len(self._gaps) > _GAPS:
                del self._gaps[0]
        node.block, self.blocks = self.blocks, self.blocks + blocks
        self.inodes += 1

    def inode(self, node: Node) -> bytes:
        """Return the inode, with neither an owner but root nor a time of its own."""
        head, blocks, rest = node.split()
        block = self.begin + node.block if blocks else 0
        layout = FLAT_INLINE if rest else FLAT_PLAIN
        number = node.place // NID & 0xFFFFFFFF
        if head == EXTENDED:
            return EXTENDED_INODE.pack(
                layout << 1 | 1, 0, node.mode, 0, node.size, block, number, 0, 0, STORE_TIME, 0, node.links
            )
        return COMPACT_INODE.pack(layout << 1, 0, node.mode, node.links, node.size, 0, block, number, 0, 0, 0)

    def superblock(self, label: str, identifier: str) -> bytes:
        """Return the superblock, without its checksum."""
        return erofs.pack(
            root=self.root.place // NID, inodes=self.inodes, blocks=self.blocks, time=STORE_TIME,
            identifier=identifier, label=label,
        )  # fmt: skip


_NAME = operator.attrgetter("name")


def _join(path: bytes, name: bytes) -> bytes:
    return path + b"/" + name if path else name


def plan(directory: str, named: Sequence[tuple[str, str]], extra: Sequence[bytes]) -> Plan:
    """Look at the entries of `directory` that are named, each after its place in the spec, and at all below them.

    `extra` are empty directories in the root. Raises InputError, with that place, for what cannot be read and for what
    is no file, directory or symlink.
    """
    with _no_collection(), opened(directory) as top:
        return _plan(directory, top, named, extra)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Have nobody look for cycles among half a million nodes that are made, where there is none."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _plan(directory: str, top: int, named: Sequence[tuple[str, str]], extra: Sequence[bytes]) -> Plan:
    children = [Node(name, stat.S_IFDIR | 0o755, 0, children=[]) for name in extra]
    places: dict[bytes, str] = {}
    for place, name in named:
        try:
            found = os.lstat(name, dir_fd=top)
        except OSError as error:
            raise unreadable(place, f"{directory}/{name}", error) from error
        refuse_special(place, f"{directory}/{name}", found)
        children.append(_node(os.fsencode(name), found))
        places[os.fsencode(name)] = place
    made = Plan(Node(b"", stat.S_IFDIR | 0o755, 0, children=children), _next=erofs.OFFSET + _SUPERBLOCK)
    waiting = [(b"", "", made.root)]
    while waiting:
        path, place, node = waiting.pop()
        assert node.children is not None
        if path:
            _fill(place, directory, path, top, node)
        if len(node.children) > 1:
            node.children.sort(key=_NAME)
        node.size = directory_size([child.name for child in node.children])
        made.put(node)
        for child in node.children:
            if child.children is None:
                made.put(child)
        for child in node.children:
            if child.children is None:
                continue
            if path or child.name in places:
                waiting.append((_join(path, child.name), place or places[child.name], child))
            else:
                child.size = directory_size([])
                made.put(child)
    made.begin = -(-made._next // BLOCK)  # noqa: SLF001 - its own module
    made.blocks += made.begin
    return made


def _fill(place: str, directory: str, path: bytes, top: int, node: Node) -> None:
    """Read the directory `path` of the store, whose descriptor is `top`."""
    assert node.children is not None
    try:
        descriptor = below(path, top)
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    found = entry.stat(follow_symlinks=False)
                    if stat.S_IFMT(found.st_mode) not in KINDS:
                        refuse_special(place, f"{directory}/{os.fsdecode(path)}/{entry.name}", found)
                    node.children.append(_node(os.fsencode(entry.name), found))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise unreadable(place, f"{directory}/{os.fsdecode(path)}", error) from error


def _node(name: bytes, found: os.stat_result) -> Node:
    if stat.S_ISDIR(found.st_mode):
        return Node(name, found.st_mode, 0, children=[])
    return Node(name, found.st_mode, found.st_size)


def directory_size(names: Sequence[bytes]) -> int:
    """Return the bytes of a directory of these names, besides `.` and `..`."""
    size = sum(map(len, names)) + len(b"...") + (len(names) + 2) * DIRENT.size
    if size <= BLOCK:
        return size
    *whole, last = runs(sorted([b".", b"..", *names]), BLOCK)
    return len(whole) * BLOCK + last[2]


def directory_content(node: Node, parent: Node) -> bytes:
    """Return the content of a directory."""
    assert node.children is not None
    entries = [(child.name, child.place // NID, child.kind) for child in node.children]
    entries += [(b".", node.place // NID, node.kind), (b"..", parent.place // NID, parent.kind)]
    return directory_blocks(entries, BLOCK)
