"""Files that appear whole or not at all: written beside their place, made durable, renamed."""

import contextlib
import ctypes
import errno
import glob
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from vmtests.errors import at_named
from vmtests.host.scratch import owned, remove, remove_unowned

_SYNC_FILE_RANGE_WRITE = 2  # linux/fs.h; sync_file_range(2)
_TRIES = 100
_libc = ctypes.CDLL(None)


@contextlib.contextmanager
def beside(target: Path) -> Iterator[Path]:
    """Give a scratch directory beside `target`, on its file system, which ends with the block.

    It is locked as long as its owner lives (flock(2)); those of killed owners are removed first. Raises HostError
    when the place cannot be written to.
    """
    prefix = f".{target.name}.building-"
    parent = target.absolute().parent
    with contextlib.ExitStack() as stack:
        try:
            for left in parent.glob(f"{glob.escape(prefix)}*"):
                remove_unowned(left)
            path = _make(stack, prefix, parent)
        except OSError as error:
            raise at_named(f"{parent} is not writable", error, "name another place") from error
        yield path


def _make(stack: contextlib.ExitStack, prefix: str, parent: Path) -> Path:
    """Make a directory that is ours until the stack ends; raises OSError."""
    for _ in range(_TRIES):
        path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        # Until it is owned another process takes it for a dead one's, and removes it.
        with contextlib.suppress(FileNotFoundError), contextlib.ExitStack() as made:
            made.enter_context(owned(path))
            made.callback(remove, path)
            if path.is_dir():
                stack.push(made.pop_all())
                return path
    raise FileNotFoundError(errno.ENOENT, "somebody removes whatever is made there", os.fspath(parent))


def publish(file: Path, target: Path) -> None:
    """Put `file` at `target`, so that neither a crash nor a power cut leaves less than the whole there."""
    sync(file)
    file.replace(target)
    sync(target.absolute().parent)


def start_writing(file: Path) -> None:
    """Have the kernel begin to write what is in memory of a file, so that the disk works while more is made.

    Left to itself it waits until a tenth of all memory is to be written (Documentation/admin-guide/sysctl/vm.rst,
    dirty_background_ratio). Raises FileNotFoundError.
    """
    descriptor = os.open(file, os.O_RDONLY)
    try:
        _libc.sync_file_range(descriptor, ctypes.c_int64(0), ctypes.c_int64(0), _SYNC_FILE_RANGE_WRITE)
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    """Have a file's content, or a directory's entries, on the disk (fsync(2))."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
