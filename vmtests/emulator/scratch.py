"""Directories that end with the process that made them, or with the next one that makes one."""

import contextlib
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from vmtests.errors import HostError


@contextlib.contextmanager
def directory(base: Path) -> Iterator[Path]:
    """Give a new directory below `base`, and remove those that killed processes have left there. Raises HostError."""
    try:
        base.mkdir(parents=True, exist_ok=True)
        for lock in base.glob("*.lock"):
            _remove_if_left(lock)
        made = base / secrets.token_hex(8)
        lock = made.with_suffix(".lock")
        held = FileLock(lock)
        held.acquire()
        made.mkdir(mode=0o700)
    except OSError as error:
        raise HostError(f"{base} cannot be written: {error.strerror}", hint="set VMTESTS_CACHE") from error
    with held:
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)
            lock.unlink(missing_ok=True)


def _remove_if_left(lock: Path) -> None:
    # One whose lock is held is in use.
    with contextlib.suppress(Timeout), FileLock(lock, timeout=0):
        shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
        lock.unlink(missing_ok=True)
