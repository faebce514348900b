"""The programs of a Debian tree, run where they are: for hosts that let nobody enter a tree.

Each dynamic program gets a small script that starts it through the tree's own loader, with the tree's libraries
(ld.so(8), `--library-path`), and is told where its data is. They call each other through the search path, whose first
directory is that of the scripts.
"""

import functools
import hashlib
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from vmtests.host.architecture import GUEST

_LOADER = f"usr{GUEST.interpreter}"
_LIBRARIES = f"usr/lib/{GUEST.triplet}"
_INTERPRETER = f"{GUEST.interpreter}\0".encode()
_HEAD = 4096  # bytes in which an ELF file names its interpreter
_QEMU_DATA = ("usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu")


@functools.cache
def programs(tree: Path) -> Path:
    """Return the directory of the scripts that start the programs of `tree`, made if there is none. Raises OSError."""
    place = tree / f".programs-{hashlib.sha256(os.fsencode(tree) + Path(__file__).read_bytes()).hexdigest()[:12]}"
    if place.is_dir():
        return place
    partial = Path(tempfile.mkdtemp(prefix=".programs-", dir=tree))
    for name, program, dynamic in _programs(tree):
        script = partial / name
        script.write_text(_script(tree, name, program, dynamic=dynamic), encoding="utf-8")
        script.chmod(0o755)
    partial.chmod(0o755)
    try:
        partial.rename(place)
    except OSError:  # somebody was faster
        shutil.rmtree(partial)
        if not place.is_dir():
            raise
    return place


def _programs(tree: Path) -> Iterator[tuple[str, Path, bool]]:
    """Yield name, place, and whether it is dynamic, of every ELF program."""
    for directory in ("usr/bin", "usr/sbin"):
        for path in sorted((tree / directory).glob("*")):
            program = path.resolve()
            if not program.is_relative_to(tree.resolve()) or not program.is_file():
                continue
            with program.open("rb") as file:
                head = file.read(_HEAD)
            if head.startswith(b"\x7fELF"):
                yield path.name, program, _INTERPRETER in head


def _script(tree: Path, name: str, program: Path, *, dynamic: bool) -> str:
    libraries = tree / _LIBRARIES
    # systemd's own library, for one, has a directory of its own.
    inner = sorted({path.parent for path in libraries.glob("*/lib*.so*")})
    command: list[str | Path] = [program]
    if dynamic:
        search = ":".join(map(str, (libraries, *inner)))
        command = [tree / _LOADER, "--inhibit-cache", "--library-path", search, "--argv0", name, program]
    if name.startswith("qemu-system-"):
        command += [word for data in _QEMU_DATA for word in ("-L", tree / data)]
    values = {
        "GCONV_PATH": libraries / "gconv",
        "MKE2FS_CONFIG": tree / "etc/mke2fs.conf",
        "QEMU_MODULE_DIR": libraries / "qemu",
    }
    words = [*(f"{key}={shlex.quote(str(value))}" for key, value in values.items()), "exec"]
    return f'#!/bin/sh\n{" ".join([*words, *(shlex.quote(str(word)) for word in command)])} "$@"\n'
