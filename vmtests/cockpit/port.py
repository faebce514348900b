"""What is between a person and a machine: what is shown of it, what can be asked of it, and who makes it."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from vmtests.boot.console import Line
from vmtests.boot.follow import Watch
from vmtests.boot.stages import Stage
from vmtests.vm.vm import Vm


class Act(StrEnum):
    """What can be done with a machine; some take a word more."""

    SYSRQ = "sysrq"
    PICTURE = "picture"
    SNAPSHOT = "snapshot"
    REWIND = "rewind"
    POWER = "power"
    PAUSE = "pause"
    DEBUG = "debug"
    GDB = "gdb"


class Way(StrEnum):
    """A line on which a person may type."""

    CONSOLE = "console"
    DEBUG = "debug shell"
    SSH = "ssh"


class Wire(Protocol):
    """A connection to a line of the guest: a socket, or an ssh channel."""

    def recv(self, size: int, /) -> bytes:
        """Return what came, empty at the end."""

    def sendall(self, data: bytes, /) -> object:
        """Write all of it."""

    def close(self) -> None:
        """Hang up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A line that a person has: what it had said last, its `wire`, and what gives it back."""

    said: bytes
    wire: Wire
    give_back: Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A stage: seconds spent in it, None before; the seconds that it may be silent, and those that it took lately."""

    stage: Stage
    seconds: float | None
    budget: float
    usual: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A verdict in words; `word` is `ready`, `failed` or `unknown`."""

    word: str
    sentence: str
    hint: str
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """All that is shown: `lines` are those from number `total - len(lines)` on, `left` seconds of the budget.

    `machine` counts the machines of this session from 1, `points` are the places that can be gone back to and whether
    a machine is kept there. `still` is whether somebody has stopped the guest. `says` is the last answer, `busy` what
    is being done just now.
    """

    title: str
    results: str
    machine: int
    boot: int
    stage: Stage
    t: float
    left: float | None
    waits_for: str
    rows: tuple[Row, ...]
    told: Told | None
    lines: tuple[Line, ...]
    total: int
    partial: str
    on: bool
    still: bool
    points: Mapping[str, bool]
    busy: str
    says: str


class Cockpit(Protocol):
    """A machine at hand, in this process or in another one."""

    def state(self, since: int, /) -> State:
        """Return what is to be shown, with the lines from number `since` on; raises HostError when it is gone."""

    def ask(self, act: Act, word: str = "", /) -> Future[str]:
        """Begin to do something; what comes of it is a sentence. It may raise VmtestsError."""

    def take(self, way: Way, columns: int, lines: int, /) -> Future[Taken]:
        """Take a line; it may raise VmtestsError."""


class Hands(Protocol):
    """Makes machines, and does with them what a `Vm` does not: each target has its own. All may raise VmtestsError."""

    title: str

    def boot(self, watch: Watch, /, *, debug: bool = ...) -> AbstractContextManager[Vm]:
        """Give a machine that is powered on; with `debug` its stage 1 has a shell on the second serial port."""

    def points(self) -> Mapping[str, bool]:
        """Return the stages and snapshots that can be gone back to, and whether a machine is kept there."""

    def go_back(self, point: str, watch: Watch, /) -> AbstractContextManager[Vm]:
        """Give a machine that goes on from where one is kept."""

    def keep_stage(self, vm: Vm, stage: Stage, /) -> bool:
        """Keep a machine that stands where `stage` begins; False where it could not be kept just now."""

    def keep(self, vm: Vm, /) -> str:
        """Keep a machine as it is, and return the point's name."""

    def sysrq(self, vm: Vm, key: str, /) -> None:
        """Have the kernel do what a key of Documentation/admin-guide/sysrq.rst says."""

    def pause(self, vm: Vm, /, *, still: bool) -> None:
        """Stop the guest, or let it go on."""

    def gdb(self, vm: Vm, /) -> str:
        """Open a stub for a debugger and return the line that starts one."""

    def said(self, vm: Vm, way: Way, /) -> bytes:
        """Return the last bytes that came on a line."""

    def debug_line(self, vm: Vm, /) -> Wire:
        """Return the second serial port."""
