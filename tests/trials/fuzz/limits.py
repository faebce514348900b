"""What a parser is, what it may take, and how that is measured."""

import contextlib
import ctypes
import os
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vmtests.errors import VmtestsError

SECONDS = 1.0
"""Of a processor, for 100 KB of input, and for less; a parser's tools are counted too."""
MEMORY = 200 << 20
"""Bytes by which a parser's process may grow while it reads one input."""
_UNIT = 100_000
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_FORGET_THE_PEAK = "5"  # proc_pid_clear_refs(5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parser:
    """A parser: `call` it with anything; it may raise `may`, and nothing else, and nothing of what is `good`."""

    call: Callable[[bytes], object]
    good: Callable[[], list[bytes]]
    """What it reads to the end: others are made of these, which would be refused at once if these were."""
    may: tuple[type[Exception], ...] = (VmtestsError,)
    found: tuple[bytes, ...] = ()
    """What is refused, or brought it down once."""
    slow: bool = False
    """Whether it starts processes: fewer inputs are enough for a short look."""


class Judge:
    """Calls a parser; raises AssertionError where it takes too much. `seconds` and `memory` are the most it took."""

    def __init__(self, parser: Parser) -> None:
        self._parser = parser
        self.inputs = 0
        self.seconds = 0.0
        """For 100 KB."""
        self.memory = 0
        """Bytes."""

    def __call__(self, data: bytes) -> None:
        """Call it once."""
        Path("/proc/self/clear_refs").write_text(_FORGET_THE_PEAK, encoding="ascii")
        began, before, largest = processor(), _resident(), _peak(resource.RUSAGE_CHILDREN)
        adopting = _adopting() if self._parser.slow else contextlib.nullcontext()
        with adopting, contextlib.suppress(*self._parser.may):
            self._parser.call(data)
        # A tool has begun as large as we are; one that was not the largest ever is not seen.
        tools = _peak(resource.RUSAGE_CHILDREN)
        took = (processor() - began) / max(len(data) / _UNIT, 1.0)
        grown = max(_peak(resource.RUSAGE_SELF), tools if tools > largest else 0) - before
        self.inputs += 1
        self.seconds, self.memory = max(self.seconds, took), max(self.memory, grown)
        # A processor that others use too is slower, not the parser: it has twice the time.
        assert took < 2 * SECONDS, f"{took:.1f} s for each 100 KB of {len(data)} bytes"
        assert grown < MEMORY, f"{grown >> 20} MiB for {len(data)} bytes"

    def __str__(self) -> str:
        return (
            f"{self.inputs} inputs, at most {self.seconds:.2f} s of a processor for 100 KB "
            f"and {self.memory >> 20} MiB more memory"
        )


def processor() -> float:
    """Seconds of a processor that this process and its children have had."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@contextlib.contextmanager
def _adopting() -> Iterator[None]:
    """Count what tools take: bubblewrap ends before the one within was waited for, which would be nobody's then."""
    prctl, known = ctypes.CDLL(None).prctl, _sandboxes()
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        for pid in _sandboxes() - known:
            os.waitpid(pid, 0)
        prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _sandboxes() -> set[int]:
    """Return our children that are bubblewrap: a parser may keep others."""
    children = {int(pid) for task in Path("/proc/self/task").iterdir() for pid in _read(task / "children").split()}
    return {pid for pid in children if _read(Path(f"/proc/{pid}/comm")) == "bwrap\n"}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:  # it has ended
        return ""


def _peak(who: int) -> int:
    return resource.getrusage(who).ru_maxrss << 10


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
