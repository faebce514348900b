"""Which start jobs of systemd are running, as far as the console tells."""

import re

JOBS_LIMIT = 256
"""Jobs that are remembered; the oldest is forgotten first, its result line must have been lost."""

JOBS_NAMED = 5
"""Jobs, or units, that a sentence names."""

# Verbs: systemd src/core/{job,service,mount,swap,socket}.c, the tables of start and finish messages.
_OPENS = re.compile(r"(?:Starting|Mounting|Activating swap|Activating) (?P<unit>.+?)(?:\.\.\.|…)$")
_CLOSES = re.compile(
    r"(?:\[\w+\] )?(?:"
    r"(?:Started|Finished|Mounted|Listening on|Activated swap|Activated|Skipped|Stopped|Unmounted"
    r"|Failed to (?:start|mount|listen on|activate swap|activate)"
    r"|Timed out (?:starting|mounting|activating swap|activating)"
    r"|Dependency failed for|Assertion failed for) (?P<unit>.+?)\.?"
    r"|Condition check resulted in (?P<condition>.+) being skipped\."
    r"|Starting of (?P<unsupported>.+) (?:unsupported|not supported)\."
    r"|(?P<skipped>.+?) was skipped because .+"
    r")$"
)


class Jobs:
    """The start jobs between their `Starting …` and their result line.

    systemd cuts a line that is too long for the console in its middle (`ellipsize()` with 50 per cent), and
    the two lines of one job are cut at different places, so cut names are compared by their ends.
    """

    def __init__(self, limit: int = JOBS_LIMIT) -> None:
        self._limit = limit
        self._running: dict[str, None] = {}

    @property
    def running(self) -> tuple[str, ...]:
        """Names of the running jobs, as the console spelled them, oldest first."""
        return tuple(self._running)

    def line(self, text: str) -> None:
        """Take a normalised line."""
        if match := _OPENS.match(text):
            self._running.setdefault(match["unit"])
            if len(self._running) > self._limit:
                del self._running[next(iter(self._running))]
        elif self._running and (match := _CLOSES.match(text)):
            self._close(next(name for name in match.groups() if name is not None))

    def clear(self) -> None:
        """Forget every job: another manager took over."""
        self._running.clear()

    def _close(self, name: str) -> None:
        if name in self._running:
            del self._running[name]
            return
        for other in self._running:
            if _same(name, other):
                del self._running[other]
                return


def _same(one: str, other: str) -> bool:
    if "…" not in one and "…" not in other:
        return False  # names that were not cut were compared already
    (one_head, one_tail), (other_head, other_tail) = _ends(one), _ends(other)
    head, tail = min(len(one_head), len(other_head)), min(len(one_tail), len(other_tail))
    return one_head.startswith(other_head[:head]) and one_tail.endswith(other_tail[len(other_tail) - tail :])


def _ends(name: str) -> tuple[str, str]:
    head, cut, tail = name.partition("…")
    return (head, tail) if cut else (name, name)
