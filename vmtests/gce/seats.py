"""How many instances a run has at a time, in all of its processes."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from vmtests.errors import HostError, InputError, from_os

_LOOK_SECONDS = 1.0
_PATIENCE = 1800.0  # seconds for another process to be done with an instance


class Seats:
    """Seats for `limit` instances: files in `directory`, each locked by who has it (flock(2)), so while he lives."""

    def __init__(self, directory: Path, limit: int) -> None:
        self._directory = directory
        self._limit = limit
        self._ours = 0

    @contextlib.contextmanager
    def take(self) -> Iterator[None]:
        """Have a seat, which another process may have to leave first.

        Raises InputError when all are our own, HostError when nobody leaves.
        """
        descriptor = self._wait()
        self._ours += 1
        try:
            yield
        finally:
            self._ours -= 1
            os.close(descriptor)

    def _wait(self) -> int:
        deadline = time.monotonic() + _PATIENCE
        while True:
            for number in range(self._limit):
                if (descriptor := self._try(number)) is not None:
                    return descriptor
            if self._ours >= self._limit:
                text = f"this run has {self._limit} instances already, and may have no more at a time"
                raise InputError(text, hint="--gce-instances=N")
            if time.monotonic() > deadline:
                raise HostError("no other process of the run is done with an instance", hint="--gce-instances=N")
            time.sleep(_LOOK_SECONDS)

    def _try(self, number: int) -> int | None:
        try:
            descriptor = os.open(self._directory / f"seat-{number}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise from_os("no instance can be counted", error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor
