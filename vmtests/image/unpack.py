"""Unpacks the archive that Compute Engine imports: a gzip tar of the old GNU format with `disk.raw` alone.

Holes of the archive, and blocks of zeros, become holes of the file.
"""

import errno
import gzip
import os
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from vmtests import progress
from vmtests.errors import HostError, InputError
from vmtests.image.check import Check, breach, clean, passed
from vmtests.resources import cache_dir

MEMBER = "disk.raw"

_BLOCK = 1 << 16  # bytes; a block of zeros is not written
_ZEROS = bytes(_BLOCK)
_OLD_GNU = b"ustar  \0"  # tar(5): magic and version of the GNU format, at 257
_HINT = "tar --format=oldgnu -Sczf image.tar.gz disk.raw"


def unpack(path: Path, source: int, target: int) -> tuple[Check, ...]:
    """Unpack the disk in the archive `path`, open as `source`, into the file `target`; say what was found.

    Raises InputError when the archive is truncated, damaged, or holds anything but `disk.raw`; HostError
    when the disk is full.
    """
    try:
        with (
            progress.step(f"unpacking {clean(path.name)}"),
            os.fdopen(os.dup(source), "rb") as file,
            gzip.GzipFile(fileobj=file) as plain,
        ):
            first = plain.read(512)
            plain.seek(0)
            with tarfile.open(fileobj=plain, mode="r:") as archive:
                member = _member(path, archive)
                _copy(path, archive, member, target)
            _refuse_more(path, plain)
            while plain.read(1 << 20):  # to its end, where the checksum is
                pass
    except (EOFError, gzip.BadGzipFile, zlib.error, tarfile.TarError) as error:
        raise _broken(path, error) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise HostError(
                f"{path} cannot be unpacked: {error.strerror}", hint="free some space, or set VMTESTS_CACHE"
            ) from error
        raise HostError(f"{path} cannot be unpacked: {error.strerror or error}") from error
    if first[257:265] == _OLD_GNU and not member.pax_headers:
        return (passed("archive", "format", "old GNU"),)
    text = "the archive is not a tar of the old GNU format, which Compute Engine asks for"
    return (breach("archive", "format", "not old GNU", text, _HINT),)


def _refuse_more(path: Path, plain: gzip.GzipFile) -> None:
    """Raise unless the archive ends here. tarfile would step back one byte, and gzip would begin anew."""
    plain.read(-plain.tell() % tarfile.BLOCKSIZE)
    block = plain.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise EOFError
    if block.strip(b"\0"):
        other = tarfile.TarInfo.frombuf(block, "utf-8", "replace")
        raise _wrong_content(path, f"{MEMBER} and {clean(other.name)}")


def _member(path: Path, archive: tarfile.TarFile) -> tarfile.TarInfo:
    member = archive.next()
    if member is None:
        raise InputError(f"{path} is an empty archive", hint=_HINT)
    if member.name != MEMBER or not member.isreg():
        raise _wrong_content(path, clean(member.name))
    if member.size <= 0 or any(offset < 0 or size < 0 or offset + size > member.size for offset, size in _map(member)):
        raise InputError(f"{path} is damaged: {MEMBER} has impossible sizes", hint="pack it again")
    return member


def _map(member: tarfile.TarInfo) -> list[tuple[int, int]]:
    """Return the ranges of the disk that the archive holds, as (offset, size) in bytes."""
    sparse: list[tuple[int, int]] | None = getattr(member, "sparse", None)
    # The four entries of a header are there also when fewer are used (tar(5)).
    return [(0, member.size)] if sparse is None else [(offset, size) for offset, size in sparse if size]


def _copy(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo, target: int) -> None:
    os.ftruncate(target, member.size)
    content = archive.extractfile(member)
    assert content is not None
    end = 0
    for offset, size in _map(member):
        if offset < end:
            raise InputError(f"{path} is damaged: {MEMBER} has ranges that overlap", hint="pack it again")
        end = offset + size
        _copy_range(content, offset, size, target)


def _copy_range(content: IO[bytes], offset: int, size: int, target: int) -> None:
    content.seek(offset)
    while size:
        block = content.read(min(_BLOCK, size))
        if not block:
            raise EOFError
        if block != _ZEROS[: len(block)]:
            os.pwrite(target, block, offset)
        offset += len(block)
        size -= len(block)


def _wrong_content(path: Path, found: str) -> InputError:
    return InputError(f"{path} holds {found}; an image archive holds {MEMBER} and nothing else", hint=_HINT)


def _broken(path: Path, error: Exception) -> InputError:
    if isinstance(error, EOFError) or "unexpected end" in str(error):
        return InputError(f"{path} is truncated: its gzip data ends too early", hint="copy or download it again")
    if isinstance(error, tarfile.TarError):
        return InputError(f"{path} is compressed with gzip, but holds no whole tar archive", hint=_HINT)
    return InputError(f"{path} is damaged: {error}", hint="copy or download it again")


@contextmanager
def scratch() -> Iterator[int]:
    """Give the descriptor of an empty file in the cache that has no name, so that nothing can be left."""
    with tempfile.TemporaryFile(dir=cache_dir()) as file:
        yield file.fileno()
