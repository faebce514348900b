"""Whether a directory can hold trees of Debian's packages, and lets their programs run: told before the download.

And how much room is in one.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from vmtests.errors import HostError

_HINT = "set VMTESTS_CACHE to a directory on another file system"
_SPECIAL = frozenset(':"\n')  # apt.conf(5), ld.so(8); all others were tried
_SCRIPT = 0o750


def check(directory: Path) -> None:
    """Raise HostError with what a tree needs and the file system of `directory` does not have.

    Not every one is Linux's own: those that are shared with another system, or with the host of a virtual machine
    or container, lack one or the other.
    """
    if found := sorted(_SPECIAL.intersection(os.fspath(directory))):
        raise HostError(
            f"{directory} has {found[0]!r} in its name, which apt or the loader of programs takes for something else",
            hint="set VMTESTS_CACHE to a directory without it",
        )
    if os.statvfs(directory).f_flag & os.ST_NOEXEC:
        raise HostError(f"no program may run in {directory}: it is mounted noexec", hint=_HINT)
    try:
        with tempfile.TemporaryDirectory(prefix=".tried-", dir=directory) as made:
            lacks = _lacks(Path(made))
    except OSError as error:
        hint = "free some space there, make it yours, or set VMTESTS_CACHE to another directory"
        raise HostError(f"{directory} cannot be written: {error.strerror}", hint=hint) from error
    if lacks:
        raise HostError(f"the file system of {directory} has no {lacks}, which Debian's packages need", hint=_HINT)


def free(directory: Path) -> int | None:
    """Return the bytes that are free in a directory; None on a file system that counts none. Raises OSError.

    So do ramfs, tmpfs without a limit (`size=0`) and some of FUSE: they say that they have no block (statfs(2)).
    """
    usage = shutil.disk_usage(directory)
    return usage.free if usage.total else None


def _lacks(place: Path) -> str:
    """Return what cannot be had in an empty directory; nothing when all is well."""
    file = place / "File:1"
    attempts: tuple[tuple[str, Callable[[], None]], ...] = (
        ("names with colons", file.touch),
        ("permissions", lambda: file.chmod(_SCRIPT)),
        ("symbolic links", lambda: (place / "symbolic").symlink_to("nowhere")),
        ("hard links", lambda: (place / "hard").hardlink_to(file)),
        ("locks (flock)", lambda: _lock(file)),
    )
    for name, attempt in attempts:
        try:
            attempt()
        except OSError:
            return name
    if file.stat().st_mode & 0o777 != _SCRIPT:
        return "permissions"
    return "upper and lower case" if (place / "fILE:1").exists() else ""


def _lock(file: Path) -> None:
    with file.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
