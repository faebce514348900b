"""What may happen to a piece of work, from inside its process; signals come from outside, at the same moment."""

import contextlib
import os
import resource
import shutil
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tests import small_disk
from vmtests.host import sandbox, tools

_YEARS = 10 * 365.25 * 86400


def _stand(_: Path, pipe: Connection) -> None:
    """Stand still until whoever watches has done what they wanted."""
    pipe.send("here")
    pipe.recv()


def _fill(place: Path, pipe: Connection) -> None:
    """Leave no byte on the disk."""
    del pipe
    with contextlib.suppress(OSError), (place / "filler").open("ab", buffering=0) as filler:
        while (free := shutil.disk_usage(place).free) > 0:
            filler.write(bytes(min(free, 1 << 20)))


def _freeze(place: Path, pipe: Connection) -> None:
    """Make the disk read-only."""
    try:
        small_disk.make_read_only(place)
    except OSError as error:
        pipe.send(f"cannot happen: {error}")


def _no_descriptors(_: Path, pipe: Connection) -> None:
    """Let no file be opened any more."""
    del pipe
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def _no_memory(_: Path, pipe: Connection) -> None:
    """Give no memory any more than there is, and a little."""
    del pipe
    taken = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + (1 << 18), resource.RLIM_INFINITY))


def _jump(years: float) -> Callable[[Path, Connection], None]:
    def jump(_: Path, pipe: Connection) -> None:
        del pipe
        real, real_ns = time.time, time.time_ns
        time.time = lambda: real() + years
        time.time_ns = lambda: real_ns() + int(years * 1e9)

    return jump


def _lose_cwd(_: Path, pipe: Connection) -> None:
    """Remove the working directory."""
    del pipe
    shutil.rmtree(Path.cwd())


HARMS: dict[str, Callable[[Path, Connection], None]] = {
    "KILL": _stand,
    "TERM": _stand,
    "INT": _stand,
    "STOP": _stand,
    "twice": _stand,
    "watched": _stand,
    "full": _fill,
    "read-only": _freeze,
    "no descriptors": _no_descriptors,
    "no memory": _no_memory,
    "clock forward": _jump(_YEARS),
    "clock back": _jump(-_YEARS),
    "no cwd": _lose_cwd,
}

TOOL_HARMS = {
    "killed at once": "kill -KILL $$",
    "killed at the end": '"$@"; kill -KILL $$',
    "stopped for a moment": '(sleep 0.2; kill -CONT $$) & kill -STOP $$; exec "$@"',
    "out of memory": 'ulimit -v 3000; exec "$@"',
}
"""What a shell does in the place of a tool."""


def strike_tool(patch: pytest.MonkeyPatch, tool: str, harm: str) -> None:
    """Have something happen to a tool, whenever it is run."""
    real = sandbox.sandbox
    # Behind `env --chdir=DIRECTORY` the tool is the third word.
    script = f'case "$1/$3" in {tool}/*|env/{tool}) {TOOL_HARMS[harm]};; esac; exec "$@"'

    def struck(root: Path, view: sandbox.View | None = None) -> list[str]:
        return [*real(root, view), "sh", "-c", script, "sh"]

    patch.setattr(sandbox, "sandbox", struck)
    patch.setattr(tools, "sandbox", struck)
