"""Room for machines in this host's memory, so that it need not swap: who finds none waits for somebody else's end.

All runs of one user count together: each machine has a file in one directory, locked as long as its owner lives
(flock(2)), with the bytes that it may take.
"""

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock

from vmtests import progress
from vmtests.errors import HostError
from vmtests.host.memory import memory
from vmtests.sizes import GIB, MIB

OVERHEAD = 160 * MIB
"""Bytes that QEMU takes beside the guest's memory; and a fork in all, unless it writes more (decision 1)."""

RESERVE = GIB
"""Bytes that are left to everybody else."""

PATIENCE = 600.0
"""Seconds that a machine waits for room."""

_LOOK = 1.0  # seconds between two looks


class Admission:
    """Lets machines in; `directory` is made when the first one comes."""

    def __init__(
        self,
        directory: Path,
        *,
        memory: Callable[[], tuple[int, int]] = memory,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._directory = directory
        self._memory = memory
        self._clock = clock
        self._pause = pause

    @contextlib.contextmanager
    def room(self, size: int) -> Iterator[None]:
        """Hold room for a machine of `size` bytes; raises HostError when there is none, now or after PATIENCE."""
        total, _ = self._memory()
        if size > total - RESERVE:
            raise HostError(
                f"a machine of {size // MIB} MiB does not fit into this host's {total // MIB} MiB",
                hint="a smaller one: Hardware(memory_mib=…)",
            )
        with contextlib.ExitStack() as stack:
            if (held := self._try(size)) is None:
                with progress.step(f"waiting for {size // MIB} MiB of memory"):
                    held = self._wait(size)
            stack.callback(_give_back, *held)
            yield

    def _wait(self, size: int) -> tuple[int, str]:
        end = self._clock() + PATIENCE
        while self._clock() < end:
            self._pause(_LOOK)
            if (held := self._try(size)) is not None:
                return held
        taken, (total, available) = self._taken(), self._memory()
        raise HostError(
            f"there is no room for a machine of {size // MIB} MiB: {available // MIB} of {total // MIB} MiB are "
            f"available, and other machines may take {taken // MIB}",
            hint="fewer machines at once, or smaller ones",
        )

    def _try(self, size: int) -> tuple[int, str] | None:
        """Return a descriptor that holds the room until it is closed, and its file; None when there is none now."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with FileLock(self._directory / "admission.lock"):
                total, available = self._memory()
                if self._taken() + size > total - RESERVE or size > available - RESERVE // 2:
                    return None
                descriptor, name = tempfile.mkstemp(prefix="machine-", dir=self._directory)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                os.write(descriptor, b"%d" % size)
        except OSError as error:
            raise HostError(
                f"{self._directory} cannot be written: {error.strerror}", hint="set VMTESTS_CACHE"
            ) from error
        return descriptor, name

    def _taken(self) -> int:
        """Return the bytes that living machines may take; what the dead left is removed."""
        taken = 0
        for path in self._directory.glob("machine-*"):
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    taken += int(file.read() or b"0")
                else:
                    path.unlink()
        return taken


def _give_back(descriptor: int, name: str) -> None:
    with contextlib.suppress(OSError):  # the directory may be gone; whoever comes next removes what is left
        Path(name).unlink()
    os.close(descriptor)
