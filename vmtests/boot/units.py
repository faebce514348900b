"""A boot unit by unit: when each was asked for, what it waited for, when it ran, and what came of it.

Read from the console. With `rd.systemd.log_level=debug rd.systemd.log_target=console` systemd tells every job and
every change of state; without, its status lines tell of the units that have any. Times are those of the lines.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from vmtests.boot.stages import Stage
from vmtests.text import clean

UNITS_LIMIT = 1000
"""Units that are followed; a guest that names more is not followed further."""

_NAME = r"(?P<unit>[\w:\-.\\@]{1,255}\.(?:service|mount|target|device|socket|swap|path|timer|automount|slice|scope))"
# systemd src/core/{transaction,job,unit}.c, at the level debug; 257 and before.
_DEBUG = re.compile(
    _NAME + r": (?:"
    r"(?P<queued>Installed new job \S{1,300}/start as \d+)"
    r"|starting held back, waiting for: (?P<waits>\S{1,300})"
    r"|Changed \S{1,40} -> (?P<state>[\w\-]{1,40})"
    r"|Job \d+ \S{1,300}/(?P<job>[\w\-]{1,40}) finished, result=(?P<result>[\w\-]{1,40})"
    r"|Failed with result '(?P<why>[\w\-]{1,60})'\."
    r")"
)
_OPENS = re.compile(r"(?:Starting|Mounting|Activating swap) (?P<unit>.+?)(?:\.\.\.|…)$")
_CLOSES = re.compile(
    r"\[(?P<status>OK|FAILED|TIME|DEPEND|ASSERT|SKIP)\] "
    r"(?:Started|Finished|Mounted|Activated swap|Found device|Skipped"
    r"|Failed to (?:start|mount|activate swap)|Timed out (?:starting|mounting|waiting for device)"
    r"|(?:Dependency|Assertion) failed for) (?P<unit>.+?)\.?$"
)
_CUT = re.compile(_NAME + "…")
_RESULTS = {"OK": "done", "FAILED": "failed", "TIME": "timeout", "DEPEND": "dependency", "SKIP": "skipped"}
_AT_WORK = frozenset({"start", "start-pre", "start-post", "mounting", "activating", "condition"})
_START_JOBS = frozenset({"start", "verify-active", "restart"})


@dataclass(slots=True, kw_only=True)
class Unit:
    """A unit: seconds since power-on when its start was asked for, when it began and when it ended; None where
    the console did not tell. `waits_for` is what held it back last, `result` systemd's word for the job's end.
    """

    name: str
    stage: Stage
    queued: float | None = None
    waits_for: str = ""
    began: float | None = None
    ended: float | None = None
    result: str = ""

    @property
    def seconds(self) -> float | None:
        """Seconds from its beginning to its end."""
        return None if self.began is None or self.ended is None else max(self.ended - self.began, 0.0)

    @property
    def first(self) -> float | None:
        """When it was first heard of at work."""
        return next((t for t in (self.began, self.ended, self.queued) if t is not None), None)

    @property
    def waited(self) -> float | None:
        """Seconds from being asked for to its beginning."""
        return None if self.queued is None or self.began is None else max(self.began - self.queued, 0.0)

    @property
    def failed(self) -> bool:
        """Whether its start failed."""
        return self.result not in {"", "done", "skipped"}

    def to_json(self) -> dict[str, object]:
        """Return the fields by name, times rounded to milliseconds."""

        def rounded(t: float | None) -> float | None:
            return None if t is None else round(t, 3)

        return {
            "unit": self.name,
            "stage": str(self.stage),
            "queued": rounded(self.queued),
            "waits_for": self.waits_for or None,
            "began": rounded(self.began),
            "ended": rounded(self.ended),
            "seconds": rounded(self.seconds),
            "result": self.result or None,
        }


class Units:
    """Follows units, line by line."""

    def __init__(self) -> None:
        self._units: dict[tuple[bool, str], Unit] = {}
        self.told = False
        """Whether systemd told its jobs, and not only its status lines."""

    @classmethod
    def of(cls, units: Iterable[Unit], *, told: bool) -> Self:
        """Return followed units again, as `asked` gave them."""
        known = cls()
        known.told = told
        known._units = {(unit.stage.before(Stage.USERSPACE), unit.name): unit for unit in units}
        return known

    def line(self, text: str, t: float, stage: Stage) -> None:
        """Take a normalised line that came in `stage`."""
        if match := _DEBUG.match(text):
            self.told = True
            self._tell(match, t, stage)
        elif self.told:
            return  # it tells the same twice
        elif match := _OPENS.match(text):
            if (unit := self._unit(_named(match["unit"]), stage)) is not None and unit.began is None:
                unit.began = t
        elif (match := _CLOSES.match(text)) and (unit := self._unit(_named(match["unit"]), stage)) is not None:
            unit.ended, unit.result = t, _RESULTS.get(match["status"], "failed")

    def _tell(self, match: re.Match[str], t: float, stage: Stage) -> None:
        # A unit that never had a job, as most devices and slices, is none that the boot waited for.
        unit = self._unit(match["unit"], stage)
        if unit is None:
            return
        if match["queued"]:
            unit.queued = t if unit.queued is None else unit.queued
        elif match["waits"]:
            unit.waits_for = clean(match["waits"])
        elif match["state"] in _AT_WORK:
            unit.began = t if unit.began is None else unit.began
        elif match["job"] in _START_JOBS and not unit.result:
            unit.ended, unit.result = t, match["result"]
        elif match["why"] or match["state"] == "failed":
            unit.ended = t if unit.ended is None else unit.ended
            unit.result = match["why"] or unit.result or "failed"

    def _unit(self, name: str, stage: Stage) -> Unit | None:
        # The initrd's manager and the system's have units of the same name.
        key = (stage.before(Stage.USERSPACE), name)
        if key not in self._units:
            if len(self._units) >= UNITS_LIMIT:
                return None
            self._units[key] = Unit(name=clean(name), stage=stage)
        return self._units[key]

    def asked(self) -> list[Unit]:
        """Return the units whose start was asked for, or seen, in the order in which they began."""
        known = [
            unit for unit in self._units.values() if unit.queued is not None or unit.began is not None or unit.result
        ]
        return sorted(known, key=lambda unit: (unit.began is None and unit.ended is None, unit.first or 0.0))


def _named(shown: str) -> str:
    """Return the unit's name of `systemd.status_unit_format=combined`, else what is shown."""
    name, dash, _ = shown.partition(" - ")
    if dash and "." in name:
        return name
    # A narrow console cuts out of the middle: often behind the name.
    cut = _CUT.match(shown)
    return cut["unit"] if cut else shown
