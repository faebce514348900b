"""A disk that was built, given to those who check file systems: every file of it is read."""

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from vmtests import progress
from vmtests.errors import ImageError
from vmtests.host.sandbox import ask, sandbox
from vmtests.host.tools import Toolbox
from vmtests.image import gpt, layout
from vmtests.image.check import clean
from vmtests.image.layout import Volume
from vmtests.image.source import open_disk
from vmtests.image.target import beside
from vmtests.sizes import MIB

_NO_FAULT = re.compile(r"(?:e2fsck|fsck\.\w+) \d|Pass \d:")

_ZEROS = bytes(MIB)


def check(disk: Path, toolbox: Toolbox) -> None:
    """Run the checker of each file system of a raw disk, which writes nothing; raises ImageError."""
    with progress.step(f"checking {disk.name}") as running, open_disk(disk, toolbox) as source:
        for volume in layout.volumes(source, gpt.read(source, gpt.sector_size(source) or 512)):
            kind = "" if volume.system is None else volume.system.type
            running.note(f"{volume.where}, {kind}")
            _check(disk, volume, kind, toolbox)


def _check(disk: Path, volume: Volume, kind: str, toolbox: Toolbox) -> None:
    offset = volume.content.offset
    if kind == "erofs":
        # Without a directory nothing is extracted, but all of it is unpacked (fsck.erofs(1)).
        _run(volume, toolbox.argv("fsck.erofs", f"--offset={offset}", "--extract", disk))
    elif kind.startswith("ext"):
        _run(volume, toolbox.argv("e2fsck", "-f", "-n", f"{disk}?offset={offset}"))
    elif kind == "vfat":
        # It knows no offset, and a loop device is for root.
        with beside(disk) as directory:
            part = directory / "vfat"
            with part.open("wb") as out:
                out.truncate(volume.content.size)
                for place in range(0, volume.content.size, MIB):
                    if (piece := volume.content.read(place, MIB)) != _ZEROS[: len(piece)]:
                        os.pwrite(out.fileno(), piece, place)
            _run(volume, [*sandbox(toolbox.root("mkfs.vfat")), "fsck.vfat", "-n", os.fspath(part)])


def _run(volume: Volume, argv: Sequence[str]) -> None:
    ended = ask(argv, stderr=subprocess.STDOUT)
    # fsck.erofs 1.8 exits with 0 after what it calls an error.
    if ended.returncode != 0 or "<E>" in ended.stdout:
        told = [line.strip() for line in ended.stdout.splitlines() if line.strip() and not _NO_FAULT.match(line)]
        what = clean(told[0].removeprefix("<E> erofs: ")) if told else f"{argv[-2]} ended with {ended.returncode}"
        raise ImageError(f"{volume.where} is damaged: {what}", hint="build it anew; the disk may be bad")
