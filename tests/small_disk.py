"""A file system that runs full without harm to others: a limit on a file's size would be another error.

It is mounted in namespaces of its own, so that any user may have one. This file, run as a script, is the process that
holds them; who is to work on the disk joins them, and everybody else sees it through /proc.
"""

import contextlib
import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000  # linux/sched.h
_MS_RDONLY, _MS_REMOUNT, _MS_REC, _MS_PRIVATE = 1, 1 << 5, 1 << 14, 1 << 18  # linux/mount.h
_UP, _DONE = "up\n", "done\n"
_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """A disk at `place` for those who have joined the namespaces of the process `holder`."""

    place: Path
    holder: subprocess.Popen[str]

    @property
    def seen(self) -> Path:
        """The same directory for all others."""
        return Path(f"/proc/{self.holder.pid}/root{self.place}")

    def make_writable(self) -> None:
        """Undo `make_read_only`; for those who have not joined."""
        assert self.holder.stdin is not None
        assert self.holder.stdout is not None
        self.holder.stdin.write("\n")
        self.holder.stdin.flush()
        assert self.holder.stdout.readline() == _DONE


@contextlib.contextmanager
def small_disk(place: Path, size: str) -> Iterator[SmallDisk]:
    """Have a file system of its own at `place`, a new directory; `size` is as for tmpfs(5).

    The test is skipped where the host allows neither a mount nor a user namespace.
    """
    place.mkdir()
    with subprocess.Popen(
        [sys.executable, __file__, place, size],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as holder:
        assert holder.stdout is not None
        assert holder.stderr is not None
        if holder.stdout.readline() != _UP:
            pytest.skip(f"this host allows this user neither a mount nor a user namespace: {holder.stderr.read()}")
        try:
            yield SmallDisk(place, holder)
        finally:
            holder.kill()


def join(holder: int) -> None:
    """Have this process, which has one thread, and those that it starts see the disk of `holder` at its place."""
    for name, kind in (("user", _CLONE_NEWUSER), ("mnt", _CLONE_NEWNS)):
        theirs, ours = Path(f"/proc/{holder}/ns/{name}"), Path(f"/proc/self/ns/{name}")
        if not theirs.samefile(ours):
            with theirs.open("rb") as file:
                _checked(_libc.setns(file.fileno(), kind))


def make_read_only(place: Path) -> None:
    """Have the disk at `place` refuse writes; for those who have joined. Raises OSError."""
    _checked(_libc.mount(None, os.fsencode(place), None, _MS_REMOUNT | _MS_RDONLY, None))


def _enter() -> None:
    """Enter a new mount namespace, and a user namespace first where it takes that."""
    user, group = os.geteuid(), os.getegid()
    try:
        _checked(_libc.unshare(_CLONE_NEWNS))
    except PermissionError:
        _checked(_libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS))
        # Everybody is who they were; user_namespaces(7) says why in this order.
        for name, content in (
            ("setgroups", "deny"),
            ("uid_map", f"{user} {user} 1"),
            ("gid_map", f"{group} {group} 1"),
        ):
            Path("/proc/self", name).write_text(content, encoding="utf-8")
    _checked(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))


def _hold(place: str, size: str) -> None:
    """Mount the disk, and hold it until nobody is there who wants it; each line that is read makes it writable."""
    _enter()
    _checked(_libc.mount(b"none", os.fsencode(place), b"tmpfs", 0, f"size={size}".encode()))
    sys.stdout.write(_UP)
    sys.stdout.flush()
    for _ in sys.stdin:
        _checked(_libc.mount(None, os.fsencode(place), None, _MS_REMOUNT, None))
        sys.stdout.write(_DONE)
        sys.stdout.flush()


if __name__ == "__main__":
    try:
        _hold(*sys.argv[1:])
    except OSError as error:
        sys.exit(str(error))
