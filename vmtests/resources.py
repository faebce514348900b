"""Where data and caches are, in a checkout and in an installed wheel; and files that somebody has named, or left.

None of these is without end, no file for certain, nor what it should be.
"""

import contextlib
import json
import os
import pwd
from pathlib import Path
from typing import Any

from vmtests.errors import HostError, InputError, VmtestsError, at_named

_PACKAGE = Path(__file__).parent
_ANOTHER = "set VMTESTS_CACHE to a writable directory"

_PIECE = 1 << 18

NAMED_LIMIT = 64 << 20
"""Bytes of a text that a person has named: a list, a recording of the cloud."""

PARSED_LIMIT = 4 << 20
"""Bytes of what becomes objects, some thirty times as large in memory: a contract, what a run has left."""


def fixture(name: str) -> Path:
    """Return the path of `fixtures/NAME`: beside the package in a checkout, inside it in a wheel."""
    for base in (_PACKAGE / "fixtures", _PACKAGE.parent / "fixtures"):
        if (path := base / name).exists():
            return path
    raise HostError(f"fixtures/{name} is not installed", hint="install vmtests again")


def cache_dir() -> Path:
    """Return the cache directory, made if need be.

    `VMTESTS_CACHE`, else `vmtests` below `XDG_CACHE_HOME` (XDG base directory specification, by which one that is
    relative is none), else `~/.cache/vmtests`, and no home is made for it. Raises HostError when it cannot be written.
    """
    path = _cache()
    try:
        path = path.absolute()
        path.mkdir(parents=True, exist_ok=True)
        writable = os.access(path, os.W_OK | os.X_OK)
    except OSError as error:
        raise HostError(f"the cache {path} cannot be made: {error.strerror}", hint=_ANOTHER) from error
    if not writable:
        raise HostError(f"the cache {path} is not writable", hint=_ANOTHER)
    return path


def _cache() -> Path:
    if own := os.environ.get("VMTESTS_CACHE"):
        return Path(own)
    if (xdg := Path(os.environ.get("XDG_CACHE_HOME", ""))).is_absolute():
        return xdg / "vmtests"
    try:
        # One that is empty is none: it would be `/`. Nor is a relative one (POSIX, 8.3).
        known = Path(os.environ.get("HOME", "/")).is_absolute()
        home = Path.home() if known else Path(pwd.getpwuid(os.getuid()).pw_dir)
    except (RuntimeError, KeyError) as error:  # no HOME, and no such user
        raise HostError("there is no home directory for the cache", hint=_ANOTHER) from error
    # One that is not there is meant not to be, as /nonexistent is, or is a mistake: root could make it all the same.
    with contextlib.suppress(PermissionError):
        if not home.exists():
            raise HostError(f"the home directory {home} is not there", hint=_ANOTHER)
    return home / ".cache" / "vmtests"


def read_named(path: Path, what: str = "", hint: str | None = None, *, limit: int = NAMED_LIMIT) -> str:
    """Return the text of a file that somebody has named; a pipe is waited for. `what` stands before its name.

    Raises InputError with `hint` when there is none, it is no UTF-8, or has more than `limit` bytes, as /dev/zero has;
    HostError where the disk is broken.
    """
    shown = f"{what} {path}".lstrip()
    try:
        with path.open("rb") as file:
            # Piece by piece: all that `read` may give it first asks memory for.
            data = bytearray()
            while len(data) <= limit and (piece := file.read(_PIECE)):
                data += piece
    except OSError as error:
        raise at_named(f"{shown} cannot be read", error, hint) from error
    except ValueError as error:  # a NUL in its name
        raise InputError(f"{shown!r} cannot be read: {error}", hint=hint) from error
    if len(data) > limit:
        raise InputError(f"{shown} has more than {limit >> 20} MiB: that is something else", hint=hint)
    try:
        return data.decode("utf-8-sig")  # some editors begin a text with a mark of its encoding
    except UnicodeDecodeError as error:
        raise InputError(f"{shown} is no text: {error}", hint=hint) from error


def read_object(path: Path) -> dict[str, Any]:
    """Return the object of JSON that a file holds; an empty one for whatever else is there, or nothing."""
    try:
        read = json.loads(read_named(path, limit=PARSED_LIMIT)) if path.is_file() else None
    except (VmtestsError, OSError, ValueError, RecursionError):
        return {}
    return read if isinstance(read, dict) else {}
