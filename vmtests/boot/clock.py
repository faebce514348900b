"""Time as a port, so that a boot can be followed in tests without waiting."""

import threading
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the follower needs to know of time."""

    def monotonic(self) -> float:
        """Return seconds that never go back; only differences mean something."""
        ...

    def wall(self) -> datetime:
        """Return the date and time, in UTC."""
        ...

    def wait(self, condition: threading.Condition, timeout: float | None) -> None:
        """Wait on `condition`, which the caller holds, until it is notified or `timeout` seconds passed."""
        ...


class SystemClock:
    """The host's own clock."""

    def monotonic(self) -> float:
        """Return CLOCK_MONOTONIC in seconds."""
        return time.monotonic()

    def wall(self) -> datetime:
        """Return the host's date and time, in UTC."""
        return datetime.now(UTC)

    def wait(self, condition: threading.Condition, timeout: float | None) -> None:
        """Wait on `condition`; None waits without limit."""
        condition.wait(timeout)
