"""The files of a FAT that is not mounted (Microsoft's specification of 2000).

Own code, since mtools converts names by the host's locale and takes some for patterns, which no firmware does; every
walk of the hostile bytes is bounded.
"""

import functools
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vmtests.image import fat
from vmtests.image.check import clean
from vmtests.image.files import FilesError

_ROOT = 0  # the cluster of the root directory, as `..` names it
_FILES_LIMIT = 50_000
_DIRECTORY_LIMIT = 2 << 20  # bytes
_DIRECTORIES_LIMIT = 256 << 20  # bytes of all of them: many may be the same few clusters
_PATH_LIMIT = 4096  # characters; no firmware takes as many
_CLUSTERS_LIMIT = 1 << 23  # of a file
_BLOCK = 3 << 14  # bytes of the FAT that are read at once: whole entries of 12, 16 and 32 bits
_BLOCKS_KEPT = 64
_PIECE = 1 << 20
_DELETED, _KANJI = 0xE5, 0x05  # first bytes of a short name; the second stands for the first
_LABEL, _DIRECTORY, _LONG = 0x08, 0x10, 0x0F


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file or directory: its first cluster, and its size in bytes."""

    name: str
    short: str
    cluster: int
    size: int
    directory: bool


class FatFiles:
    """The files of a FAT file system at byte `offset` of the open file `descriptor`; nothing is written.

    Names are those that firmware and Linux see: the long one, else the short one.
    """

    def __init__(self, descriptor: int, offset: int) -> None:
        self._descriptor = descriptor
        self._offset = offset
        self._fat: dict[int, bytes] = {}
        self._directories: dict[int, list[_Entry]] = {}
        self._named: dict[int, dict[str, _Entry]] = {}
        self._looked_at = 0

    def names(self) -> dict[str, str]:
        """Return all files by their path in lower case; the value has it as written. Raises FilesError."""
        found: dict[str, str] = {}
        waiting, seen, count = [("", _ROOT)], {_ROOT}, 0
        while waiting:
            place, cluster = waiting.pop()
            for entry in self._entries(cluster):
                if (count := count + 1) > _FILES_LIMIT:
                    raise FilesError(f"it has more than {_FILES_LIMIT} files")
                path = f"{place}/{entry.name}"
                if not entry.directory:
                    found[path.lower()] = path
                elif entry.cluster in seen:
                    raise FilesError(f"{clean(path)} is a directory that holds itself, or is another one, too")
                else:
                    seen.add(entry.cluster)
                    waiting.append((path, entry.cluster))
        return found

    def find(self, path: str) -> str | None:
        """Return a file's path as it is written there; FAT ignores upper and lower case. Raises FilesError."""
        found = self._resolve(path)
        return None if found is None or found[1].directory else found[0]

    def directory(self, path: str) -> bool:
        """Whether there is a directory at a path. Raises FilesError."""
        return (found := self._resolve(path)) is not None and found[1].directory

    def below(self, directory: str, suffix: str) -> list[str]:
        """Return the files directly in `directory` that end with `suffix`, sorted. Raises FilesError."""
        found = self._resolve(directory)
        if found is None or not found[1].directory:
            return []
        entries = self._entries(found[1].cluster)
        names = [entry.name for entry in entries if not entry.directory and entry.name.lower().endswith(suffix)]
        return sorted(f"{found[0]}/{name}" for name in names)

    def read(self, path: str, limit: int) -> bytes:
        """Return the first `limit` bytes of a file, fewer where it is shorter. Raises FilesError."""
        return self.pick(path, ((0, limit),))[0]

    def pick(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return ranges (offset, size in bytes) of a file; one beyond its end is short. Raises FilesError."""
        return [b"".join(self.chunks(path, offset, size)) for offset, size in ranges]

    def chunks(self, path: str, offset: int, size: int) -> Iterator[bytes]:
        """Yield a range of a file, piece by piece; raises FilesError."""
        found = self._resolve(path)
        if found is None or found[1].directory:
            raise FilesError(f"{clean(path)} is no file")
        end = min(offset + size, found[1].size)
        if offset < end:
            yield from self._data(found[1].cluster, offset, end)

    @functools.cached_property
    def _sector(self) -> fat.BootSector:
        sector = fat.parse(self._pread(0, 512))
        if sector is None or sector.clusters == 0:
            raise FilesError("it has no FAT boot sector that says where its files are")
        return sector

    def _resolve(self, path: str) -> tuple[str, _Entry] | None:
        place, here = "", _Entry("", "", _ROOT, 0, directory=True)
        if len(path) > _PATH_LIMIT:
            return None
        for part in path.replace("\\", "/").split("/"):
            if part in ("", "."):
                continue
            found = self._by_name(here.cluster).get(part.lower()) if here.directory else None
            if found is None:
                return None
            place, here = f"{place}/{found.name}", found
        return place, here

    def _by_name(self, cluster: int) -> dict[str, _Entry]:
        """Return a directory's entries by name in lower case; EDK2 finds a file by either of its names, the first
        that has it (EnhancedFatDxe/DirectoryCache.c).
        """
        if cluster not in self._named:
            named = self._named[cluster] = {}
            for entry in self._entries(cluster):
                for name in (entry.name, entry.short):
                    named.setdefault(name.lower(), entry)
        return self._named[cluster]

    def _entries(self, cluster: int) -> list[_Entry]:
        if cluster not in self._directories:
            data = self._directory(cluster)
            self._looked_at += len(data)
            if self._looked_at > _DIRECTORIES_LIMIT:
                raise FilesError("its directories lead to too much")
            self._directories[cluster] = list(_entries(data))
        return self._directories[cluster]

    def _directory(self, cluster: int) -> bytes:
        sector = self._sector
        if cluster == _ROOT and not sector.fat32_layout:
            return self._pread((sector.reserved + sector.fats * sector.fat_sectors) * sector.sector_size,
                               sector.root_entries * 32)  # fmt: skip
        first = sector.root_cluster if cluster == _ROOT else cluster
        data = bytearray()
        for start, length in self._runs(first):
            data += self._pread(start, min(length, _DIRECTORY_LIMIT - len(data)))
            if len(data) >= _DIRECTORY_LIMIT:
                break  # no directory is larger (FAT specification, 6.2); its clusters may go in a circle
        return bytes(data)

    def _data(self, cluster: int, offset: int, end: int) -> Iterator[bytes]:
        at = 0
        for start, length in self._runs(cluster):
            begin, stop = max(at, offset), min(at + length, end)
            while begin < stop:
                yield self._pread(start + begin - at, step := min(_PIECE, stop - begin))
                begin += step
            at += length
            if at >= end:
                return
        raise FilesError("a file's clusters end before it does")

    def _runs(self, cluster: int) -> Iterator[tuple[int, int]]:
        """Yield place and length in bytes of clusters that follow each other, as the FAT chains them."""
        sector = self._sector
        unit, last = sector.cluster_sectors * sector.sector_size, sector.clusters + 1
        first_data = sector.size_before_clusters
        bits = int(sector.type.removeprefix("FAT"))
        mask = (1 << min(bits, 28)) - 1
        first, count = cluster, 0
        for _ in range(min(sector.clusters, _CLUSTERS_LIMIT)):
            if not 2 <= cluster <= last:
                raise FilesError("its clusters lead out of it")
            count += 1
            if (following := self._following(cluster, bits, mask)) != cluster + 1 or count * unit >= _PIECE:
                yield first_data + (first - 2) * unit, count * unit
                first, count = following, 0
            if following >= mask - 7:
                return
            cluster = following
        raise FilesError("its clusters go in a circle")

    def _following(self, cluster: int, bits: int, mask: int) -> int:
        block, at = divmod(cluster * bits // 8, _BLOCK)
        if block not in self._fat:
            if len(self._fat) >= _BLOCKS_KEPT:
                self._fat.clear()
            sector = self._sector
            start, size = sector.reserved * sector.sector_size, sector.fat_sectors * sector.sector_size
            length = min(_BLOCK + 4, max(0, size - block * _BLOCK))
            self._fat[block] = self._pread(start + block * _BLOCK, length)
        entry = int.from_bytes(self._fat[block][at : at + 4], "little")
        return (entry >> 4 if bits == 12 and cluster & 1 else entry) & mask

    def _pread(self, offset: int, length: int) -> bytes:
        try:
            data = os.pread(self._descriptor, length, self._offset + offset)
        except OSError as error:
            raise FilesError(f"it cannot be read at byte {offset}: {error.strerror}") from error
        if len(data) < length:
            raise FilesError("its clusters lie beyond its end")
        return data


def _entries(data: bytes) -> Iterator[_Entry]:
    """Yield what a directory names (FAT specification, 6 and 7), without its label, `.` and `..`."""
    long: dict[int, bytes] = {}
    for at in range(0, len(data) - 31, 32):
        raw = data[at : at + 32]
        if raw[0] == 0:
            return
        if raw[0] == _DELETED:
            long.clear()
        elif raw[11] & 0x3F == _LONG:
            if raw[0] & 0x40:
                long = {}
            long[raw[0] & 0x3F] = raw[13:14] + raw[1:11] + raw[14:26] + raw[28:32]
        else:
            if not raw[11] & _LABEL and raw[0] != ord("."):
                yield _entry(raw, long)
            long = {}


def _entry(raw: bytes, long: dict[int, bytes]) -> _Entry:
    base, extension = (part.decode("latin-1").rstrip() for part in (raw[:8], raw[8:11]))
    if raw[0] == _KANJI:
        base = chr(_DELETED) + base[1:]
    # Which case they are shown in is Windows NT's, and Linux' (fs/fat/dir.c).
    base, extension = base.lower() if raw[12] & 0x08 else base, extension.lower() if raw[12] & 0x10 else extension
    short = f"{base}.{extension}" if extension else base
    checksum = 0
    for byte in raw[:11]:
        checksum = ((checksum & 1) << 7) + (checksum >> 1) + byte & 0xFF
    whole = [long.get(number, b"") for number in range(1, len(long) + 1)]
    name = short
    if long and all(part[:1] == bytes([checksum]) for part in whole):
        name = b"".join(part[1:] for part in whole).decode("utf-16-le", "replace").partition("\0")[0] or short
    high, low, size = struct.unpack_from("<H4xHI", raw, 20)
    return _Entry(name, short, high << 16 | low, size, directory=bool(raw[11] & _DIRECTORY))
