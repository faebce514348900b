"""Reads the formats that QEMU knows through qemu-img: only the ranges that are asked for are converted.

The driver is always named, so nothing is probed. What an image is laid over, or keeps its data in, has to be beside
it: a file from elsewhere must not show us `/etc/shadow`, or a host of its choice, as a disk.
"""

import errno
import json
import os
import re
import shlex
import stat
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from vmtests.errors import InputError
from vmtests.host.formats import DRIVERS, Format, again, identify, said_format
from vmtests.host.qcow2 import names_in
from vmtests.host.sandbox import ToolError
from vmtests.host.tools import Toolbox
from vmtests.image import ends
from vmtests.image.check import clean
from vmtests.image.unpack import scratch
from vmtests.sizes import MIB

_KEPT = 64  # pieces of 1 MiB that are remembered
_CHECKED = frozenset({Format.QCOW2, Format.VMDK, Format.VDI, Format.VHDX, Format.QED, Format.PARALLELS})
_DIFFERENCING = 4
_DESCRIPTOR = b"# Disk DescriptorFile"
_FLATTENS = "qemu-img convert flattens it"
_MOVED = "bring the file to its place, or qemu-img rebase -u -b FILE IMAGE says where"
_DESCRIPTOR_LIMIT = 1 << 20
# As loosely as QEMU's sscanf() takes it (block/vmdk.c).
_EXTENT = re.compile(
    rb'^[ \t\v\f]*(?:RW|RDONLY|NOACCESS)\s+[+-]?(\d+)\s+(\w+)(?:\s*"([^"\r\n]*)"(?:\s*[+-]?(\d+))?)?', re.MULTILINE
)


