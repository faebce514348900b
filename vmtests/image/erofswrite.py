"""Writes an uncompressed erofs to its place in a disk file, by all processors and past the page cache.

mkfs.erofs(1) reads and writes by turns, in one thread, and the kernel keeps a copy of all that it writes. Why not it:
docs/decisions/0003-store-stream.md. What is compressed it still makes (`mkerofs`).
"""

import contextlib
import ctypes
import errno
import mmap
import os
import stat
import struct
import threading
from collections.abc import Iterator, Sequence
from concurrent import futures
from pathlib import Path
from typing import Self

from vmtests import progress
from vmtests.errors import HostError, from_os
from vmtests.host.alongside import alongside
from vmtests.image import erofs
from vmtests.image.crc32c import crc32c
from vmtests.image.erofsplan import BLOCK, NID, Node, Plan, directory_content
from vmtests.image.survey import opened
from vmtests.image.target import start_writing
from vmtests.sizes import KIB, MIB
from vmtests.text import printable

_PIECE = MIB  # bytes that are written at a time
_BUFFERED = 64 * KIB  # … through the page cache
_LOOK_SECONDS = 0.2  # between two looks at how far it is
_BATCH = 1024  # blocks of content after which the next thread takes over
_INODES = 256  # … or inodes

_KEEP_SIZE = 1  # linux/falloc.h
_libc = ctypes.CDLL(None, use_errno=True)

_ANOTHER = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EINVAL, errno.ESPIPE, errno.ENXIO}
"""How the system calls that an inode is another now, or none."""

_Item = tuple[bytes, Node, Node]


def write(
    file: Path,
    plan: Plan,
    directory: Path,
    label: str,
    identifier: str,
    offset: int,
    running: progress.Step,
    meanwhile: futures.Future[None] | None = None,
) -> None:
    """Write the file system into `file`, which is there and long enough, from `offset` on; `directory` has its paths.

    Raises HostError for a file that cannot be read or became shorter meanwhile, OSError for what cannot be written.
    What `meanwhile` raises ends it at once.
    """
    with opened(os.fspath(directory)) as top, _Writer(file, plan, top, offset) as writer:
        writer.reserve()
        with contextlib.ExitStack() as stack:
            try:
                working = [stack.enter_context(alongside(writer.work)) for _ in os.sched_getaffinity(0)]
                while futures.wait(working, _LOOK_SECONDS).not_done:
                    writer.look(running)
                    if meanwhile is not None and meanwhile.done():
                        meanwhile.result()
                writer.look(running)
            finally:
                writer.ended.set()
        writer.finish(label, identifier)


class _Writer:
    """What the threads share; a context manager."""

    def __init__(self, file: Path, plan: Plan, top: int, offset: int) -> None:
        self._file, self._plan, self._top, self._offset = file, plan, top, offset
        self._batches = self._batched()
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._done = 0
        self.ended = threading.Event()

    def __enter__(self) -> Self:
        self._cached = os.open(self._file, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._direct = os.open(self._file, os.O_RDWR | os.O_CLOEXEC | os.O_DIRECT)
        except OSError:
            self._direct = -1
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._cached)
        if self._direct >= 0:
            os.close(self._direct)

    def reserve(self) -> None:
        """Have the file system give the store its room now; raises OSError where there is none.

        Threads write into holes one after the other, into what they are given at the same time (ext4, xfs).
        """
        offset, size = ctypes.c_int64(self._offset), ctypes.c_int64(self._plan.size)
        if _libc.fallocate(self._cached, _KEEP_SIZE, offset, size) != 0:
            number = ctypes.get_errno()
            # One that cannot do that writes as it can; posix_fallocate(3) would write every block twice there.
            if number not in {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINTR}:
                raise OSError(number, os.strerror(number))

    def look(self, running: progress.Step) -> None:
        """Tell how far it is."""
        running.amount(self._done, self._plan.size)
        if self._direct < 0:
            start_writing(self._file)

    def work(self) -> None:
        """Write batches until there are none; the first fault of a thread is the end for all."""
        try:
            buffer = _Buffer(self)
            while not self.ended.is_set():
                with self._lock:
                    batch = next(self._batches, None)
                if batch is None:
                    return
                inodes = [(node.place, self._put(path, node, parent, buffer)) for path, node, parent in batch]
                buffer.flush()
                self._put_inodes(inodes)
                with self._lock:
                    self._done += sum(len(inode) for _, inode in inodes)
        except BaseException as error:  # noqa: BLE001 - the thread that waits raises it
            self._error = self._error or error
            self.ended.set()

    def finish(self, label: str, identifier: str) -> None:
        """Raise what ended a thread; else write the superblock, without which there is no file system."""
        if self._error is not None:
            raise self._error
        head = self._plan.superblock(label, identifier)
        block = bytearray(os.pread(self._cached, BLOCK - erofs.OFFSET, self._offset + erofs.OFFSET))
        block[: len(head)] = head
        struct.pack_into("<I", block, 4, crc32c(bytes(block)))
        os.pwrite(self._cached, block, self._offset + erofs.OFFSET)

    def pour(self, data: memoryview, block: int) -> None:
        """Write whole blocks of content."""
        place, end = self._offset + block * BLOCK, len(data)
        written = 0
        while written < end:
            if self._direct >= 0:
                try:
                    written += os.pwrite(self._direct, data[written:], place + written)
                    continue
                except OSError as error:
                    if error.errno != errno.EINVAL:
                        raise
                    self._direct = -1  # a file system that takes the flag, and then does not
            written += os.pwrite(self._cached, data[written : written + _BUFFERED], place + written)
        with self._lock:
            self._done += end

    def _batched(self) -> Iterator[list[_Item]]:
        batch: list[_Item] = []
        blocks = 0
        for item in self._plan.walk():
            batch.append(item)
            blocks += item[1].size // BLOCK
            if blocks >= _BATCH or len(batch) >= _INODES:
                yield batch
                batch, blocks = [], 0
        yield batch

    def _put(self, path: bytes, node: Node, parent: Node, buffer: "_Buffer") -> bytes:
        """Write the whole blocks of one inode's content; return the inode with the rest behind it."""
        _, blocks, rest = node.split()
        first = self._plan.begin + node.block
        if stat.S_ISREG(node.mode):
            tail: bytes | memoryview = b""
            if node.size:
                tail = buffer.copy(path, self._top, node.size, first, blocks, rest)
        else:
            content = directory_content(node, parent) if node.children is not None else _target(path, self._top)
            if len(content) != node.size:
                raise _changed(path)
            tail = content[blocks * BLOCK :]
            if blocks:
                buffer.put(content[: blocks * BLOCK], first, blocks)
        return self._plan.inode(node) + tail

    def _put_inodes(self, inodes: list[tuple[int, bytes]]) -> None:
        """Write the inodes of a batch, each with its place, and those that follow one another together.

        A write through the page cache waits until no other thread writes to the file: so there are few, all at once.
        """
        begin, run = 0, bytearray()
        for place, inode in sorted(inodes):
            if place != begin + len(run):
                os.pwrite(self._cached, run, self._offset + begin)
                begin, run = place, bytearray()
            run += inode + bytes(-len(inode) % NID)
        os.pwrite(self._cached, run, self._offset + begin)


