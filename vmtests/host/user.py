"""Whom a program of somebody else's guest runs as when root has started us: nobody that anything else belongs to."""

import itertools
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from vmtests.host.sandbox import User, demotion_refusal, refusal

# systemd's docs/UIDS-GIDS.md: given to services while they run; no person and no file that stays has one of these.
_FIRST, _COUNT = 61184, 4336
_numbers = itertools.count(os.getpid())
_READ, _READ_WRITE = 4, 6


def unprivileged(root: Path, readable: Iterable[Path], devices: Iterable[Path] = ()) -> User | None:
    """Return a user, another one at each call, as whom a program of the tree `root` can run, if we are root.

    It must be able to read the files, and to read and write the devices, and gets the groups that it takes: it sees
    nothing else that is theirs. None where that cannot be: `why_root` says why.
    """
    number = _FIRST + next(_numbers) % _COUNT
    if os.geteuid() != 0 or _unable(root) is not None:
        return None
    groups: set[int] = set()
    for paths, needed in ((readable, _READ), (devices, _READ_WRITE)):
        for path in paths:
            status = path.stat()
            if status.st_mode & needed == needed:
                continue
            if status.st_mode >> 3 & needed != needed:
                return None
            groups.add(status.st_gid)
    return User(number=number, groups=tuple(sorted(groups)))


def why_root(root: Path) -> str | None:
    """Return why no program of the tree `root` can run as another user, as root started us; None where it can."""
    return _unable(root)


def _unable(root: Path) -> str | None:
    return refusal() or demotion_refusal(root, _FIRST)


def give(user: User | None, *paths: Path) -> None:
    """Make files, and directories with all that is in them, the user's; back to us with None. Raises OSError.

    No symbolic link is followed: whoever had them may have left any.
    """
    owner = (os.geteuid(), os.getegid()) if user is None else (user.number, user.number)
    if os.geteuid() != 0:
        return
    for path in paths:
        os.lchown(path, *owner)
        if stat.S_ISDIR(path.lstat().st_mode):
            for directory, directories, files in os.walk(path):
                for name in (*directories, *files):
                    os.lchown(os.path.join(directory, name), *owner)  # noqa: PTH118
