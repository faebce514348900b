"""What a machine's programs may see of the host: their own files, and nothing else.

A guest that has taken QEMU over is no nearer to the host's files than before: it finds its disk's chain (which it can
read), its own directory and logs (which it can write), the programs of QEMU's system, and no capability; it is another
user than we where we are root (`host/user.py`); QEMU's own filter of system calls lets it start no program
(`-sandbox`, qemu(1)). What it has written is read with suspicion (`handover`, `is_over`).
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from vmtests.errors import HostError
from vmtests.host.accel import Accelerator, AcceleratorName
from vmtests.host.firmware import Firmware
from vmtests.host.qcow2 import names_in
from vmtests.host.sandbox import View
from vmtests.machine.hardware import Hardware
from vmtests.machine.template import Template

_KVM, _VSOCK = Path("/dev/kvm"), Path("/dev/vhost-vsock")
_CHAIN_LIMIT = 200


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
                names = names_in(path)
                todo += [path.parent / name for given in (names.backing, names.data) for name in _file_name(given)]
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
        names = names_in(overlay)
        under = overlay.parent / next(_file_name(names.backing), "") if names.backing else None
        if under == image and not names.data and not names.elsewhere:
            return
    raise HostError(
        "the machine's disk names other files than it was made with",
        hint="QEMU, or who has taken it over, has written that; it is not read",
    )


def _file_name(name: str) -> Iterator[str]:
    if (name := name.removeprefix("file:")) and not name.startswith("json:"):
        yield name


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
