"""The output of a serial port as Compute Engine keeps it: the last megabyte, counted from the first byte."""

import threading
from collections.abc import Callable

LIMIT = 1 << 20
"""Bytes that are kept of each port."""


class Ring:
    """The last bytes of a serial port; may be used from any thread."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._kept = bytearray()
        self._end = 0
        self._lock = threading.Lock()
        self._followers: list[Callable[[bytes], None]] = []

    def feed(self, data: bytes) -> None:
        """Take bytes of the port; the oldest are dropped."""
        with self._lock:
            self._kept += data
            self._end += len(data)
            del self._kept[: -self._limit]
            for follower in self._followers:
                follower(data)

    def follow(self, follower: Callable[[bytes], None]) -> bytes:
        """Have all that comes from now on told to `follower`, which must not block; return what came before."""
        with self._lock:
            self._followers.append(follower)
            return bytes(self._kept)

    def leave(self, follower: Callable[[bytes], None]) -> None:
        """Have it told no more."""
        with self._lock:
            self._followers.remove(follower)

    def read(self, start: int = 0) -> tuple[int, bytes]:
        """Return the bytes from position `start` on, and where they really begin.

        That is later than asked for when the ring has dropped some. A negative `start` asks for that many of the
        last bytes.
        """
        with self._lock:
            oldest = self._end - len(self._kept)
            start = max(oldest, self._end + start if start < 0 else start)
            return start, bytes(self._kept[start - oldest :])
