"""Files that a person has named for what a command says: they appear whole or not at all."""

import contextlib
import os
import stat
from pathlib import Path

from vmtests.errors import InputError, at_named


def check(path: Path, option: str) -> None:
    """Raise InputError when no file can be put at `path`, which `option` has named: before the work, and not after."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:  # a circle of links, a name too long
        raise at_named(f"{path} cannot be written", error, _hint(option)) from error
    where, parent = _behind_links(path), _behind_links(path).parent
    if where.is_dir():
        reason = "it is a directory"
    elif _is_special(where):
        reason = "" if os.access(where, os.W_OK) else "it may not be written to"
    elif not parent.exists():
        reason = f"there is no directory {parent}"
    elif not parent.is_dir():
        reason = f"{parent} is no directory"
    else:
        reason = "" if os.access(parent, os.W_OK | os.X_OK) else f"{parent} may not be written to"
    if reason:
        raise InputError(f"{path} cannot be written: {reason}", hint=_hint(option))


def check_disk(path: Path, option: str) -> None:
    """Raise InputError as `check`, and for a device or a pipe, too: a disk is written beside its place and renamed."""
    check(path, option)
    if _is_special(path):
        raise InputError(f"{path} is no place for a file", hint=_hint(option))


def write(path: Path, text: str, option: str, *, named: bool = True) -> None:
    """Write a file beside its place and rename it there; a device or a pipe is written to.

    Where nobody has `named` it, a link at its place is replaced: whoever left the directory may mean another's file.

    Raises InputError where `option` has to name another place, HostError where the disk is full or broken.
    """
    where = _behind_links(path) if named else path.absolute()
    special = named and _is_special(where)
    target = where if special else where.with_name(f".{where.name}-{os.getpid()}")
    try:
        target.write_text(text, encoding="utf-8", errors="replace")
        if not special:
            target.replace(where)
    except OSError as error:
        if not special:
            with contextlib.suppress(OSError):
                target.unlink()
        raise at_named(f"{path} cannot be written", error, _hint(option)) from error


def _behind_links(path: Path) -> Path:
    try:
        return path.absolute().resolve()
    except (OSError, RuntimeError):  # links in a circle; who opens it is told
        return path.absolute()


def _is_special(path: Path) -> bool:
    """Whether it is there and neither a file nor a directory."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _hint(option: str) -> str:
    return f"name another place with {option}"
