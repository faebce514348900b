"""Opens a disk image, whatever its format, as bytes that can be read anywhere; the image is never written.

The format is told by content. A raw disk is read where it is; of a qcow2 only the ranges that are asked for
are converted; the disk in an archive is unpacked, with holes, into a file that no crash leaves behind.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from vmtests.errors import HostError, InputError
from vmtests.host.tools import Toolbox
from vmtests.image import ext4, gpt, qcow2, unpack
from vmtests.image.check import Check

_LEAST = 128 * 512  # a table, its backup and something between them
_GZIP = b"\x1f\x8b"
# By their first bytes: what people give by mistake, and how to make a disk of it.
_OTHERS = {
    b"KDMV": "a VMDK disk",
    b"# Disk DescriptorFile": "a VMDK descriptor",
    b"vhdxfile": "a VHDX disk",
    b"conectix": "a VHD disk",
    b"<<< Oracle": "a VDI disk",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"\xfd7zXZ\0": "compressed with xz",
    b"BZh": "compressed with bzip2",
    b"PK\x03\x04": "a zip archive",
    b"hsqs": "a bare squashfs file system",
    b"\x7fELF": "a program",
}


class Format(StrEnum):
    """The formats that are read."""

    RAW = "raw"
    QCOW2 = "qcow2"
    ARCHIVE = "tar.gz"


class Source(Protocol):
    """A disk that is open for reading; sizes and offsets are in bytes."""

    @property
    def format(self) -> Format:
        """The format of the image file."""

    @property
    def size(self) -> int:
        """The size of the disk."""

    @property
    def checks(self) -> tuple[Check, ...]:
        """What was found about the image file itself."""

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`, fewer where the disk ends; raises HostError."""

    def range(self, offset: int, length: int) -> tuple[int, int]:
        """Return a descriptor of a raw file, and where in it the bytes from `offset` on are."""


class _Raw:
    """A raw disk: a file, a block device, or what was unpacked."""

    def __init__(self, path: Path, descriptor: int, form: Format, checks: tuple[Check, ...] = ()) -> None:
        self._path = path
        self._descriptor = descriptor
        self.format = form
        self.size = os.lseek(descriptor, 0, os.SEEK_END)
        self.checks = checks

    def read(self, offset: int, length: int) -> bytes:
        length = min(length, self.size - offset)
        if offset < 0 or length <= 0:
            return b""
        try:
            return os.pread(self._descriptor, length, offset)
        except OSError as error:
            raise HostError(f"{self._path} cannot be read at byte {offset}: {error.strerror}") from error

    def range(self, offset: int, length: int) -> tuple[int, int]:  # noqa: ARG002 - all of it is there
        return self._descriptor, offset


class _Qcow2(qcow2.Qcow2Disk):
    """A qcow2 disk as a source."""

    format = Format.QCOW2
    checks: tuple[Check, ...] = ()


@contextmanager
def open_disk(path: Path, toolbox: Toolbox) -> Iterator[Source]:
    """Open the disk image `path` for reading: raw, qcow2, or a gzip tar whose only member is `disk.raw`.

    Raises InputError when there is no such image, or it is empty, truncated, unreadable or no UEFI disk;
    HostError when the host cannot read or unpack it.
    """
    with ExitStack() as files:
        descriptor = _open(path)
        files.callback(os.close, descriptor)
        source = _source(path, descriptor, toolbox, files)
        _refuse_what_is_no_disk(path, source)
        yield source


def _source(path: Path, descriptor: int, toolbox: Toolbox, files: ExitStack) -> Source:
    try:
        head = os.pread(descriptor, 512, 0)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if not head:
        raise InputError(f"{path} is empty", hint="vmtests build --out makes a disk image")
    if head.startswith(qcow2.MAGIC):
        return _Qcow2(path.absolute(), toolbox, files)
    if head.startswith(_GZIP):
        unpacked = files.enter_context(unpack.scratch())
        checks = unpack.unpack(path, descriptor, unpacked)
        return _Raw(path, unpacked, Format.ARCHIVE, checks)
    return _Raw(path, descriptor, Format.RAW)


def _open(path: Path) -> int:
    """Return a descriptor of a regular file or block device."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise InputError(f"{path} is a directory, not a disk image", hint="give the image inside it")
        if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
            kind = {stat.S_IFCHR: "character device", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}
            raise InputError(
                f"{path} is a {kind.get(stat.S_IFMT(mode), 'special file')}, not a disk image",
                hint="vmtests build --out makes a disk image",
            )
        # A pipe that took the file's place meanwhile must not block.
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path} does not exist", hint="vmtests build --out makes a disk image") from error
    except PermissionError as error:
        raise InputError(f"{path} cannot be read: permission denied", hint="chmod, or run as its owner") from error
    except OSError as error:
        raise InputError(f"{path} cannot be opened: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{str(path)!r} is not a file name: {error}") from error


def _refuse_what_is_no_disk(path: Path, source: Source) -> None:
    sector = gpt.sector_size(source)
    if sector is not None:
        claimed = gpt.claimed_sectors(source, sector)
        if claimed is not None and claimed > source.size // sector:
            raise InputError(
                f"{path} is truncated: its partition table says {claimed} sectors of {sector} bytes, "
                f"but there are {source.size // sector}",
                hint="copy or download it again",
            )
        return
    if gpt.is_protective(source):
        # It says that it has a GPT, so what is wrong is in the image; the checks of the table name it.
        return
    head = source.read(0, 512)
    hint = "vmtests takes a whole UEFI disk: .raw, .qcow2, or the .tar.gz that Compute Engine takes"
    for magic, name in _OTHERS.items():
        if head.startswith(magic):
            raise InputError(f"{path} is {name}, not a disk image that vmtests reads", hint=hint)
    if bare := bare_filesystem(source):
        raise InputError(f"{path} is a bare {bare} file system without a partition table", hint=hint)
    if types := gpt.mbr_types(source):
        kinds = " ".join(f"{kind:02X}" for kind in types)
        raise InputError(
            f"{path} is for BIOS only: it has an MBR partition table (types {kinds}) and no GPT",
            hint="vmtests boots UEFI disks; build the image with a GPT and an ESP",
        )
    if source.size < _LEAST:
        raise InputError(f"{path} has {source.size} bytes, too few for a disk", hint=hint)
    raise InputError(f"{path} is not a disk: neither its first nor its last sectors hold a GPT", hint=hint)


def bare_filesystem(disk: Source) -> str | None:
    """Return the name of the file system that begins with the disk's first byte, if one does."""
    if ext4.holds(disk):
        return "ext4"
    if disk.read(1024, 4) == b"\xe2\xe1\xf5\xe0":
        return "erofs"
    head = disk.read(0, 512)
    if head[54:57] == b"FAT" or head[82:85] == b"FAT":
        return "FAT"
    return None
