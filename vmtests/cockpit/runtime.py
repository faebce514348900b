"""Directories for sockets, each this user's alone, and gone with the process that made it."""

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from vmtests.errors import HostError
from vmtests.host.scratch import scratch

_LONGEST = 107 - len("/vmtests-1234567890/scratch-12345678/from-switch-root-1234/gdb.sock")


def base(*, make: bool = True) -> Path:
    """Return the directory that all of them are in, with `make` made if need be; raises HostError when it is not ours.

    It is in `$XDG_RUNTIME_DIR` (XDG Base Directory Specification), else where temporary files are, unless a socket's
    path would be too long there (unix(7)).
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime and os.access(runtime, os.W_OK) and len(os.fsencode(runtime)) <= _LONGEST:
        place = Path(runtime) / "vmtests"
    else:
        temporary = tempfile.gettempdir()
        place = Path(temporary if len(os.fsencode(temporary)) <= _LONGEST else "/tmp") / f"vmtests-{os.getuid()}"  # noqa: S108 - a directory of our own
    if not make and not os.path.lexists(place):
        return place
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        found = place.lstat()
    except OSError as error:
        raise HostError(f"{place} cannot be made: {error.strerror}", hint="set XDG_RUNTIME_DIR") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise HostError(f"{place} is not a directory of this user alone", hint="remove it, or set XDG_RUNTIME_DIR")
    return place


@contextlib.contextmanager
def directory() -> Iterator[Path]:
    """Give one that ends with the block; what killed processes left behind is removed first. Raises HostError."""
    with scratch(base()) as place:
        yield place
