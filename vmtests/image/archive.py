"""The archive that Compute Engine imports: `disk.raw` alone, in a sparse tar of the old GNU format, gzipped.

The disk is read once, from its first byte to its last and without its holes, and compressed by as many threads as
there are processors, so the archive can go to a file, a pipe or a bucket as it comes into being.
"""

import contextlib
import errno
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from isal import igzip_threaded

from vmtests import progress
from vmtests.errors import InputError, at_named
from vmtests.image.mkerofs import STORE_TIME
from vmtests.image.target import beside, publish
from vmtests.sizes import GIB, MIB, format_size

MEMBER = "disk.raw"

_LEVEL = 3  # igzip's: at most 1.09 times the size of gzip's own default, where 1 and 2 took up to 1.12 times
_BLOCK = MIB
_HEADER_RANGES, _MORE_RANGES = 4, 21  # ranges in a header, and in each block that goes on with them (tar(5))
_NUMBER = 12  # bytes of a number in a header
_MAP = 386  # where the ranges of a header are, with two numbers each
_EXTENDED = 482  # where it says whether a block with more of them comes
_REAL_SIZE = 483


def pack(disk: Path, archive: Path) -> None:
    """Pack `disk` into the file `archive`, which appears whole or not at all; equal disks give equal archives.

    Raises InputError when the disk is not a whole number of GiB, HostError when the file cannot be written.
    """
    check(disk)
    with progress.step(f"archive {archive.name}") as running, beside(archive) as work:
        partial = work / "archive"
        try:
            with partial.open("wb") as file:
                write(disk, file, running)
            publish(partial, archive)
        except OSError as error:
            raise at_named(f"{archive} cannot be written", error, "name another place") from error


def check(disk: Path) -> None:
    """Raise InputError when `disk` is none that Compute Engine takes, or cannot be looked at."""
    try:
        found = disk.stat()
    except OSError as error:
        raise InputError(f"{disk} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{disk} is no file", hint="an archive is made of a raw disk image")
    if found.st_size == 0 or found.st_size % GIB:
        raise InputError(
            f"{disk} has {format_size(found.st_size)}; Compute Engine takes a whole number of GiB",
            hint=f"truncate -s {max(-(-found.st_size // GIB), 1)}G on a copy; the last partition grows at boot",
        )


def write(disk: Path, sink: IO[bytes], running: progress.Step) -> None:
    """Write the archive of `disk` to `sink`, which takes all that it is given and is not closed. Raises OSError."""
    with disk.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        ranges = list(data_ranges(file.fileno(), size))
        total, done = sum(length for _, length in ranges), 0
        # It names neither a file nor a time, and its blocks do not follow from the number of threads: equal disks give
        # equal archives.
        with igzip_threaded.open(  # type: ignore[no-untyped-call]
            sink, "wb", compresslevel=_LEVEL, threads=len(os.sched_getaffinity(0)), block_size=_BLOCK
        ) as out:
            out.write(_header(size, ranges))
            for block in _content(file.fileno(), ranges):
                out.write(block)
                done += len(block)
                running.amount(done, total)
            # Content and end are each filled up, the latter to a record of twenty blocks (tar(5)).
            out.write(bytes(-total % tarfile.BLOCKSIZE))
            written = len(_header(size, ranges)) + total + -total % tarfile.BLOCKSIZE
            end = 2 * tarfile.BLOCKSIZE
            out.write(bytes(end + -(written + end) % tarfile.RECORDSIZE))
        sink.flush()


def data_ranges(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Give the ranges of a file that are no holes, as (offset, length) in bytes (lseek(2), SEEK_DATA)."""
    place = 0
    while place < size:
        try:
            begin = os.lseek(descriptor, place, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # a hole up to the end
                raise
            return
        place = min(os.lseek(descriptor, begin, os.SEEK_HOLE), size)
        # Whole blocks of the archive, also where the file system counts in other units.
        begin -= begin % tarfile.BLOCKSIZE
        place = min(place + -place % tarfile.BLOCKSIZE, size)
        yield begin, place - begin


def _content(descriptor: int, ranges: list[tuple[int, int]]) -> Iterator[bytes]:
    """Give the bytes of `ranges`, in blocks that the page cache is asked not to keep double."""
    for offset, length in ranges:
        with contextlib.suppress(OSError):
            os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_SEQUENTIAL)
        place, end = offset, offset + length
        while place < end:
            block = os.pread(descriptor, min(_BLOCK, end - place), place)
            if not block:
                raise OSError(errno.EIO, "the disk became shorter while it was read")
            yield block
            place += len(block)


def _header(size: int, ranges: list[tuple[int, int]]) -> bytes:
    """Return the header of `disk.raw` with its map of `ranges`, and the blocks in which that goes on."""
    # A map that is empty or ends before the file does says by an empty range where the end is.
    entries = [*ranges] if ranges and sum(ranges[-1]) == size else [*ranges, (size, 0)]
    member = tarfile.TarInfo(MEMBER)
    member.size = sum(length for _, length in ranges)
    member.mtime, member.mode, member.type = STORE_TIME, 0o644, tarfile.GNUTYPE_SPARSE
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    first, more = entries[:_HEADER_RANGES], entries[_HEADER_RANGES:]
    _put_ranges(header, _MAP, first)
    header[_EXTENDED] = bool(more)
    header[_REAL_SIZE : _REAL_SIZE + _NUMBER] = _number(size)
    # The checksum is the sum of all bytes, with spaces in its own place: six digits, a zero and a space.
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    blocks = [bytes(header)]
    while more:
        block = bytearray(tarfile.BLOCKSIZE)
        part, more = more[:_MORE_RANGES], more[_MORE_RANGES:]
        _put_ranges(block, 0, part)
        block[2 * _NUMBER * _MORE_RANGES] = bool(more)
        blocks.append(bytes(block))
    return b"".join(blocks)


def _put_ranges(block: bytearray, place: int, ranges: list[tuple[int, int]]) -> None:
    for number in (value for entry in ranges for value in entry):
        block[place : place + _NUMBER] = _number(number)
        place += _NUMBER


def _number(value: int) -> bytes:
    """Return a number as eleven octal digits, or what does not fit into them in base 256 (tar(5))."""
    if value < 8 ** (_NUMBER - 1):
        return b"%011o\0" % value
    return bytes([0x80]) + value.to_bytes(_NUMBER - 1, "big")
