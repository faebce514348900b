"""The one place that opens disk images, whatever their format: for inspection, for a machine, for Compute Engine.

A raw disk is read where it is; of QEMU's formats only the ranges that are asked for are converted; what is packed is
unpacked, with holes, into a file that no crash leaves behind. The image is never written.
"""

import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vmtests import progress
from vmtests.errors import InputError, from_os
from vmtests.host.formats import (
    DRIVERS,
    HEAD,
    KERNEL,
    Format,
    Kind,
    Other,
    Packing,
    again,
    disguised,
    has_table,
    identify,
    is_extent,
    said_format,
)
from vmtests.host.formats import looks_like_a_disk as _named_as_disk
from vmtests.host.tools import Toolbox
from vmtests.image import gpt, unpack
from vmtests.image.check import Check, clean
from vmtests.image.filesystem import FileSystem, probe
from vmtests.image.qemudisk import QemuDisk, whole_size

__all__ = ["Adopted", "Format", "Source", "adopt", "open_disk"]

_LEAST = 128 * 512  # a table, its backup and something between them
_RUN_OUT = 150 * 2048  # bytes behind a CD-ROM's files that some leave away
_DEPTH = 3  # of packings in each other
_HINT = Other(name="").hint
_BARE = f"{_HINT}; or start a kernel on it: --kernel FILE --append 'root=/dev/sda'"
_BUILD = "vmtests build --out makes a disk image"
_LISTED = 1000  # entries of a directory that are looked at


class Source(Protocol):
    """A disk that is open for reading; sizes and offsets are in bytes."""

    @property
    def format(self) -> Format:
        """The format of the disk; an archive that Compute Engine takes is one."""

    @property
    def packing(self) -> str:
        """What the disk was packed into, as `tar.gz` or `xz`; nothing where it was not."""

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

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self.format = Format.RAW
        self.packing = ""
        self.size = os.lseek(descriptor, 0, os.SEEK_END)
        self.checks: tuple[Check, ...] = ()

    def read(self, offset: int, length: int) -> bytes:
        length = min(length, self.size - offset)
        if offset < 0 or length <= 0:
            return b""
        try:
            return os.pread(self._descriptor, length, offset)
        except OSError as error:
            raise from_os(f"{self._path} cannot be read at byte {offset}", error) from error

    def range(self, offset: int, length: int) -> tuple[int, int]:  # noqa: ARG002 - all of it is there
        return self._descriptor, offset


class _Qemu(QemuDisk):
    """A disk in one of QEMU's formats as a source."""

    packing = ""
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plain:
    """A disk that is packed no more: its descriptor, its format, and what it was packed into."""

    descriptor: int
    format: Format
    unpacked: unpack.Unpacked | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """A disk that QEMU can put an overlay on, raw or qcow2; `archive` is what Compute Engine takes as it is."""

    path: Path
    archive: Path | None


@contextmanager
def open_disk(
    path: Path, toolbox: Toolbox, *, form: Format | None = None, trusted: bool = False, direct: bool = False
) -> Iterator[Source]:
    """Open the disk image `path` for reading; with `form` it is a disk of that format whatever it looks like.

    A directory stands for the one image in it. `trusted` is for overlays of our own, whose backing files are anywhere.
    `direct` is for a kernel that is started without a boot loader, for which a file system without a table will do.

    Raises InputError when there is no such image, or it is empty, truncated, encrypted, unreadable or no disk;
    HostError when the host cannot read or unpack it.
    """
    with ExitStack() as files:
        path = _the_file(path)
        descriptor = _open(path, files)
        plain = _plain(path, descriptor, form, toolbox, lambda: files.enter_context(unpack.scratch()))
        source: _Raw | _Qemu
        if plain.format in DRIVERS:
            place = path.absolute() if plain.unpacked is None else Path(f"/proc/self/fd/{plain.descriptor}")
            source = _Qemu(place, str(path), plain.format, toolbox, files, trusted=trusted)
        else:
            source = _Raw(path, plain.descriptor)
        if (found := plain.unpacked) is not None:
            source.packing = found.packing
            source.checks = (found.check,) if found.packing.startswith("tar") else ()
            if not found.refused:
                source.format = Format.ARCHIVE
        _refuse_what_is_no_disk(path, source, direct=direct)
        yield source


