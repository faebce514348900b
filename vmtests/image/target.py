"""Files that appear whole or not at all: written beside their place, made durable, renamed."""

import contextlib
import fcntl
import glob
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from vmtests.errors import at_named
from vmtests.host.scratch import remove, remove_unowned


@contextlib.contextmanager
def beside(target: Path) -> Iterator[Path]:
    """Give a scratch directory beside `target`, on its file system, which ends with the block.

    It is locked as long as its owner lives (flock(2)); those of killed owners are removed first. Raises HostError
    when the place cannot be written to.
    """
    prefix = f".{target.name}.building-"
    parent = target.absolute().parent
    for left in parent.glob(f"{glob.escape(prefix)}*"):
        remove_unowned(left)
    try:
        path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    except OSError as error:
        raise at_named(f"{parent} is not writable", error, "name another place") from error
    held = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(held, fcntl.LOCK_SH)
        yield path
    finally:
        remove(path)
        os.close(held)


def publish(file: Path, target: Path) -> None:
    """Put `file` at `target`, so that neither a crash nor a power cut leaves less than the whole there."""
    sync(file)
    file.replace(target)
    sync(target.absolute().parent)


def sync(path: Path) -> None:
    """Have a file's content, or a directory's entries, on the disk (fsync(2))."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