def _target(path: bytes, top: int) -> bytes:
    """Return where the symlink `path` of the directory `top`, a descriptor, leads."""
    try:
        return os.readlink(path, dir_fd=top)
    except OSError as error:
        raise _unread(path, error) from error


def _unread(path: bytes, error: OSError) -> HostError:
    """Return the error of what was there when it was planned."""
    if error.errno in _ANOTHER:
        return _changed(path)
    return from_os(f"{printable(os.fsdecode(path))} cannot be read", error)


def _changed(path: bytes) -> HostError:
    return HostError(
        f"{printable(os.fsdecode(path))} changed while it was read", hint="build again when it is at rest"
    )


class _Buffer:
    """Whole blocks that a thread collects until they are worth a write; where O_DIRECT wants them in memory."""

    def __init__(self, writer: _Writer) -> None:
        self._writer = writer
        self._view = memoryview(mmap.mmap(-1, _PIECE + BLOCK))
        self._tail = self._view[_PIECE:]
        self._first = self._filled = 0

    def flush(self) -> None:
        """Write what is there."""
        if self._filled:
            self._writer.pour(self._view[: self._filled], self._first)
        self._filled = 0

    def _room(self, block: int, wanted: int) -> memoryview:
        """Return where up to `wanted` bytes for `block` go."""
        if self._filled == _PIECE or block != self._first + self._filled // BLOCK:
            self.flush()
        if not self._filled:
            self._first = block
        begin = self._filled
        self._filled = min(begin + wanted, _PIECE)
        return self._view[begin : self._filled]

    def put(self, content: bytes, first: int, blocks: int) -> None:
        """Take content of `blocks` blocks, the last of which is filled up with zeros."""
        content += bytes(blocks * BLOCK - len(content))
        place = 0
        while place < len(content):
            room = self._room(first + place // BLOCK, len(content) - place)
            room[:] = content[place : place + len(room)]
            place += len(room)

    def copy(self, path: bytes, top: int, size: int, first: int, blocks: int, rest: int) -> memoryview:
        """Take `blocks` blocks of a file, and return the `rest` behind them; valid until the next file."""
        try:
            # What became a FIFO meanwhile is not waited for.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=top)
        except OSError as error:
            raise _unread(path, error) from error
        tail = self._tail[:rest]
        try:
            before = os.fstat(descriptor) if size > _PIECE else None
            place, end = 0, blocks * BLOCK
            while place < end:
                room = self._room(first + place // BLOCK, end - place)
                wanted = min(len(room), size - place)
                views = [room[:wanted], tail] if place + len(room) == end else [room[:wanted]]
                self._read(descriptor, views, place, path)
                room[wanted:] = bytes(len(room) - wanted)
                place += len(room)
            if not blocks:
                self._read(descriptor, [tail], 0, path)
            after = os.fstat(descriptor)
            if after.st_size != size or (before and after.st_mtime_ns != before.st_mtime_ns):
                raise _changed(path)
        finally:
            os.close(descriptor)
        return tail

    def _read(self, descriptor: int, views: Sequence[memoryview], place: int, path: bytes) -> None:
        try:
            got, wanted = os.preadv(descriptor, views, place), sum(map(len, views))
        except OSError as error:
            raise _unread(path, error) from error
        if got == wanted:
            return
        for view in views:  # a network's file system gives what it has
            done = 0
            while done < len(view):
                got = os.preadv(descriptor, [view[done:]], place)
                if not got:
                    raise _changed(path)
                done, place = done + got, place + got
