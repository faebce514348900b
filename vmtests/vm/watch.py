"""Showing where a boot is to somebody who waits for it."""

import time

from rich.text import Text

from vmtests import progress
from vmtests.boot.follow import Follower


class Heartbeat:
    """Shows on standard error, every ten seconds, where a boot is (`Follower.pulse`)."""

    def __init__(self) -> None:
        self._console = progress.stderr()
        self._shown = time.monotonic()

    def __call__(self, follower: Follower) -> None:
        """Show where the boot is, unless that was shown lately."""
        if (now := time.monotonic()) - self._shown < progress.QUIET_SECONDS:
            return
        self._shown = now
        self._console.print(Text(str(follower.pulse)))
