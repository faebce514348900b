"""Takes the disk out of what it is packed into: a compressed stream, a tar, a zip; holes and zeros become holes.

Nothing is unpacked by a name that stands in an archive, and only regular files are taken, so no member can lead
elsewhere.
"""

import errno
import io
import lzma
import os
import re
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, cast

from vmtests import progress
from vmtests.errors import HostError, InputError
from vmtests.host.formats import (
    DRIVERS,
    HEAD,
    Format,
    Packing,
    again,
    has_table,
    identify,
    inner_name,
    is_extent,
    looks_like_a_disk,
)
from vmtests.host.tools import Toolbox
from vmtests.image import gpt
from vmtests.image.check import Check, clean, note, passed
from vmtests.image.filesystem import probe
from vmtests.image.stream import Stream, StreamError, unpacked
from vmtests.resources import cache_dir
from vmtests.sizes import GIB, MIB, format_size

MEMBER = "disk.raw"
"""The one member of an archive for Compute Engine."""

LIMIT = 256 * GIB
"""Bytes of a disk that is unpacked."""

_BLOCK = 1 << 16  # bytes; a block of zeros is not written
_ZEROS = bytes(_BLOCK)
_MUCH_NOTHING = bytes(MIB)
_RATIO = 250  # of bytes that are no zeros to packed ones; real disks have less than 20
_OLD_GNU = b"ustar  \0"  # tar(5): magic and version of the GNU format, at 257
_GCE_HINT = "tar --format=oldgnu -Sczf image.tar.gz disk.raw"
_ONE_LAYER = 0.95  # of a container's image that is one layer
_BEHIND = 64 << 20  # bytes behind the end of an archive; tar(1) fills its last record, of 10 KiB and seldom of a MiB
_MEMBERS = 10_000  # of an archive that are looked at
_LONG = 1 << 20  # bytes of a name or of pax headers, which tarfile keeps in memory
_LIST = 4 << 20  # bytes of the list of a zip's files: 40,000 with short names
_MAP = 8 << 20  # bytes of a member's headers with the map of its holes: 350,000 ranges
_ARCHIVE = re.compile(r"\.(?:tar(?:\.\w{2,4})?|zip)$", re.IGNORECASE)
_FILES_HINT = "a tool that makes disks of it is needed first: mkosi, bootc install to-disk, systemd-repart"
_TYPES = {"1": "a hard link", "2": "a symbolic link", "3": "a device", "4": "a device", "5": "a directory"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """What came out: the name that it had, how it was packed (`tar.gz`), and why Compute Engine would refuse it.

    `refused` is empty for an archive as Compute Engine takes it.
    """

    name: str
    packing: str
    refused: str

    @property
    def check(self) -> Check:
        """Whether Compute Engine takes it as it is: no fault, since vmtests packs it anew where that is needed."""
        if not self.refused:
            return passed("archive", "format", "old GNU")
        text = f"Compute Engine does not take the archive as it is: {self.refused}"
        return note("archive", "format", self.packing, text)


def unpack(path: Path, source: int, packing: Packing, name: str, target: int, toolbox: Toolbox) -> Unpacked:
    """Unpack the disk in the file `path`, open as `source` and called `name`, into the file `target`.

    Raises InputError when it is truncated, damaged, or holds no disk or several; HostError when the disk is full.
    """
    with _errors(path), progress.step(f"unpacking {clean(path.name)}") as running:
        write = _Writer(path, source, target, running)
        if packing is Packing.ZIP:
            return _unzip(path, source, write)

        def once(nested: str) -> Unpacked:
            os.lseek(source, 0, os.SEEK_SET)
            plain: AbstractContextManager[Stream] = nullcontext(_File(source))
            if packing is not Packing.TAR:
                plain = unpacked(source, packing, toolbox, lenient=True)
            return _stream(path, plain, packing, name, write, nested)

        try:
            return once("")
        except _NestedError as error:  # a stream is read from its beginning only
            return once(error.member)


def compute_engine(path: Path, source: int, target: int) -> None:
    """Unpack an archive as Compute Engine does; raises InputError for whatever it refuses, HostError."""
    with _errors(path), progress.step(f"unpacking {clean(path.name)}") as running:
        plain = unpacked(source, Packing.GZIP, None)
        found = _stream(path, plain, Packing.GZIP, path.name, _Writer(path, source, target, running))
        if found.refused:
            raise InputError(f"{path}: {found.refused}", hint=_GCE_HINT)


def _stream(
    path: Path, plain: AbstractContextManager[Stream], packing: Packing, name: str, write: "_Writer", nested: str = ""
) -> Unpacked:
    with plain as inside:
        stream = _Ahead(inside, write.most)
        if packing is not Packing.TAR and identify(stream.head, b"", inner_name(name, packing)) is not Packing.TAR:
            write.whole(stream)
            refused = "it is no tar archive"
            return Unpacked(name=inner_name(name, packing), packing=packing.value, refused=refused)
        found, refused = _untar(path, stream, write, nested)
        end = stream.tell()
        while packing is not Packing.TAR and stream.read(MIB):  # to its end, where the checksum is
            if stream.tell() - end > _BEHIND:
                raise StreamError(f"more than {format_size(_BEHIND)} follow the end of its archive")
        shown = "tar" if packing is Packing.TAR else f"tar.{packing}"
        if packing is not Packing.GZIP:
            refused = f"it is a {shown}, not a tar.gz"
        elif not refused and stream.head[257:265] != _OLD_GNU:
            refused = "it is not a tar of the old GNU format"
        return Unpacked(name=found, packing=shown, refused=refused)


class _Bounded(io.BufferedReader):
    """A zip that gives a few MiB at a time: zipfile reads the list of its files in one piece, and keeps it."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Return `size` bytes; raises StreamError where that is too much."""
        if size is not None and size > _LIST:
            raise StreamError("the list of its files does not end")
        return super().read(size)


class _NestedError(Exception):
    """An archive that has no disk, and one archive in it."""

    def __init__(self, member: str) -> None:
        super().__init__(member)
        self.member = member


def _untar(path: Path, stream: "_Ahead", write: "_Writer", nested: str) -> tuple[str, str]:
    """Unpack the one disk of a tar, or the archive in it that is called `nested`; return its name, and why Compute
    Engine would refuse the archive.

    Raises _NestedError where there is one archive and no disk.
    """
    found, others, odd, refused = "", dict[str, int](), "", ""
    members = 0
    stream.headers(_MAP)
    with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r:") as archive:
        for member in archive:
            members += 1
            if members > _MEMBERS:
                raise InputError(f"{path} holds more than {_MEMBERS} files", hint="give the disk inside it")
            if not member.isreg():
                kind = _TYPES.get(member.type.decode("latin-1"), "no file")
                odd = odd or f"{clean(member.name)}, which is {kind}"
            elif member.name != nested and not _is_disk(member.name, member.size, lambda: stream.peek(HEAD + 512)):
                others[member.name] = member.size
            elif found:
                raise _several(path, [found, member.name])
            else:
                found = member.name
                stream.headers(None)
                _copy_member(path, archive, member, write)
                stream.headers(_MAP)
                if member.pax_headers:
                    refused = "it is not a tar of the old GNU format"
    stream.headers(None)
    if not found:
        what = odd or ", ".join(clean(name) for name in list(others)[:3])
        if not what:
            raise InputError(f"{path} is an empty archive", hint=_GCE_HINT)
        if inner := _nested(path, others):
            raise _NestedError(inner)
        raise InputError(f"{path} holds {what}, and no disk", hint="an archive holds one disk image")
    if members > 1 or found != MEMBER:
        others_too = f" and {members - 1} more" if members > 1 else ""
        refused = f"it holds {clean(found)}{others_too}, and not {MEMBER} alone"
    return found, refused


def _nested(path: Path, members: Mapping[str, int]) -> str:
    """Return the one archive among the members, with their sizes, of one that has no disk.

    Raises InputError for the image of a container, but where nearly all of it is one layer: KubeVirt's have a disk.
    """
    plain = {name.removeprefix("./") for name in members}
    if "oci-layout" in plain or ("manifest.json" in plain and any("layer" in name for name in plain)):
        largest = max(members, key=lambda name: members[name])
        if members[largest] >= MIB and members[largest] > _ONE_LAYER * sum(members.values()):
            return largest
        raise InputError(f"{path} is a container image: it has neither a disk nor a kernel", hint=_FILES_HINT)
    if "metadata.yaml" in plain and any(name.startswith("rootfs/") for name in plain):
        raise InputError(f"{path} is the image of a container (Incus, LXD), and no disk", hint=_FILES_HINT)
    if plain & {"etc/os-release", "usr/lib/os-release", "etc/passwd"}:
        raise InputError(f"{path} holds the files of a system, and no disk", hint=_FILES_HINT)
    if any(name.startswith("Ref:") for name in plain):
        raise InputError(f"{path} is an image of XenServer, whose disk is in pieces", hint="xva-img makes a raw disk")
    archives = [name for name in members if _ARCHIVE.search(name)]
    return archives[0] if len(archives) == 1 else ""


def _is_disk(name: str, size: int, head: Callable[[], bytes]) -> bool:
    """Whether a member is a disk: by its name, or by its first bytes where its name says nothing (`-`, `image`)."""
    base = name.rpartition("/")[2]
    if not size or is_extent(base) or base.startswith("._") or base.isdigit():
        return False
    if "." in base:
        return looks_like_a_disk(base)
    found = head() if size >= MIB else b""
    return has_table(found) or identify(found, b"", "") in DRIVERS


def _several(path: Path, names: list[str]) -> InputError:
    listed = ", ".join(clean(name) for name in names[:4])
    return InputError(f"{path} holds more than one disk: {listed}", hint="unpack it and give one of them")


def _copy_member(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo, write: "_Writer") -> None:
    sparse: list[tuple[int, int]] | None = getattr(member, "sparse", None)
    # The four entries of a header are there also when fewer are used (tar(5)).
    ranges = [(0, member.size)] if sparse is None else [(offset, size) for offset, size in sparse if size]
    end = 0
    for offset, size in ranges:
        if offset < end or size < 0 or offset + size > member.size:
            raise InputError(f"{path} is damaged: {clean(member.name)} has impossible ranges", hint="pack it again")
        end = offset + size
    content = archive.extractfile(member)
    assert content is not None
    write.begin(member.size)
    for offset, size in ranges:
        content.seek(offset)
        write.range(content, offset, size)


def _unzip(path: Path, source: int, write: "_Writer") -> Unpacked:
    with _Bounded(io.FileIO(os.dup(source))) as file, zipfile.ZipFile(file) as archive:
        # Not by is_dir(), which falls over a name that begins with NUL: it is cut there.
        members = [info for info in archive.infolist() if not info.filename.endswith("/")]
        if any(info.flag_bits & 1 for info in members):
            raise InputError(f"{path} is encrypted with a password", hint="unzip it and give the disk")

        def head(info: zipfile.ZipInfo) -> bytes:
            with archive.open(info) as content:
                return content.read(HEAD + 512)

        disks = [info for info in members if _is_disk(info.filename, info.file_size, partial(head, info))]
        if len(disks) > 1:
            raise _several(path, [info.filename for info in disks])
        if not disks and (nested := _nested(path, {info.filename: info.file_size for info in members})):
            disks = [info for info in members if info.filename == nested][:1]
        if not disks:
            what = ", ".join(clean(info.filename) for info in members[:3]) or "nothing"
            raise InputError(f"{path} holds {what}, and no disk", hint="an archive holds one disk image")
        disk = disks[0]
        with archive.open(disk) as content:
            write.begin(disk.file_size)
            write.range(content, 0, disk.file_size)
            content.read(1)  # to its end, where the checksum is
        return Unpacked(name=disk.filename, packing="zip", refused="it is a zip, not a tar.gz")


class _File:
    """A plain file as a stream."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, size: int, /) -> bytes:
        return os.read(self._descriptor, size)


class _Ahead:
    """A stream whose first bytes can be looked at before they are read; `read` gives all that was asked for.

    It can be wound forward, by `most` bytes in all, and back by the one byte by which tarfile looks whether a member
    was whole.
    """

    def __init__(self, inner: Stream, most: int) -> None:
        self._inner = inner
        self._most = self._left = most
        self._place = 0
        self._allowed: int | None = None
        self._last = b""
        self._waiting = self._full(MIB)
        self.head = self._waiting[: HEAD + 512]
        self.start = self._waiting

    def _full(self, size: int) -> bytes:
        found = bytearray()
        while len(found) < size and (data := self._inner.read(size - len(found))):
            found += data
        return bytes(found)

    def headers(self, limit: int | None) -> None:
        """Let `read` give `limit` bytes more, and little of them at once, to a reader that keeps them in memory.

        None is no limit. tarfile reads what follows a header in one piece.
        """
        self._allowed = limit

    def peek(self, size: int) -> bytes:
        """Return the next bytes without reading them."""
        if len(self._waiting) < size:
            self._waiting += self._full(size - len(self._waiting))
        return self._waiting[:size]

    def read(self, size: int, /) -> bytes:
        if self._allowed is not None and size > _LONG:
            raise StreamError(f"its headers have {size} bytes")
        data = self._take(size)
        if self._allowed is not None:
            self._allowed -= len(data)
            if self._allowed < 0:
                raise StreamError("the headers of its archive do not end")
        return data

    def _take(self, size: int) -> bytes:
        data, self._waiting = self._waiting[:size], self._waiting[size:]
        if len(data) < size:
            data += self._full(size - len(data))
        self._place += len(data)
        self._last = data[-1:] or self._last
        return data

    def tell(self) -> int:
        """Return how much was read."""
        return self._place

    def seekable(self) -> bool:
        """Return whether it can be wound."""
        return True

    def seek(self, place: int, /) -> int:
        """Read on to `place`, which may be one byte back; raises StreamError."""
        if place == self._place - 1 and self._last:
            self._waiting, self._last = self._last + self._waiting, b""
            self._place = place
        while self._place < place and (passed := self._take(min(MIB, place - self._place))):
            self._left -= len(passed)
            if self._left < 0:
                raise StreamError(f"beside a disk it holds more than {format_size(self._most)}")
        if self._place > place:
            raise StreamError("its archive goes back")
        return self._place


class _Head:
    """The first bytes of a disk that is not there yet."""

    def __init__(self, data: bytes, size: int) -> None:
        self._data = data
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]


class _Writer:
    """Writes a disk into a file, sparse, and stops where it is none, or no honest one."""

    def __init__(self, path: Path, source: int, target: int, running: progress.Step) -> None:
        self._path = path
        self.most = max(GIB, os.fstat(source).st_size * _RATIO)
        """Bytes that are no zeros, or not of the disk."""
        self._target = target
        self._running = running
        self._written = 0
        self._limit = LIMIT

    def begin(self, size: int) -> None:
        """Make room for `size` bytes."""
        if size > LIMIT:
            raise self._too_large(format_size(size))
        os.ftruncate(self._target, size)

    def whole(self, stream: _Ahead) -> None:
        """Write all of a stream."""
        self._look(stream.start)
        offset = 0
        while data := stream.read(MIB):
            self._put(data, offset)
            offset += len(data)
        os.ftruncate(self._target, offset)

    def range(self, content: IO[bytes], offset: int, size: int) -> None:
        """Write the next `size` bytes of `content` at `offset`."""
        first = offset == 0
        while size:
            data = content.read(min(MIB, size))
            if not data:
                raise EOFError
            if first:
                self._look(data)
                first = False
            self._put(data, offset)
            offset += len(data)
            size -= len(data)

    def _look(self, start: bytes) -> None:
        """Raise unless a disk begins like this: what is none can unpack to any size."""
        head = _Head(start, LIMIT)
        kind = identify(start, b"", "")
        known = kind is not Format.RAW or gpt.has_mbr(head) or gpt.sector_size(head) or probe(head)
        if not known and len(start) >= MIB:
            begin = start[:8].hex() if start.strip(b"\0") else "1 MiB of zeros"
            raise InputError(
                f"{self._path} holds no disk: what is inside begins with {begin}", hint=again(self._path.name)
            )
        if kind is Format.RAW and (size := gpt.sector_size(head)) and (count := gpt.claimed_sectors(head, size)):
            if count * size > LIMIT:
                raise self._too_large(format_size(count * size))
            self._limit = count * size + GIB

    def _put(self, data: bytes, offset: int) -> None:
        if offset + len(data) > self._limit:
            raise self._too_large(f"more than {format_size(self._limit)}")
        # Most of a disk is often nothing, which is seen at once.
        for place in () if data == _MUCH_NOTHING else range(0, len(data), _BLOCK):
            block = data[place : place + _BLOCK]
            if block != _ZEROS[: len(block)]:
                os.pwrite(self._target, block, offset + place)
                self._written += len(block)
        self._running.note(format_size(offset + len(data)))
        if self._written > self.most:
            raise self._too_large(f"more than {_RATIO} times its size")

    def _too_large(self, what: str) -> InputError:
        text = f"{self._path} unpacks to {what}; a disk that is packed has at most {format_size(LIMIT)}"
        return InputError(text, hint="unpack it yourself and give the disk")


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Turn what readers of archives raise into one sentence."""
    try:
        yield
    except StreamError as error:
        text = str(error)
        kind = "truncated" if "ends too early" in text else "damaged"
        raise InputError(f"{path} is {kind}: {text}", hint=again(path.name)) from error
    except (EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
        words, hint = clean(str(error)), again(path.name)
        # The list of a zip's files is at its end.
        if (
            isinstance(error, EOFError)
            or words == "File is not a zip file"
            or "unexpected end" in words
            or "truncated" in words
        ):
            raise InputError(f"{path} is truncated: its archive ends too early", hint=again(path.name)) from error
        raise InputError(
            f"{path} is damaged: {words or 'its archive cannot be read'}", hint=again(path.name)
        ) from error
    except ValueError as error:  # of a number or a map that is none; its words are about Python
        raise InputError(f"{path} is damaged: its archive cannot be read", hint=again(path.name)) from error
    except (NotImplementedError, RuntimeError) as error:
        raise InputError(f"{path} cannot be unpacked: {clean(str(error))}", hint="unpack it yourself") from error
    except OSError as error:
        if error.errno is None:  # bz2's
            raise InputError(f"{path} is damaged: {clean(str(error))}", hint=again(path.name)) from error
        hint = None
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            hint = "free some space, or set VMTESTS_CACHE"
        raise HostError(f"{path} cannot be unpacked: {error.strerror or error}", hint=hint) from error


@contextmanager
def scratch() -> Iterator[int]:
    """Give the descriptor of an empty file in the cache that has no name, so that nothing can be left."""
    with tempfile.TemporaryFile(dir=cache_dir()) as file:
        yield file.fileno()


Make = Callable[[], int]
"""Gives the descriptor of a new file to unpack into."""
