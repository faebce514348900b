"""Things that the processes of a run have in common: the first has one made, the last removes it."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from vmtests import progress
from vmtests.gce.things import Thing


class Share:
    """Our share of a thing, which is noted in the file `path`.

    Who has a share holds a lock on that file (flock(2)), which ends with its process at the latest. A note that nobody
    holds counts for nothing: the ledger of whoever died names the thing, and it may be gone by now.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._turn = FileLock(f"{path}.lock")
        self._held: int | None = None

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Keep the other processes from taking and leaving it."""
        try:
            self._turn.acquire(blocking=False)
        except Timeout:
            with progress.step("waiting for the image, which another process has Compute Engine make"):
                self._turn.acquire()
        try:
            yield
        finally:
            self._turn.release()

    def find(self) -> Thing | None:
        """Return the thing, if another process has a share in it; in our turn."""
        with self._opened() as descriptor:
            if _alone(descriptor):
                return None
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Thing)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None  # who wrote it died meanwhile

    def hold(self, thing: Thing) -> None:
        """Take a share in the thing; in our turn."""
        self._path.write_bytes(msgspec.json.encode(thing))
        self._held = os.open(self._path, os.O_RDWR)
        fcntl.flock(self._held, fcntl.LOCK_SH)

    def leave(self) -> bool:
        """Give up our share and return whether it was the last; in our turn."""
        self.close()
        with self._opened() as descriptor:
            return _alone(descriptor)

    def close(self) -> None:
        """Give up our share, if we have one."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _alone(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
