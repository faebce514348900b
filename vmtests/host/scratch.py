"""Scratch directories in the cache: gone at the end of a run, at the latest when the next one begins."""

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

_PREFIX = "scratch-"
_NONE = subprocess.DEVNULL


@contextlib.contextmanager
def scratch(base: Path, shared: str = "") -> Iterator[Path]:
    """Give a directory below `base` that ends with the block; those that killed runs left behind are removed first.

    Processes that name the same `shared` get the same directory, which ends with the last of them. It is locked as
    long as its owners live (flock(2)), which is how one that nobody owns is told.
    """
    with FileLock(base / "scratch.lock"):
        for left in base.glob(f"{_PREFIX}*"):
            remove_unowned(left)
        if shared:
            path = base / f"{_PREFIX}{shared}"
            path.mkdir(mode=0o700, exist_ok=True)
        else:
            path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        held = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(held, fcntl.LOCK_SH)
    try:
        yield path
    finally:
        with FileLock(base / "scratch.lock"):
            os.close(held)
            remove_unowned(path)


@contextlib.contextmanager
def owned(directory: Path) -> Iterator[None]:
    """Keep others from removing a directory while the block runs (flock(2)); any number of processes may own it."""
    held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(held, fcntl.LOCK_SH)
        yield
    finally:
        os.close(held)


def remove_unowned(directory: Path) -> None:
    """Remove a directory that no living process owns."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return
    else:
        remove(directory)
    finally:
        os.close(descriptor)


def remove(tree: Path) -> None:
    """Remove a tree, read-only directories (as a Nix store has) included, however deep it is."""
    with contextlib.suppress(RecursionError):
        for directory, _, _ in os.walk(tree):
            if not os.access(directory, os.W_OK):
                with contextlib.suppress(FileNotFoundError):  # another process removes it too
                    Path(directory).chmod(0o700)
        shutil.rmtree(tree, ignore_errors=True)
    if tree.is_dir() and not tree.is_symlink():  # chmod would follow one
        # Of a thousand directories in each other Python has a call and a descriptor for each; fts(3) has not.
        for command in ("chmod -R u+rwX --", "rm -rf --"):
            with contextlib.suppress(OSError):
                subprocess.run([*command.split(), tree], stdin=_NONE, stdout=_NONE, stderr=_NONE, check=False)
