"""Where bubblewrap makes no sandbox: a store tree without mounts, and files of root's without being root."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from vmtests.host.tools import Toolbox

_FREE = re.compile(r"^  Free inodes: (.*)$", re.MULTILINE)
_COUNT = re.compile(r"^Inode count: +(\d+)$", re.MULTILINE)


def link_tree(source: Path, target: Path) -> None:
    """Make `target` what `source` is: a link, a file or a directory, by hard links where that is possible.

    Who may not link somebody else's file (proc_sys_fs(5), protected_hardlinks) copies it. Raises OSError.
    """
    if source.is_symlink():
        target.symlink_to(source.readlink())
    elif source.is_dir():
        shutil.copytree(source, target, symlinks=True, copy_function=_link)
    else:
        _link(source, target)


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def give_to_root(disk: Path, offset: int, toolbox: Toolbox) -> None:
    """Make every file of the ext4 at `offset` of `disk`, which mkfs.ext4 has filled with the caller's, root's."""
    place = f"{disk}?offset={offset}"
    commands = "".join(
        f"set_inode_field <{inode}> {field} 0\n"
        for inode in _used(toolbox.run("dumpe2fs", place))
        for field in ("uid", "gid")
    )
    toolbox.run("debugfs", "-w", "-f", "-", place, stdin=commands)


def _used(shown: str) -> Iterator[int]:
    """Yield the numbers of the inodes that are in use, of the root directory and of files (dumpe2fs(8))."""
    free: set[int] = set()
    for ranges in _FREE.findall(shown):
        for part in filter(None, ranges.split(", ")):
            first, _, last = part.partition("-")
            free.update(range(int(first), int(last or first) + 1))
    match = _COUNT.search(shown)
    count = int(match[1]) if match else 0
    yield 2  # Linux fs/ext4/ext4.h, EXT4_ROOT_INO
    yield from (inode for inode in range(11, count + 1) if inode not in free)  # EXT4_GOOD_OLD_FIRST_INO
