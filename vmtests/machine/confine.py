"""What a machine's programs may see of the host: their own files, and nothing else.

A guest that has taken QEMU over is no nearer to the host's files than before: it finds its disk's chain (which it can
read), its own directory and logs (which it can write), the programs of QEMU's system, and no capability; it is another
user than we where we are root (`host/user.py`); QEMU's own filter of system calls lets it start no program
(`-sandbox`, qemu(1)). What it has written is read with suspicion (`handover`, `is_over`).
"""

import contextlib
import struct
from collections.abc import Iterator
from pathlib import Path

from vmtests.errors import HostError
from vmtests.host.accel import Accelerator, AcceleratorName
from vmtests.host.firmware import Firmware
from vmtests.host.sandbox import View
from vmtests.machine.hardware import Hardware
from vmtests.machine.template import Template

_KVM, _VSOCK = Path("/dev/kvm"), Path("/dev/vhost-vsock")
# QEMU's docs/interop/qcow2.txt
_QCOW2 = b"QFI\xfb"
_HEADER = struct.Struct(">4sIQI")  # magic, version, where the backing file's name is, its length
_LENGTH_AT, _VERSION_2_LENGTH = 100, 72
_DATA_FILE = 0x44415441
_FEATURES, _DATA_ELSEWHERE = slice(72, 80), 1 << 2  # those that a reader must know
_NAME_LIMIT, _CHAIN_LIMIT, _EXTENSIONS_LIMIT = 1023, 200, 4096


def disk_files(disk: Path) -> list[Path]:
    """Return `disk` and all that it is laid over or keeps its data in, as QEMU will open them.

    Only qcow2 files are looked into, and of names only those of files: nothing else is shown to QEMU, which then says
    what it misses. A directory would be shown with all that is in it, and to open a pipe or a device does something.
    """
    found: list[Path] = []
    todo = [disk]
    while todo and len(found) < _CHAIN_LIMIT:
        path = todo.pop()
        if path not in found and (path.exists() if path == disk else _is_file(path)):
            found.append(path)
            with contextlib.suppress(OSError):  # QEMU may not read it either, and says so
                todo += [path.parent / name for given in _names(path) for name in _file_name(given)]
    return found


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # its name is too long, or leads where we may not look
        return False


def check_over(overlay: Path, image: Path | None) -> None:
    """Raise HostError unless `overlay`, which QEMU could write anything to, is laid over `image` and nothing else.

    It is a file and no link to one, its data is in itself, and the only name in it is the image's; of a disk that is
    laid over nothing (None) there is none.
    """
    if overlay.is_file() and not overlay.is_symlink():
        with overlay.open("rb") as file:
            head = file.read(_LENGTH_AT)
        features = int.from_bytes(head[_FEATURES], "big") if int.from_bytes(head[4:8], "big") > 2 else 0
        names = [overlay.parent / name for given in _names(overlay) for name in [*_file_name(given), ""][:1]]
        if not features & _DATA_ELSEWHERE and names == ([] if image is None else [image]):
            return
    raise HostError(
        "the machine's disk names other files than it was made with",
        hint="QEMU, or who has taken it over, has written that; it is not read",
    )


def _names(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        head = file.read(_EXTENSIONS_LIMIT)
        if len(head) < _VERSION_2_LENGTH or not head.startswith(_QCOW2):
            return
        _, version, at, length = _HEADER.unpack_from(head)
        if 0 < at < path.stat().st_size and 0 < length <= _NAME_LIMIT:
            file.seek(at)
            yield file.read(length)
    place = _VERSION_2_LENGTH if version < 3 else int.from_bytes(head[_LENGTH_AT : _LENGTH_AT + 4], "big")
    while place + 8 <= len(head):
        kind, length = struct.unpack_from(">II", head, place)
        if kind == 0:
            return
        if kind == _DATA_FILE:
            yield head[place + 8 :][:length]
        place += 8 + (length + 7) // 8 * 8


def _file_name(name: bytes) -> Iterator[str]:
    text = name.decode("utf-8", "surrogateescape").removeprefix("file:")
    if text and "\0" not in text and not text.startswith("json:"):
        yield text


def needed_devices(accelerator: Accelerator, hardware: Hardware) -> tuple[Path, ...]:
    """Return the devices of the host that a machine works with, of those that there are."""
    kvm = accelerator.name is AcceleratorName.KVM
    vsock = any("vhost-vsock" in argument for argument in hardware.qemu_args)
    return tuple(path for path, needed in ((_KVM, kvm), (_VSOCK, vsock)) if needed and path.exists())


def machine_view(
    firmware: Firmware | None,
    chain: tuple[Path, ...],
    template: Template | None,
    writable: tuple[Path, ...],
    others: tuple[Path, ...] = (),
    devices: tuple[Path, ...] = (),
) -> View:
    """Return what QEMU sees: an image's chain, a template, firmware, `others`; and `writable`, which it may change."""
    readable = [path for path in (*chain, *others) if path not in writable]
    if template is not None:
        readable += [template.ram, template.state]
    # That of a tree is in the tree.
    if firmware is not None and firmware.code.inside == firmware.code.outside:
        readable.append(firmware.code.outside)
    return View(readable=tuple(readable), writable=writable, devices=devices)
