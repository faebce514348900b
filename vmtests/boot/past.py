"""What is kept of a boot that was followed, for whoever goes on from there."""

from dataclasses import dataclass
from datetime import datetime
from typing import Self

from vmtests.boot.console import Line
from vmtests.boot.stages import Stage
from vmtests.boot.timeline import Timeline
from vmtests.boot.units import Unit, Units
from vmtests.boot.verdict import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A boot that was followed, to its verdict or not: what is told of it again when a machine goes on from there."""

    verdict: Verdict | None
    started: datetime | None
    starts: dict[Stage, float]
    ended: float
    units: tuple[Unit, ...]
    told: bool
    lines: tuple[Line, ...]
    logged: bool = False
    """Whether the logs that are there, and go on, are those of this boot."""

    @classmethod
    def of(cls, verdict: Verdict | None, timeline: Timeline, lines: tuple[Line, ...]) -> Self:
        """Return what is to be told of a boot."""
        return cls(
            verdict=verdict,
            started=timeline.started,
            starts=dict(timeline.starts),
            ended=timeline.ended,
            units=tuple(timeline.units.asked()),
            told=timeline.units.told,
            lines=lines,
        )

    def power_on(self, now: float) -> float:
        """Return when the boot began by the guest's own clock, both in seconds of the epoch; `now` is the host's.

        A guest that was kept in the middle of its boot has the time of then. One that was ready is given ours.
        """
        return self.started.timestamp() if self.verdict is None and self.started is not None else now

    def timeline(self, boot: int) -> Timeline:
        """Return its timeline, under the number that it has in the logs now."""
        units = Units.of(self.units, told=self.told)
        return Timeline(boot=boot, started=self.started, starts=dict(self.starts), ended=self.ended, units=units)
