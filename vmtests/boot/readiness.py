"""By which line a boot is known to be ready, and how long it must be quiet behind it."""

import re
from collections.abc import Sequence

from vmtests.boot.console import Line
from vmtests.boot.course import LOGIN_PROMPT
from vmtests.boot.jobs import JOBS_NAMED
from vmtests.boot.stages import NormalLine, Stage
from vmtests.contract import ANY

ANY_RUN = "vmtests-ready-"
"""Stands for the token of any run: a recording that is explained has one that nobody knows any more."""

_GREETING = "hello"
_GETTY_SETTLE = 10  # settle times of silence after a login prompt, since systemd does not print any more
_LEAVING = frozenset({"stopping", "offline"})  # a guest that goes down is not ready
_UNIT = r"[\w:.\\@-]{1,200}\.(?:service|socket|mount|swap|timer|path|target|device|automount|scope)"
# The states of systemctl(1), `is-system-running`; greetings of older recordings do not say where they came from.
_STATES = "initializing|starting|running|degraded|maintenance|stopping|offline|unknown"
_WORDS = f"{_GREETING}(?: from (?P<stage>initrd|userspace))?|{_STATES}"

_UP = "(?:Reached target|Started|Finished|Mounted|Listening on|Found device|Activated swap|Created slice)"
_TARGET = re.compile(r"(?:\[OK\] )?Reached target (?:(?P<unit>[\w:.\\@-]+\.target)(?: ?- .+)?|(?P<described>.+?))\.?$")
_DESCRIBED = {"Multi-User System": "multi-user.target", "Graphical Interface": "graphical.target"}
_FINISHED = "Startup finished in"
_QUOTED = 120  # characters of a line in a sentence


class Readiness:
    """What speaks for a boot that is ready.

    `unit` is what has to be reached, as systemd names it. systemd prints no more status once a getty has the console
    (src/core/manager.c, `n_on_console`), which on a slow machine is before multi-user.target. So a guest that can be
    told to is asked to print `token` and its state when its last job has ended; of others a login prompt and a long
    silence have to do. A guest that greeted with the token is known to do as it was asked. `ready` is the line that a
    caller waits for instead.
    """

    def __init__(
        self, token: str, ready: re.Pattern[str] | None, settle_seconds: float, unit: str = ANY.units.ready
    ) -> None:
        self._unit = unit
        self._unit_up = re.compile(rf"(?:\[OK\] )?{_UP} {re.escape(unit)}(?: ?- .+)?\.?$")
        end = r"[0-9a-f]{16}" if token == ANY_RUN else ""
        said = rf"{re.escape(token)}{end} (?P<word>{_WORDS})\b(?P<units>(?: {_UNIT})*)"
        self._announcement = re.compile(said) if token else None
        self._ready = ready
        self._settle_seconds = settle_seconds
        self._told = ""
        self._getty = False
        self._patience = 1
        self._greeted = False
        self.failed_units: tuple[str, ...] = ()
        """Those that the guest says have failed."""
        self.target: Line | None = None
        """The line that says that the system is up."""

    @property
    def named(self) -> bool:
        """Whether a caller named the line that counts."""
        return self._ready is not None

    @property
    def open(self) -> bool:
        """Whether a target of the manager would tell more than what was heard so far."""
        return self._ready is None and (self.target is None or self._getty)

    @property
    def settles(self) -> bool:
        """Whether silence can make the boot ready."""
        return self.target is not None and not (self._greeted and not self._told)

    @property
    def prompted(self) -> bool:
        """Whether all that was heard is a prompt."""
        return self._getty and not self._told and self._ready is None

    def hear(self, line: Line) -> Stage | None:
        """Take a line; return where a guest is that greets, `READY` for what the caller or the guest was to say."""
        if self._announcement is not None and (match := self._announcement.search(line.text)):
            if match["word"].startswith(_GREETING):
                self._greeted = True
                return Stage(match["stage"] or Stage.INITRD)
            if match["word"] not in _LEAVING:
                self.target, self._told, self.failed_units = line, match["word"], tuple(match["units"].split())
            return Stage.READY
        if self._ready is not None and self._ready.search(line.text):
            self.up(line, getty=True)
            return Stage.READY
        return None

    def reached(self, text: str, *, any_unit: bool, rescuing: bool) -> bool:
        """Whether a line says that the unit is reached; `any_unit` that it is one of those that end a usual boot.

        With `rescuing` the system is in emergency or rescue mode, at whose end systemd says too that it has started.
        """
        if self._unit_up.match(text):
            return True
        target = _target(text)
        if not target:
            return any_unit and not rescuing
        return any_unit and (self._unit == ANY.units.ready or target == self._unit)

    def asks(self, normal: NormalLine, *, shell: bool) -> bool:
        """Whether a line asks for a login, or is the prompt of a `shell`, and nothing more is known."""
        return self._ready is None and self.target is None and (shell or bool(LOGIN_PROMPT.match(normal.text)))

    def up(self, line: Line, *, getty: bool, last: bool = False) -> None:
        """Take a line that says that the system is up; behind the prompt of a `getty` it must stay quiet.

        For long, unless the getty is the `last` that is started.
        """
        self.target, self._getty = line, getty
        self._patience = _GETTY_SETTLE if getty and not last else 1

    def retract(self) -> None:
        """Take back the last line that said that the system is up: it was none."""
        self.target, self._getty, self._patience = None, False, 1

    def settle_end(self, last_output: float) -> float:
        """Return when the silence since `last_output` is long enough, in seconds since power-on."""
        return last_output + self._settle_seconds * self._patience

    def settled(self, t: float, last_output: float, running: Sequence[str]) -> tuple[str, float] | None:
        """Return a sentence and since when the boot is ready at `t`, jobs `running`; None when it is not."""
        if self.target is None:
            return None
        end = self.settle_end(last_output)
        if self._told:
            sentence = f"{self._unit} was reached and no start job is left; systemd is {self._told}"
            sentence += f": {', '.join(self.failed_units[:JOBS_NAMED])} failed" if self.failed_units else ""
            return sentence, self.target.t
        if self._greeted or ((running or self._getty) and t < end):
            return None  # what looks like the end of the boot may be any program's words
        if self._getty:
            said = (
                "a line that was waited for came"
                if self._ready
                else "the guest is up: it asks for a login, or has a shell"
            )
            return f"{said}, and has nothing more to say", end
        said = self.target.text.strip()[:_QUOTED]
        if self._unit_up.match(said):
            said = f"{self._unit} was reached"
        elif target := _target(said):
            said = f"{target} was reached"
        else:
            said = "systemd has finished starting up" if _FINISHED in said else f'the system said "{said}"'
        if running:
            return f"{said}; the end of {len(running)} start jobs was not seen", end
        return f"{said} and no start job is left", last_output

    def silence(self) -> float:
        """Return for how many seconds a recording that ends is taken to stay quiet."""
        return self._settle_seconds * _GETTY_SETTLE


def _target(text: str) -> str:
    """Return the target that a line says is reached; empty where it says none."""
    match = _TARGET.match(text)
    return "" if match is None else match["unit"] or _DESCRIBED.get(match["described"], "")
