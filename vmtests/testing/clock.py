"""Time that goes only when somebody waits, or says so."""

import heapq
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

EPOCH = datetime(2025, 1, 1, tzinfo=UTC)
"""The date at which every manual clock begins."""


class ManualClock:
    """A clock that stands still but for `advance` and waits, which make the calls put `at` a time.

    Times are in seconds. A `Follower` takes it as its `clock`: budgets of minutes end at once.
    """

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.waits: list[float | None] = []
        self._start = now
        self._calls: list[tuple[float, int, Callable[[], None]]] = []

    def monotonic(self) -> float:
        """Return the time."""
        return self.now

    def wall(self) -> datetime:
        """Return the time as a date."""
        return EPOCH + timedelta(seconds=self.now - self._start)

    def wait(self, condition: threading.Condition, timeout: float | None) -> None:
        """Go to the next call or to the end of `timeout`, whichever is sooner; raises RuntimeError without both."""
        del condition  # nobody else has to be waited for
        self.waits.append(timeout)
        end = float("inf") if timeout is None else self.now + timeout
        if self._calls and self._calls[0][0] <= end:
            self.now, _, call = heapq.heappop(self._calls)
            call()
        elif timeout is None:
            raise RuntimeError("this wait would never end")
        else:
            self.now = end

    def at(self, seconds: float, call: Callable[[], None]) -> None:
        """Make `call` when the clock has gone on by `seconds` from its start."""
        heapq.heappush(self._calls, (self._start + seconds, len(self._calls), call))

    def advance(self, seconds: float) -> None:
        """Go on by `seconds`."""
        self.now += seconds
