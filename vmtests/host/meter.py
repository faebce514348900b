"""What a tree of processes takes: processor time, memory, and bytes written."""

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

_SECONDS = 0.1  # between two samples; what lives shorter is not seen
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Seconds of processor time, the most resident bytes at one moment, and bytes that were written to files."""

    cpu_s: float
    peak_bytes: int
    written_bytes: int


class Meter:
    """Looks at this process, unless `own` is false, and all its descendants ten times a second; a context manager.

    It asks proc(5), since what a sandbox's init waits for never reaches the resource usage of who started it
    (getrusage(2)). Memory that processes share is counted for each.
    """

    def __init__(self, *, own: bool = True) -> None:
        self._own = own
        self._cpu: dict[int, float] = {}
        self._written: dict[int, int] = {}
        self._peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="meter", daemon=True)
        self._before = (0.0, 0)

    def __enter__(self) -> Self:
        self._sample()
        self._before = (sum(self._cpu.values()), sum(self._written.values()))
        self._peak = 0
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._sample()

    @property
    def usage(self) -> Usage:
        """What was used since the block was entered."""
        cpu, written = self._before
        return Usage(
            cpu_s=sum(self._cpu.values()) - cpu,
            peak_bytes=self._peak,
            written_bytes=sum(self._written.values()) - written,
        )

    def _run(self) -> None:
        while not self._ended.wait(_SECONDS):
            self._sample()

    def _sample(self) -> None:
        resident = 0
        for pid in _tree(os.getpid()):
            if pid == os.getpid() and not self._own:
                continue
            base = Path(f"/proc/{pid}")
            with contextlib.suppress(OSError, IndexError, ValueError):
                # Behind the name in brackets: fields 14 and 15 are its own time in user and kernel mode.
                fields = (base / "stat").read_text().rpartition(")")[2].split()
                self._cpu[pid] = (int(fields[11]) + int(fields[12])) / _TICKS
                resident += int(fields[21]) * _PAGE
                io = dict(line.split(": ") for line in (base / "io").read_text().splitlines())
                self._written[pid] = int(io["write_bytes"])
        self._peak = max(self._peak, resident)


def _tree(pid: int) -> Iterator[int]:
    """Give a process and its descendants (proc_pid_task(5), `children`)."""
    waiting = [pid]
    while waiting:
        pid = waiting.pop()
        yield pid
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(OSError):
                    waiting += map(int, (task / "children").read_text().split())