class QemuDisk:
    """A disk in one of QEMU's formats: its size in bytes, and ranges of it.

    Making one raises InputError when the image or one of its backing files is not whole, or lies elsewhere; with
    `trusted`, for what vmtests has made itself, it may lie anywhere.
    """

    def __init__(
        self, path: Path, name: str, form: Format, toolbox: Toolbox, files: ExitStack, *, trusted: bool = False
    ) -> None:
        self._path = path
        self._toolbox = toolbox
        self._files = files
        self._pieces: dict[int, bytes] = {}
        self.format = form
        self.size = whole_size(path, name, form, toolbox, trusted=trusted)

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`, fewer where the disk ends; raises HostError."""
        length = min(length, self.size - offset)
        if offset < 0 or length <= 0:
            return b""
        first, last = offset // MIB, (offset + length - 1) // MIB
        data = b"".join(self._piece(index) for index in range(first, last + 1))
        return data[offset - first * MIB :][:length]

    def _piece(self, index: int) -> bytes:
        if index not in self._pieces:
            if len(self._pieces) >= _KEPT:
                self._pieces.pop(next(iter(self._pieces)))
            length = min(MIB, self.size - index * MIB)
            with scratch() as descriptor:
                self._convert(index * MIB, length, descriptor)
                self._pieces[index] = os.pread(descriptor, length, 0)
        return self._pieces[index]

    def range(self, offset: int, length: int) -> tuple[int, int]:
        """Convert a range into a file of its own; return its descriptor and where the range begins in it."""
        descriptor = self._files.enter_context(scratch())
        self._convert(offset, min(length, self.size - offset), descriptor)
        return descriptor, 0

    def _convert(self, offset: int, length: int, target: int) -> None:
        """Write a range, in whole sectors, to the file `target`; holes stay holes."""
        disk = {"driver": DRIVERS[self.format], "file": {"driver": "file", "filename": os.fspath(self._path)}}
        window = {"driver": "raw", "offset": offset, "size": length, "file": disk}
        _qemu_img(
            self._toolbox,
            *("convert", "--force-share", "-O", "raw"),
            *(f"json:{json.dumps(window)}", f"/proc/self/fd/{target}"),
            descriptors=(target, *_descriptors(self._path)),
        )


def _descriptors(path: Path) -> tuple[int, ...]:
    """Return what a tool has to inherit to open `path`: it may be a file without a name."""
    match = re.fullmatch(r"/proc/self/fd/(\d+)", os.fspath(path))
    return (int(match[1]),) if match else ()


def _qemu_img(toolbox: Toolbox, *args: str, descriptors: tuple[int, ...] = ()) -> str:
    """Run qemu-img and return its standard output; raises ToolError."""
    # 2 and 3 of `check` mean corruptions and leaks, which it has counted (qemu-img(1)).
    well = (0, 2, 3) if args[0] == "check" else (0,)
    return toolbox.read("qemu-img", *args, descriptors=descriptors, well=well).decode("utf-8", "replace")


def _json(path: Path, name: str, form: Format, toolbox: Toolbox, *command: str) -> Any:
    try:
        text = _qemu_img(
            toolbox,
            *(*command, "--force-share", "--output=json", "-f", DRIVERS[form], f"file:{path}"),
            descriptors=_descriptors(path),
        )
        return json.loads(text)
    except ToolError as error:
        if command[0] == "check":
            raise _damaged(name, "fails") from error
        if form is Format.VHDX and "replay" in error.stderr:
            text = f"{name} was not closed as it should be: its log has to be replayed"
            repair = f"qemu-img check -r all {shlex.quote(name)}"
            # What was packed is no file that somebody can repair.
            raise InputError(text, hint="unpack and repair it" if _descriptors(path) else repair) from error
        reason = clean(re.sub(r"^.*(?:': |qemu-img: )", "", error.message, flags=re.DOTALL))
        text = f"{name} is a {form} image that cannot be opened: {reason}"
        raise InputError(text, hint=again(name)) from error
    except ValueError as error:
        raise InputError(f"{name}: qemu-img {command[0]} gave no JSON") from error


def whole_size(path: Path, name: str, form: Format, toolbox: Toolbox, *, trusted: bool = False) -> int:
    """Return the size of the disk in an image, having seen that it and its backing files are whole and in place.

    `name` is what the user calls it. Raises InputError, HostError.
    """
    home = Path(name).absolute().parent.resolve()
    sizes: dict[Path, tuple[str, Format, int]] = {}
    image: tuple[Path, str, Format] | None = (path, name, form)
    while image is not None:
        place, shown, kind = image
        if place in sizes:
            raise InputError(
                f"{name}: its backing files are a circle", hint="qemu-img rebase -u -b '' FILE ends it there"
            )
        if not trusted and kind is Format.VMDK:
            _refuse_far_extents(place, shown)
        # Before QEMU looks: up to 9.0 it opens that file even to tell about the image (CVE-2024-4467).
        if not trusted and kind is Format.QCOW2:
            _refuse_far_data(place, shown, home)
        if kind is Format.VHD:
            _refuse_difference(place, shown)
        _refuse_cut(place, shown, kind, shown)
        info = _json(place, shown, kind, toolbox, "info")
        if info.get("encrypted"):
            raise InputError(f"{shown} is encrypted", hint="qemu-img convert makes a plain copy")
        if not trusted:
            _refuse_far_opened(info, place, shown, home)
        sizes[place] = shown, kind, int(info["virtual-size"])
        image = _backing(shown, info, home, trusted=trusted)
    # Only now: checking opens the backing files too, and has no good word for one that is missing.
    for place, (shown, kind, _) in sizes.items():
        if kind in _CHECKED:
            _refuse_corrupt(place, shown, kind, toolbox)
    return sizes[path][2]


def check_near(path: Path, toolbox: Toolbox) -> None:
    """Raise InputError where a disk that is raw or qcow2 is laid over files that are not beside it, or not whole."""
    if said_format(path) is Format.QCOW2:
        whole_size(path, str(path), Format.QCOW2, toolbox)


def _refuse_cut(path: Path, shown: str, form: Format, name: str) -> None:
    if (cut := ends.missing(path, form)) is not None:
        text = f"{shown} is truncated: it has {cut[0]} bytes, and by its headers {cut[1]}"
        raise InputError(text, hint=again(name))


def _refuse_corrupt(path: Path, name: str, form: Format, toolbox: Toolbox) -> None:
    report = _json(path, name, form, toolbox, "check")
    faults = int(report.get("corruptions", 0)) + int(report.get("check-errors", 0))
    if faults:
        places = "place" if faults == 1 else "places"
        raise _damaged(name, f"finds {faults} broken {places}")


def _damaged(name: str, what: str) -> InputError:
    text = f"{name} is truncated or damaged: qemu-img check {what}"
    return InputError(text, hint=again(name))


def _refuse_far_extents(path: Path, name: str) -> None:
    """Raise where a VMDK's descriptor names files that are not beside it, or are missing, or a device."""
    with path.open("rb") as file:
        head = file.read(512)
        if head.startswith(b"KDMV"):
            if int.from_bytes(head[12:20], "little"):
                return  # QEMU reads no descriptor of an extent with a size (block/vmdk.c): its name may be old
            place = 512 * int.from_bytes(head[28:36], "little")
            if place >= os.fstat(file.fileno()).st_size:
                return
            file.seek(place)
            head = b""
        descriptor = head + file.read(_DESCRIPTOR_LIMIT)
    for sectors, kind, extent, first in _EXTENT.findall(descriptor):
        shown = clean(extent.decode("utf-8", "replace"))
        if kind in (b"VMFSRAW", b"VMFSRDM") or b"/" in extent or extent in (b".", b".."):
            raise InputError(
                f"{name} keeps its data in {shown or 'a device'}, which is not beside it",
                hint="qemu-img convert makes one file of it, if you trust it",
            )
        if kind in (b"FLAT", b"VMFS", b"SPARSE", b"VMFSSPARSE") and descriptor.startswith(_DESCRIPTOR) and extent:
            real = Path(name).absolute().parent / os.fsdecode(extent)
            if not real.exists():
                raise InputError(f"{name} keeps its data in {shown}, which does not exist", hint="bring it beside it")
            if real.is_symlink() or not real.is_file():
                raise InputError(f"{name} keeps its data in {shown}, which is no plain file", hint="copy it")
            if kind in (b"SPARSE", b"VMFSSPARSE"):
                _refuse_cut(real, shown, Format.VMDK, name)
            wanted = (int(sectors[:18]) + int(first[:18] or 0)) * 512
            if kind in (b"FLAT", b"VMFS") and (size := real.stat().st_size) < wanted:
                text = f"{name} is truncated: {shown} has {size} bytes, and the descriptor says {wanted}"
                raise InputError(text, hint=again(name))


def _refuse_difference(path: Path, name: str) -> None:
    """Raise for a differencing VHD, which QEMU reads as if it were whole (Microsoft's VHD 1.0, Disk Type)."""
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"conectix") and int.from_bytes(head[60:64], "big") == _DIFFERENCING:
        raise InputError(
            f"{name} is a differencing VHD: it holds only what differs from its parent",
            hint="Merge-VHD, or VBoxManage clonemedium, makes a whole one",
        )


def _refuse_far_data(path: Path, name: str, home: Path) -> None:
    """Raise where a qcow2 image names another file for its data which is not beside it, or not found as QEMU does."""
    names = names_in(path)
    if not names.elsewhere or not names.data:
        return
    given = names.data.removeprefix("file:")
    shown = clean(given)
    if _is_elsewhere(names.data):
        raise InputError(f"{name} keeps its data in {shown}, which is not a file", hint=_FLATTENS)
    if not given.startswith("/"):
        text = f"{name} keeps its data in {shown}, which QEMU looks for in the working directory, and not beside it"
        raise InputError(text, hint=f"{_FLATTENS}, in the directory of that file")
    _near(Path(given), name, "keeps its data in", home)


def _refuse_far_opened(info: Any, path: Path, name: str, home: Path) -> None:
    """Raise where QEMU says that it has opened another file for the data of `path` which is not beside it."""
    for extent in (info.get("format-specific", {}).get("data") or {}).get("extents", ()):
        file = extent.get("filename")
        if file and (other := Path(home / str(file).removeprefix("file:"))) != path:
            _near(other, name, "keeps its data in", home)


def _near(path: Path, name: str, verb: str, home: Path) -> None:
    """Raise unless `path` is a file in the directory of the image, or below it."""
    shown = clean(str(path))
    try:
        real = path.resolve(strict=True)
        if not stat.S_ISREG(real.stat().st_mode):
            raise InputError(f"{name} {verb} {shown}, which is not a file", hint=_FLATTENS)
    except OSError as error:
        reason = "does not exist" if error.errno == errno.ENOENT else f"cannot be read: {error.strerror}"
        raise InputError(f"{name} {verb} {shown}, which {reason}", hint=_MOVED) from error
    if not real.is_relative_to(home):
        raise InputError(
            f"{name} {verb} {shown}, which is not beside it",
            hint="if you trust it: qemu-img convert flattens it, or copy both into one directory",
        )


def _is_elsewhere(given: str) -> bool:
    """Whether QEMU takes a name for something else than a file (its block.c, path_has_protocol())."""
    return re.match("(?!file:)[^:/]*:", given) is not None


def _backing(name: str, info: Any, home: Path, *, trusted: bool) -> tuple[Path, str, Format] | None:
    """Return the backing file that is read through QEMU too; None where the chain ends."""
    given = info.get("backing-filename")
    if given is None:
        return None
    if _is_elsewhere(given):
        raise InputError(f"{name} is backed by {clean(given)}, which is not a file", hint=_FLATTENS)
    backing = Path(info.get("full-backing-filename", given).removeprefix("file:"))
    if not trusted:
        _near(backing, name, "is backed by", home)
    said = info.get("backing-filename-format")
    if said == "raw":
        return None
    form = next((form for form, driver in DRIVERS.items() if driver == said), None)
    if form is None:
        if said is None:
            text = f"{name} does not say which format its backing file {clean(str(backing))} has"
            raise InputError(text, hint="qemu-img rebase -u -F raw (or qcow2) -b FILE says it")
        raise InputError(f"{name} is backed by a {clean(said)} image", hint=_FLATTENS)
    with backing.open("rb") as file:
        if identify(file.read(4096), b"", "") is not form:
            text = f"{name} is backed by {clean(str(backing))}, which is no {form} image"
            raise InputError(text, hint=_MOVED)
    return backing, str(backing), form
