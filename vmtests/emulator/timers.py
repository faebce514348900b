"""Timers on a clock that can be put forward, so that a lifetime of hours is seen to end in a moment."""

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self


@dataclass(order=True, slots=True)
class Timer:
    """An action that is due at a time of the clock, unless it is cancelled."""

    due: float
    number: int
    action: Callable[[], None] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)


class Timers:
    """Calls actions in one thread when they are due; a context manager."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._ahead = 0.0
        self._heap: list[Timer] = []
        self._numbers = itertools.count()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="timers", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def after(self, seconds: float, action: Callable[[], None]) -> Timer:
        """Have `action` called in `seconds`; it must not block."""
        with self._changed:
            timer = Timer(self._now() + seconds, next(self._numbers), action)
            heapq.heappush(self._heap, timer)
            self._changed.notify_all()
            return timer

    def cancel(self, timer: Timer) -> None:
        """Have it not called."""
        with self._changed:
            timer.cancelled = True

    def advance(self, seconds: float) -> None:
        """Put the clock forward."""
        with self._changed:
            self._ahead += seconds
            self._changed.notify_all()

    def _now(self) -> float:
        return time.monotonic() + self._ahead

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and (not self._heap or self._heap[0].due > self._now()):
                    self._changed.wait(self._heap[0].due - self._now() if self._heap else None)
                if self._closed:
                    return
                timer = heapq.heappop(self._heap)
                if timer.cancelled:
                    continue
            timer.action()
