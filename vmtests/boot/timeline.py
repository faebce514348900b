"""When each stage of a boot began and how long it lasted."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from vmtests.boot.stages import Stage
from vmtests.boot.units import Units
from vmtests.errors import at_named


@dataclass(slots=True, kw_only=True)
class Timeline:
    """Start of each stage in seconds since power-on; total and ordered: a stage that was not seen gets the
    start of the next one that was.
    """

    boot: int = 1
    started: datetime | None = None
    starts: dict[Stage, float] = field(default_factory=lambda: {Stage.FIRMWARE: 0.0})
    ended: float = 0.0
    units: Units = field(default_factory=Units)

    @property
    def stage(self) -> Stage:
        """The stage the boot is in."""
        return next(reversed(self.starts))

    def enter(self, stage: Stage, t: float) -> None:
        """Begin `stage` at `t` seconds; raises ValueError when the boot is there already or beyond."""
        current = self.stage
        if not current.before(stage):
            raise ValueError(f"stage {stage} cannot follow {current}")
        t = max(t, self.starts[current])
        for skipped in list(Stage)[current.position + 1 : stage.position + 1]:
            self.starts[skipped] = t
        self.ended = max(self.ended, t)

    def end(self, t: float) -> None:
        """Say that the boot was watched until `t` seconds."""
        self.ended = max(self.ended, t)

    @property
    def seconds(self) -> dict[Stage, float]:
        """Seconds spent in each stage that was reached; the last one until the boot was last looked at."""
        begins = list(self.starts.items())
        ends = [start for _, start in begins[1:]] + [self.ended]
        return {stage: round(max(end - start, 0.0), 3) for (stage, start), end in zip(begins, ends, strict=True)}

    def to_json(self) -> dict[str, object]:
        """Return boot number, date of power-on (ISO 8601, UTC), starts and durations in seconds, and the
        units that were started.
        """
        return {
            "boot": self.boot,
            "started": self.started.isoformat() if self.started else None,
            "start": {str(stage): round(start, 3) for stage, start in self.starts.items()},
            "seconds": {str(stage): seconds for stage, seconds in self.seconds.items()},
            "units": [unit.to_json() for unit in self.units.asked()],
        }

    def write(self, path: Path) -> None:
        """Write `to_json()` to `path`; raises InputError when it cannot be there, HostError on a full disk."""
        try:
            path.write_text(json.dumps(self.to_json(), indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise at_named(f"{path} cannot be written", error, "name another directory with --vm-results") from error
