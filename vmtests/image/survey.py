"""What goes into an image, looked at before a byte of it is written: how much it is, and whether all of it can."""

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vmtests.errors import InputError
from vmtests.sizes import round_up

_BLOCK = 4096  # bytes of a block of the file systems that are made
_INODE = 96  # bytes of an inode and its name in erofs, more or less
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
    for place, tree in trees:
        try:
            for path, found in _walk(tree):
                kind = stat.S_IFMT(found.st_mode)
                if kind in _KINDS:
                    what = f"{path} is {_KINDS[kind]}"
                    raise InputError(f"{place}: {what}", hint="an image holds files, directories and symlinks only")
                inodes += 1
                directories += kind == stat.S_IFDIR
                if kind == stat.S_IFREG:
                    blocks += round_up(found.st_size, _BLOCK)
        except OSError as error:
            raise InputError(f"{place}: {error.filename} cannot be read: {error.strerror}") from error
    return Totals(inodes=inodes, directories=directories, blocks=blocks)


def _walk(tree: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Give everything from `tree` down, with what lstat(2) says of it."""
    found = tree.lstat()
    yield os.fspath(tree), found
    waiting = [os.fspath(tree)] if stat.S_ISDIR(found.st_mode) else []
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                yield entry.path, entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
