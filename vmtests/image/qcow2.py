"""Reads qcow2 images through qemu-img: only the ranges that are asked for are converted."""

import errno
import json
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from vmtests.errors import HostError, InputError
from vmtests.host.sandbox import ToolError, tool_env, tool_error
from vmtests.host.tools import Toolbox
from vmtests.image.check import clean
from vmtests.image.unpack import scratch
from vmtests.sizes import MIB

MAGIC = b"QFI\xfb"

TOOL_SECONDS = 60.0
"""Seconds that qemu-img may need for one range of an image, or for its metadata."""


class Qcow2Disk:
    """A qcow2 disk: its size in bytes, and ranges of it.

    Making one raises InputError when the image or one of its backing files is not whole.
    """

    def __init__(self, path: Path, toolbox: Toolbox, files: ExitStack) -> None:
        self._path = path
        self._toolbox = toolbox
        self._files = files
        self._pieces: dict[int, bytes] = {}
        self.size = _whole_size(path, toolbox)

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
        disk = {"driver": "qcow2", "file": {"driver": "file", "filename": os.fspath(self._path)}}
        window = {"driver": "raw", "offset": offset, "size": length, "file": disk}
        _qemu_img(
            self._toolbox,
            *("convert", "--force-share", "-O", "raw"),
            *(f"json:{json.dumps(window)}", f"/proc/self/fd/{target}"),
            descriptor=target,
        )


def _qemu_img(toolbox: Toolbox, *args: str, descriptor: int | None = None) -> str:
    """Run qemu-img and return its standard output; raises ToolError."""
    try:
        result = subprocess.run(
            toolbox.argv("qemu-img", *args),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=tool_env(),
            pass_fds=() if descriptor is None else (descriptor,),
            timeout=TOOL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise HostError(f"qemu-img {args[0]} took more than {TOOL_SECONDS:.0f} s") from error
    # 2 and 3 of `check` mean corruptions and leaks, which it has counted (qemu-img(1)).
    if result.returncode != 0 and not (args[0] == "check" and result.returncode in (2, 3)):
        raise tool_error("qemu-img", result.returncode, result.stderr)
    return result.stdout


def _json(path: Path, toolbox: Toolbox, *command: str) -> Any:
    try:
        return json.loads(
            _qemu_img(toolbox, *command, "--force-share", "--output=json", "-f", "qcow2", f"file:{path}")
        )
    except ToolError as error:
        reason = clean(error.message.split("': ", 1)[-1])
        text = f"{path} is a qcow2 image that cannot be opened: {reason}"
        raise InputError(text, hint="copy or download it again") from error
    except ValueError as error:
        raise InputError(f"{path}: qemu-img {command[0]} gave no JSON") from error


def _whole_size(path: Path, toolbox: Toolbox) -> int:
    """Return the size of the disk in a qcow2 image, having seen that it and its backing files are whole."""
    sizes: dict[Path, int] = {}
    image: Path | None = path
    while image is not None:
        if image in sizes:
            raise InputError(f"{path}: its backing files are a circle", hint="qemu-img rebase")
        info = _json(image, toolbox, "info")
        if info.get("encrypted"):
            raise InputError(f"{image} is encrypted", hint="qemu-img convert makes a plain copy")
        sizes[image] = int(info["virtual-size"])
        image = _backing(image, info)
    # Only now: checking opens the backing files too, and has no good word for one that is missing.
    for image in sizes:
        _refuse_corrupt(image, toolbox)
    return sizes[path]


def _refuse_corrupt(path: Path, toolbox: Toolbox) -> None:
    report = _json(path, toolbox, "check")
    faults = int(report.get("corruptions", 0)) + int(report.get("check-errors", 0))
    if faults:
        places = "place" if faults == 1 else "places"
        raise InputError(
            f"{path} is truncated or damaged: qemu-img check finds {faults} broken {places}",
            hint="copy or download it again",
        )


def _backing(path: Path, info: Any) -> Path | None:
    """Return the backing file that is a qcow2 too; None where the chain ends."""
    name = info.get("backing-filename")
    if name is None:
        return None
    if name.startswith("json:") or "://" in name:
        raise InputError(
            f"{path} is backed by {clean(name)}, which is not a file", hint="qemu-img convert flattens it"
        )
    backing = Path(info.get("full-backing-filename", name).removeprefix("file:"))
    try:
        with backing.open("rb") as file:
            return backing if file.read(4) == MAGIC else None
    except OSError as error:
        reason = "does not exist" if error.errno == errno.ENOENT else f"cannot be read: {error.strerror}"
        raise InputError(
            f"{path} is backed by {clean(str(backing))}, which {reason}",
            hint="qemu-img rebase, or bring the backing file to its place",
        ) from error
