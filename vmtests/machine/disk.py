"""The machine's disk: a qcow2 overlay, so that the image is never written."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from vmtests.errors import InputError
from vmtests.host.formats import Format, said_format
from vmtests.host.tools import Toolbox
from vmtests.sizes import format_size

_QCOW2_SIZE = slice(24, 32)  # QEMU's docs/interop/qcow2.txt: bytes 24 to 31 are the virtual size, big-endian


@dataclass(frozen=True, slots=True, kw_only=True)
class Backing:
    """An image under an overlay: its path, its format (`raw` or `qcow2`) and the disk's size in bytes."""

    path: Path
    format: str
    size: int


def backing(image: Path) -> Backing:
    """Look at an image; raises InputError when it can be none."""
    path = image.absolute()
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
                raise InputError(f"{image} is not a file", hint="give a disk image, raw or qcow2")
            head = file.read(32)
            length = os.lseek(file.fileno(), 0, os.SEEK_END)
    except OSError as error:
        raise InputError(
            f"{image} cannot be read: {error.strerror}", hint="give a disk image, raw or qcow2"
        ) from error
    if said_format(path) is Format.QCOW2:
        return Backing(path=path, format="qcow2", size=int.from_bytes(head[_QCOW2_SIZE], "big"))
    if length == 0:
        raise InputError(f"{image} is empty", hint="give a disk image, raw or qcow2")
    return Backing(path=path, format="raw", size=length)


def make_overlay(toolbox: Toolbox, image: Backing, overlay: Path, size: int | None) -> None:
    """Make `overlay` over `image`, with `size` bytes or the image's own size.

    Raises InputError when `size` is less than the image's, HostError when the overlay cannot be made.
    """
    if size is not None and size < image.size:
        raise InputError(
            f"a disk of {format_size(size)} is smaller than the image ({format_size(image.size)})",
            hint="a disk can only be larger than its image",
        )
    length = () if size is None else (str(size),)
    toolbox.run(
        *("qemu-img", "create", "-q", "-f", "qcow2", "-F", image.format, "-b", image.path, overlay, *length),
    )