def adopt(path: Path, scratch: Path, toolbox: Toolbox, *, form: Format | None = None) -> Adopted:
    """Make somebody's own image fit for a machine: raw and qcow2 are used where they are, others go to `scratch`.

    Raises InputError, HostError as `open_disk`; whether it is a disk at all is said there.
    """
    path = _the_file(path)
    home = Path(tempfile.mkdtemp(prefix="adopted-", dir=scratch))
    number = 0

    def fresh(suffix: str = "raw") -> Path:
        nonlocal number
        number += 1
        return home / f"{path.name[:40]}.{number}.{suffix}"

    with ExitStack() as files:
        descriptor = _open(path, files)
        made: list[Path] = []

        def make() -> int:
            made.append(fresh())
            opened = os.open(made[-1], os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            files.callback(os.close, opened)
            return opened

        plain = _plain(path, descriptor, form, toolbox, make)
        disk = made[-1] if made else path
        for left in made[:-1]:
            left.unlink()
        if plain.format in DRIVERS:
            whole_size(disk.absolute(), str(disk), plain.format, toolbox)
        if plain.format in DRIVERS and plain.format is not Format.QCOW2:
            target = fresh("qcow2")
            with progress.step(f"converting {clean(path.name)}"):
                driver = DRIVERS[plain.format]
                toolbox.run("qemu-img", "convert", "-f", driver, "-O", "qcow2", f"file:{disk.absolute()}", target)
            disk = target
        elif (made and (plain.format is Format.QCOW2)) or not _says(disk, plain.format):
            # Whoever opens it next believes its name.
            target = fresh(plain.format.value)
            disk.rename(target) if made else target.symlink_to(disk.absolute())
            disk = target
        taken = plain.unpacked is not None and not plain.unpacked.refused
        return Adopted(path=disk, archive=path if taken else None)


def _says(disk: Path, form: Format) -> bool:
    return said_format(disk) is form


def _plain(path: Path, descriptor: int, form: Format | None, toolbox: Toolbox, make: unpack.Make) -> _Plain:
    """Unpack `path`, as often as it is packed, into the files that `make` gives."""
    name, found = path.name, None
    kind: Kind = form or _kind(path, descriptor, name)
    for _ in range(_DEPTH):
        if not isinstance(kind, Packing):
            break
        target = make()
        inner = unpack.unpack(path, descriptor, kind, name, target, toolbox)
        packing = f"{inner.packing}.{found.packing}" if found else inner.packing
        refused = inner.refused or (found.refused if found else "")
        found = unpack.Unpacked(name=inner.name, packing=packing, refused=refused)
        descriptor, name = target, inner.name
        kind = _kind(path, descriptor, name)
    if isinstance(kind, Packing):
        raise InputError(f"{path} is packed more than {_DEPTH} times", hint="unpack it and give the disk")
    if isinstance(kind, Other):
        holds = "holds what is" if found else "is"
        raise InputError(f"{path} {holds} {kind.name}, not a disk image that vmtests reads", hint=kind.hint)
    return _Plain(descriptor=descriptor, format=kind, unpacked=found)


def _kind(path: Path, descriptor: int, name: str) -> Kind:
    try:
        head = os.pread(descriptor, HEAD + 512, 0)
        size = os.lseek(descriptor, 0, os.SEEK_END)
        tail = os.pread(descriptor, 512, max(size - 512, 0))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if not head:
        raise InputError(f"{path} is empty", hint=_BUILD)
    return identify(head, tail, name, device=stat.S_ISBLK(os.fstat(descriptor).st_mode))


def _the_file(path: Path) -> Path:
    """Return `path`, or the one image in it where it is a directory: a disk beside which its partitions are is one."""
    try:
        if not stat.S_ISDIR(path.stat().st_mode):
            return path
        entries = [entry for _, entry in zip(range(_LISTED), os.scandir(path), strict=False)]
    except (OSError, ValueError):
        return path  # opening it says why
    disks = [
        entry.name
        for entry in entries
        if entry.is_file() and _named_as_disk(entry.name) and not is_extent(entry.name) and entry.stat().st_size
    ]
    if len(disks) > 1:
        disks = [name for name in disks if not _is_part(path, name, disks)]
    if len(disks) != 1:
        names = ", ".join(clean(name) for name in sorted(disks)[:4])
        what = f"a directory with {len(disks)} disk images: {names}" if disks else "a directory without a disk image"
        raise InputError(f"{path} is {what}", hint="give the image inside it")
    return path / disks[0]


def _is_part(path: Path, name: str, others: Sequence[str]) -> bool:
    """Whether an image is a partition of another in its directory: `disk.esp.raw` of `disk.raw` (repart --split)."""
    stem, _, last = name.rpartition(".")
    if last != "raw" or f"{stem.rpartition('.')[0]}.raw" not in others:
        return False
    with (path / name).open("rb") as file:
        return not has_table(file.read(HEAD + 512))


def _open(path: Path, files: ExitStack) -> int:
    """Return a descriptor of a regular file or block device."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
            kind = {stat.S_IFCHR: "character device", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}
            raise InputError(
                f"{path} is a {kind.get(stat.S_IFMT(mode), 'special file')}, not a disk image", hint=_BUILD
            )
        # A pipe that took the file's place meanwhile must not block.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path} does not exist", hint=_BUILD) from error
    except PermissionError as error:
        raise InputError(f"{path} cannot be read: permission denied", hint="chmod, or run as its owner") from error
    except OSError as error:
        raise InputError(f"{path} cannot be opened: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{str(path)!r} is not a file name: {error}") from error
    files.callback(os.close, descriptor)
    return descriptor


def _refuse_what_is_no_disk(path: Path, source: Source, *, direct: bool) -> None:
    sector = gpt.sector_size(source)
    claimed = None if sector is None else gpt.claimed_sectors(source, sector)
    like = disguised(source.read(0, HEAD))
    if sector is not None and (claimed is not None or like is None):
        if claimed is not None and claimed > source.size // sector:
            raise InputError(
                f"{path} is truncated: its partition table says {claimed} sectors of {sector} bytes, "
                f"but there are {source.size // sector}",
                hint=again(path.name),
            )
        return
    # A kernel has a boot sector's signature, and no table.
    if gpt.is_protective(source) or (gpt.mbr_types(source) and like is not KERNEL):
        if source.size < _LEAST:
            raise InputError(f"{path} has {source.size} bytes, too few for a disk", hint=again(path.name))
        # It says that it has a table, so what is wrong is in the image; the checks of the table name it.
        return
    bare = bare_filesystem(source)
    if bare is not None and bare.type == "iso9660" and (bare.size or 0) > source.size + _RUN_OUT:
        text = f"{path} is truncated: by its volume descriptor it has {bare.size} bytes, but there are {source.size}"
        raise InputError(text, hint=again(path.name))
    if bare is not None and (direct or bare.type in ("vfat", "iso9660")):
        return  # firmware starts a boot loader from it, or what somebody starts by hand mounts it
    if bare is not None and bare.type == "crypto_LUKS":
        raise InputError(f"{path} is encrypted with LUKS as a whole", hint="give a disk whose table can be read")
    if bare is not None:
        raise InputError(f"{path} is a bare {bare.type} file system without a partition table", hint=_BARE)
    if like is not None:
        raise InputError(f"{path} is said to be a raw disk, but begins as {like.name} does", hint=like.hint)
    if source.size < _LEAST:
        raise InputError(f"{path} has {source.size} bytes, too few for a disk", hint=_HINT)
    raise InputError(f"{path} is not a disk: neither its first nor its last sectors hold a GPT", hint=_HINT)


def bare_filesystem(disk: Source) -> FileSystem | None:
    """Return the file system that begins with the disk's first byte, if one does."""
    return probe(disk)
