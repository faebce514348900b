"""Scratch directories in the cache: gone at the end of a run, at the latest when the next one begins."""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from vmtests.image.cache import remove

_PREFIX = "scratch-"


@contextlib.contextmanager
def scratch(base: Path) -> Iterator[Path]:
    """Give a directory below `base` that ends with the block; those that killed runs left behind are removed first.

    It is locked as long as its owner lives (flock(2)), which is how one that nobody owns is told.
    """
    with FileLock(base / "scratch.lock"):
        for left in base.glob(f"{_PREFIX}*"):
            if (lock := _lock(left)) is not None:
                remove(left)
                os.close(lock)
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        held = _lock(path)
    try:
        yield path
    finally:
        remove(path)
        if held is not None:
            os.close(held)


def _lock(directory: Path) -> int | None:
    """Return a descriptor that holds the directory's lock, or None when somebody else does."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
