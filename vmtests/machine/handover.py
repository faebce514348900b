"""Takes files out of a directory that a program of somebody else's guest can write to.

It may have put anything into their places: a symbolic link to a file of ours, or a pipe on which we would wait.
"""

import os
import shutil
import stat
from pathlib import Path

from vmtests.errors import HostError
from vmtests.host.scratch import remove

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def move(path: Path, target: Path) -> None:
    """Make `target`, a new file, of what is in the file `path`, and remove that; raises HostError, OSError."""
    copy(path, target)
    path.unlink()


def copy(path: Path, target: Path, directory: int | None = None) -> None:
    """Make `target`, a new file, of what is in the file `path`; raises HostError, OSError.

    With `directory`, the descriptor of one, `path` is a name in it.
    """
    with open(os.open(path, _FLAGS, dir_fd=directory), "rb") as source:  # noqa: PTH123 - it is a descriptor
        if not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
            raise HostError(f"{path} is no file any more", hint="QEMU, or who has taken it over, has replaced it")
        with target.open("xb") as file:
            shutil.copyfileobj(source, file, 1 << 20)


def copy_directory(path: Path, target: Path) -> None:
    """Make `target`, a new directory, of the files in the directory `path`; raises HostError, OSError."""
    directory = os.open(path, _FLAGS | os.O_DIRECTORY)
    try:
        target.mkdir()
        for name in os.listdir(directory):  # noqa: PTH208 - pathlib knows no directory by its descriptor
            copy(Path(name), target / name, directory)
    finally:
        os.close(directory)


def let_read(*files: Path) -> None:
    """Let other users read files of ours, in a directory that only we may enter: another machine's QEMU is one."""
    for file in files:
        file.chmod(0o644)


def clear(directory: Path) -> None:
    """Remove all that is in a directory; raises OSError."""
    for left in directory.iterdir():
        if left.is_dir() and not left.is_symlink():
            remove(left)
            if left.exists():
                left.rmdir()  # which says why it cannot be removed
        else:
            left.unlink()
