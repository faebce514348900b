"""What a parser is, what it may take, and how that is measured."""

import contextlib
import ctypes
import os
import resource
import time
from collections.abc import Callable
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
    """A parser: `call` it with anything; it may raise `may`, and nothing else."""

    call: Callable[[bytes], object]
    good: Callable[[], list[bytes]]
    may: tuple[type[Exception], ...] = (VmtestsError,)
    found: tuple[bytes, ...] = ()
    """What brought it down once."""
    slow: bool = False
    """Whether it starts processes: fewer inputs are enough for a short look."""


class Judge:
    """Calls a parser; raises AssertionError where it takes too much. `seconds` and `memory` are the most it took."""

    def __init__(self, parser: Parser) -> None:
        self._parser = parser
        if parser.slow:  # bubblewrap ends before its tool was waited for: what that took would be nobody's
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.inputs = 0
        self.seconds = 0.0
        """For 100 KB."""
        self.memory = 0
        """Bytes."""

    def __call__(self, data: bytes) -> None:
        """Call it once."""
        Path("/proc/self/clear_refs").write_text(_FORGET_THE_PEAK, encoding="ascii")
        began, before = processor(), _resident()
        with contextlib.suppress(*self._parser.may):
            self._parser.call(data)
        # Each of them has begun as large as we are.
        tools = _tools() - before if self._parser.slow else 0
        took = (processor() - began) / max(len(data) / _UNIT, 1.0)
        grown = max((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - before, tools)
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


def _tools() -> int:
    """Wait for all tools, and return what the largest of them all has taken, in bytes."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
