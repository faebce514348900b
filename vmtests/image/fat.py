"""The EFI system partition: its boot sector, and its files through mtools.

Boot sector: Microsoft's FAT specification of 2000, which UEFI 2.10 (section 13.3) refers to.
"""

import os
import select
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from vmtests.host.sandbox import Sandboxed, sandbox, tool_env
from vmtests.host.tools import Toolbox
from vmtests.image.check import clean
from vmtests.image.files import FilesError

TOOL_SECONDS = 20.0
"""Seconds that mtools may need; a file system with a circle in it keeps them busy for ever."""

_FAT16_CLUSTERS = 4085
_FAT32_CLUSTERS = 65525
_FIXED_MEDIA = 0xF8
_NO_MIRROR = 0x80
_LISTING_LIMIT = 1 << 20  # bytes
_PATTERN = frozenset('*?\\"\ufffd')  # mtools(1) reads these as patterns; no name on a FAT has them


class FatError(FilesError):
    """A file system that mtools cannot read; the message is mtools' own, escaped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BootSector:
    """The fields of a FAT boot sector that say how large everything is."""

    sector_size: int
    cluster_sectors: int
    reserved: int
    fats: int
    root_entries: int
    sectors: int
    fat_sectors: int
    fat32_layout: bool
    media: int
    flags: int
    version: int

    @property
    def size(self) -> int:
        """The size of the file system in bytes."""
        return self.sectors * self.sector_size

    @property
    def clusters(self) -> int:
        """The number of clusters, which alone decides the FAT type."""
        root = -(-self.root_entries * 32 // self.sector_size)
        data = self.sectors - self.reserved - self.fats * self.fat_sectors - root
        return max(0, data) // self.cluster_sectors

    @property
    def type(self) -> str:
        """FAT12, FAT16 or FAT32, by the number of clusters."""
        if self.clusters < _FAT16_CLUSTERS:
            return "FAT12"
        return "FAT16" if self.clusters < _FAT32_CLUSTERS else "FAT32"

    @property
    def unread(self) -> str:
        """Why EDK2 does not mount it, nothing where it does (FatPkg/EnhancedFatDxe/Init.c, FatOpenDevice())."""
        if self.media < _FIXED_MEDIA and self.media not in (0x00, 0x01, 0xF0):
            return f"its boot sector has the media type {self.media:#04x}, and not 0xf8"
        if self.fat32_layout and self.version:
            return f"it is FAT32 of version {self.version >> 8}.{self.version & 0xFF}, and not 0.0"
        if self.fat32_layout and self.flags & _NO_MIRROR:
            return "its second FAT is no copy of the first (mirroring is switched off)"
        if self.fat32_layout and self.type != "FAT32":
            return f"as FAT32 it has {self.clusters} clusters only, and needs {_FAT32_CLUSTERS}"
        if not self.fat32_layout and self.type == "FAT32":
            return f"as FAT16 it has {self.clusters} clusters, and may have {_FAT32_CLUSTERS - 1}"
        return ""


def parse(sector: bytes) -> BootSector | None:
    """Return the boot sector; None where it is none."""
    if len(sector) < 512 or sector[510:512] != b"\x55\xaa":
        return None
    # Firmware does not look at the jump; a name tells a FAT as well (libblkid's superblocks/vfat.c).
    named = sector[82:90] == b"FAT32   " or sector[54:62] in (b"FAT12   ", b"FAT16   ")
    if sector[0] not in (0xEB, 0xE9) and not named:
        return None
    size, cluster, reserved, fats, root, total16, media, fat16 = struct.unpack_from("<HBHBHHBH", sector, 11)
    total32, fat32, flags, version = struct.unpack_from("<IIHH", sector, 32)
    if size == 0 or cluster == 0 or cluster & (cluster - 1) or fats == 0 or not (total16 or total32):
        return None
    return BootSector(
        sector_size=size,
        cluster_sectors=cluster,
        reserved=reserved,
        fats=fats,
        root_entries=root,
        sectors=total16 or total32,
        fat_sectors=fat16 or fat32,
        fat32_layout=fat16 == 0,
        media=media,
        flags=flags,
        version=version,
    )


class Files:
    """The files of a FAT file system at byte `offset` of the open file `descriptor`; nothing is written."""

    def __init__(self, descriptor: int, offset: int, toolbox: Toolbox) -> None:
        self._descriptor = descriptor
        self._image = f"/proc/self/fd/{descriptor}@@{offset}"
        self._toolbox = toolbox
        self._names: dict[str, str] | None = None

    def names(self) -> dict[str, str]:
        """Return all files by their path in lower case; the value has it as written. Raises FatError."""
        if self._names is None:
            listing = bytearray()
            with self._run("mdir", "-a", "-b", "-/", "-i", self._image, "::/") as chunks:
                for chunk in chunks:
                    listing += chunk
                    if len(listing) > _LISTING_LIMIT:
                        raise FatError("it has too many files, or a directory that holds itself")
            lines = listing.decode("utf-8", errors="replace").splitlines()
            paths = [line.removeprefix("::") for line in lines if line.startswith("::") and not line.endswith("/")]
            self._names = {path.lower(): path for path in paths}
        return self._names

    def find(self, path: str) -> str | None:
        """Return a file's path as it is written there; FAT ignores upper and lower case. Raises FatError."""
        return self.names().get("/" + path.replace("\\", "/").lstrip("/").lower())

    def below(self, directory: str, suffix: str) -> list[str]:
        """Return the files directly in `directory` that end with `suffix`, sorted. Raises FatError."""
        prefix = directory.rstrip("/").lower() + "/"
        return sorted(
            path
            for key, path in self.names().items()
            if key.startswith(prefix) and key.endswith(suffix) and "/" not in key[len(prefix) :]
        )

    def read(self, path: str, limit: int) -> bytes:
        """Return the first `limit` bytes of a file, fewer where it is shorter. Raises FatError."""
        return self.pick(path, ((0, limit),))[0]

    def pick(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return ranges (offset, size in bytes) of a file; one beyond its end is short. Raises FatError."""
        found = [bytearray() for _ in ranges]
        last = max(offset + size for offset, size in ranges)
        position = 0
        with self._run("mcopy", "-i", self._image, _literal(path), "-") as chunks:
            for chunk in chunks:
                for part, (offset, size) in zip(found, ranges, strict=True):
                    part += chunk[max(0, offset - position) : max(0, offset + size - position)]
                position += len(chunk)
                if position >= last:
                    break
        return [bytes(part) for part in found]

    def chunks(self, path: str, offset: int, size: int) -> Iterator[bytes]:
        """Yield a range of a file, piece by piece; raises FatError."""
        position = 0
        with self._run("mcopy", "-i", self._image, _literal(path), "-") as chunks:
            for chunk in chunks:
                if part := chunk[max(0, offset - position) : max(0, offset + size - position)]:
                    yield part
                position += len(chunk)
                if position >= offset + size:
                    return

    @contextmanager
    def _run(self, *command: str) -> Iterator[Iterator[bytes]]:
        """Run one of mtools and give its output as it comes; leaving the block ends it."""
        with tempfile.TemporaryFile() as errors:
            process = Sandboxed[bytes](
                [*sandbox(self._toolbox.root("mcopy")), *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=tool_env({"MTOOLS_SKIP_CHECK": "1", "MTOOLSRC": os.devnull}),
                pass_fds=(self._descriptor,),
            )
            with process:
                try:
                    yield _output(process, errors)
                finally:
                    process.kill()


def _literal(path: str) -> str:
    """Return what mtools takes for this one path and no other; raises FatError where nothing is."""
    if _PATTERN & set(path):
        raise FatError("its name has characters that mtools takes for a pattern")
    # Of a set of one character; a bracket that closes nothing is one as any other.
    return "::" + path.replace("[", "[[]")


def _output(process: subprocess.Popen[bytes], errors: IO[bytes]) -> Iterator[bytes]:
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    poll = select.poll()
    poll.register(descriptor, select.POLLIN | select.POLLHUP)
    deadline = time.monotonic() + TOOL_SECONDS
    while True:
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise FatError(f"it cannot be read within {TOOL_SECONDS:.0f} s; its clusters may go in a circle")
        chunk = os.read(descriptor, 1 << 17)
        if not chunk:
            break
        yield chunk
    if process.wait() != 0:
        errors.seek(0)
        lines = errors.read(4096).decode("utf-8", errors="replace").strip().splitlines()
        raise FatError(clean(lines[0]) if lines else f"mtools ended with {process.returncode}")
