"""Progress of anything that takes longer than two seconds, on standard error.

On a terminal one line is repainted; elsewhere (CI logs) a line is written when a step starts, at most every
`QUIET_SECONDS` while it runs, and when it ends.
"""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from vmtests.sizes import format_size
from vmtests.text import inert, printable

QUIET_SECONDS = 10.0
"""Seconds between two lines of a running step where nothing can be repainted."""

_SIZE = re.compile(r"0*[1-9][0-9]{0,4}")  # of a terminal
_SHOW_AFTER = 2.0  # seconds; steps that end sooner are not worth a line in a log


class Step:
    """A running step; `note` says what it is doing just now."""

    def __init__(self, title: str, console: Console) -> None:
        self._title = title
        self._console = console
        self._started = time.monotonic()
        self._last = self._started
        self._phase = 0.0
        self._phase_name = ""
        self._phases: dict[str, float] = {}
        self._status = console.status(Text(title)) if console.is_terminal else None

    @property
    def seconds(self) -> float:
        """Seconds since the step started."""
        return time.monotonic() - self._started

    def note(self, text: str) -> None:
        """Say what the step is doing; cheap enough to be called for every line of a tool's output."""
        shown = printable(text.strip(), 90)
        if self._status is not None:
            self._status.update(Text(f"{self._title}: {shown} ({self.seconds:.0f} s)"))
        elif time.monotonic() - self._last >= QUIET_SECONDS:
            self._last = time.monotonic()
            self._console.print(Text(f"{self._title}: {shown} ({self.seconds:.0f} s)"))

    def amount(self, done: int, total: int) -> None:
        """Say how many bytes of about `total` are done, at which rate, and how long the rest takes at that rate."""
        rate = done / max(self.seconds - self._phase, 0.1)
        left = f", {max(total - done, 0) / rate:.0f} s left" if rate and self.seconds > _SHOW_AFTER else ""
        of = format_size(max(total, done))
        part = f"{self._phase_name}, " if self._phase_name else ""
        self.note(f"{part}{format_size(done)} of {of}, {format_size(int(rate))}/s{left}")

    def phase(self, name: str) -> None:
        """Begin a part of the step, which `amount` counts from here."""
        self._phases = self.phases
        self._phase, self._phase_name = self.seconds, name
        self.note(name)

    @property
    def phases(self) -> dict[str, float]:
        """Seconds that each part has taken up to now."""
        if not self._phase_name:
            return {}
        return {**self._phases, self._phase_name: self.seconds - self._phase}


class _Console(Console):
    """Rich's, which writes its own sequences behind this: in what is printed, names may hold any, or orders for CI."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Render with all escaped that is not printable, but the ends of lines."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            if control:
                yield segment
                continue
            if not text.isprintable():
                text = "\n".join(printable(line, len(line)) for line in text.split("\n"))
            yield Segment(inert(text), style)


def console(*, stderr: bool = False, markup: bool = True, soft_wrap: bool = False) -> Console:
    """Return a console without highlighting, whatever COLUMNS and LINES say."""
    for name in ("COLUMNS", "LINES"):
        # A shell without a terminal may say 0, in which nothing can be said; Rich takes any digits for a size.
        if not _SIZE.fullmatch(os.environ.get(name, "1")):
            del os.environ[name]
    return _Console(stderr=stderr, highlight=False, markup=markup, soft_wrap=soft_wrap)


def stderr() -> Console:
    """Return the console on which progress and errors are written; markup and highlighting are off."""
    return console(stderr=True, markup=False, soft_wrap=True)


@contextmanager
def step(title: str) -> Iterator[Step]:
    """Show `title` while the block runs, and how long it took when it ends well."""
    shown = stderr()
    running = Step(title, shown)
    if running._status is not None:  # noqa: SLF001 - the two belong together
        with running._status:  # noqa: SLF001
            yield running
    else:
        yield running
    if running.seconds >= _SHOW_AFTER:
        shown.print(Text(f"{title}: done in {running.seconds:.1f} s"))
