"""What goes into an image, looked at before a byte of it is written: how much it is, and whether all of it can."""

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vmtests.errors import InputError
from vmtests.text import printable

_BLOCK = 4096  # bytes of a block of the file systems that are made
_INODE = 96  # bytes of an inode and its name in erofs, more or less
_SHOWN = 1000  # characters of a path
_KINDS = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """How many inodes there are, directories among them, and the bytes of their content in blocks of 4 KiB."""

    inodes: int = 0
    directories: int = 0
    blocks: int = 0

    @property
    def size(self) -> int:
        """Bytes of a file system that holds them uncompressed, with its metadata."""
        return self.blocks + self.inodes * _INODE


def survey(trees: Iterable[tuple[str, Path]]) -> Totals:
    """Count what is in `trees`, each with its place in the spec; symlinks are not followed.

    Raises InputError, with that place, for what cannot be read and for what is no file, directory or symlink.
    """
    inodes = directories = blocks = 0
    # Flat, with as few calls as can be: there may be half a million inodes.
    for place, tree in trees:
        path = ""
        try:
            found = tree.lstat()
            inodes += 1
            if not stat.S_ISDIR(found.st_mode):
                blocks += _blocks(place, os.fspath(tree), found)
                continue
            with opened(os.fspath(tree)) as top:
                waiting = [""]
                while waiting:
                    directories += 1
                    path = waiting.pop()
                    descriptor = below(path or ".", top)
                    try:
                        with os.scandir(descriptor) as entries:
                            for entry in entries:
                                inodes += 1
                                name = f"{path}/{entry.name}" if path else entry.name
                                if entry.is_dir(follow_symlinks=False):
                                    waiting.append(name)
                                elif not entry.is_symlink():
                                    blocks += _blocks(place, f"{tree}/{name}", entry.stat(follow_symlinks=False))
                    finally:
                        os.close(descriptor)
        except OSError as error:
            raise unreadable(place, os.fspath(tree / path), error) from error
    return Totals(inodes=inodes, directories=directories, blocks=blocks * _BLOCK)


@contextlib.contextmanager
def opened(directory: str) -> Iterator[int]:
    """Give a descriptor of a directory, from which what is below it is named: whole names may be too long."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def below(path: str | bytes, top: int) -> int:
    """Return a descriptor of the directory `path` of the directory `top`, a descriptor; whoever asks closes it.

    No context manager: that would be a sixth of the time of each of half a million small directories.
    """
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)


def unreadable(place: str, path: str, error: OSError) -> InputError:
    """Return the error of what cannot be looked at, with its place in the spec."""
    return InputError(f"{place}: {printable(path, _SHOWN)} cannot be read: {error.strerror}")


def refuse_special(place: str, path: str, found: os.stat_result) -> None:
    """Raise InputError, with its place in the spec, for what is no file, directory or symlink."""
    if (kind := _KINDS.get(stat.S_IFMT(found.st_mode))) is not None:
        what = f"{printable(path, _SHOWN)} is {kind}"
        raise InputError(f"{place}: {what}", hint="an image holds files, directories and symlinks only")


def _blocks(place: str, path: str, found: os.stat_result) -> int:
    """Return the blocks of a file's content; raises as `refuse_special`."""
    refuse_special(place, path, found)
    return -(-found.st_size // _BLOCK) if stat.S_ISREG(found.st_mode) else 0
