"""The page: one file, drawn by a template; nothing in it is loaded, and nothing that a guest printed is markup.

The template escapes all that it is given, and hands no data to the script but through attributes. The page's
Content-Security-Policy lets run the one script and the one style sheet whose digests it names.
"""

import base64
import hashlib
import json
import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from vmtests.boot.console import Line
from vmtests.boot.stages import Stage
from vmtests.boot.units import Unit
from vmtests.host import outputs
from vmtests.report.against import Comparison, compare, written
from vmtests.report.mountgraph import graph
from vmtests.report.record import Boot, Run, Test, read
from vmtests.report.trace import trace

if TYPE_CHECKING:
    from jinja2 import Template

_ROW = 20  # pixels
_LATE = 60.0  # per cent: a label further right than that stands left of its bar
_LABEL = 60  # characters
_TELEPHONE = 3.4  # pixels of a per cent of the waterfall


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A bar of the waterfall: `x` and `width` in per cent, `y` in pixels; `line` is the console's line to go to."""

    x: float
    width: float
    y: int
    label: str
    kind: str
    stage: str
    line: int
    start: float
    seconds: float | None
    late: bool
    tight: bool
    """Whether its label has no room in it on a telephone."""
    word: str = ""
    """`new` or `slower`, against an earlier run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of the console; `bar` is the number of the waterfall's bar that it belongs to, `evidence` marks it."""

    number: int
    line: Line
    evidence: bool


class Drawn:
    """One boot, ready for the template."""

    def __init__(self, boot: Boot, tests: Sequence[Test] = (), then: Comparison | None = None) -> None:
        self.boot = boot
        self.tests = tests
        self._words = {} if then is None else then.words
        self.graph = graph(boot.mounts)
        marked = {(round(e.t, 2), e.text.strip()) for e in boot.told.evidence}
        self.rows = [
            Row(number=n, line=line, evidence=(round(line.t, 2), line.text.strip()) in marked)
            for n, line in enumerate(boot.lines)
        ]
        self._times = [line.t for line in boot.lines]
        earlier = None if then is None else then.boot
        self.scale = max(
            boot.end,
            0.0 if earlier is None else sum(earlier.seconds.values()),
            *(line.t for line in boot.lines if line.stage != "ready"),
            0.001,
        )
        self.stages = [self._stage(boot, stage, start) for stage, start in boot.starts.items()]
        self.then = [] if earlier is None else [self._stage(earlier, s, t) for s, t in earlier.starts.items()]
        units = sorted((u for u in boot.units if u.first is not None), key=lambda u: (u.first or 0.0, u.name))
        self.units = [self._unit(unit, n * _ROW) for n, unit in enumerate(units)]
        self.events = [
            self._bar(line.t, None, line.text, "event", line.stage, 0)
            for line in boot.lines
            if line.source == "event" and line.t <= self.scale
        ]
        self.evidence = [self._bar(e.t, None, e.text, "evidence", boot.told.stage, 0) for e in boot.told.evidence]
        self.height = max(len(self.units), 1) * _ROW
        self.ticks = [(100.0 * t / self.scale, t) for t in _ticks(self.scale)]

    def _stage(self, boot: Boot, stage: Stage, start: float) -> Bar:
        return self._bar(start, boot.seconds.get(stage, 0.0), stage, "stage", stage, 0)

    def _unit(self, unit: Unit, y: int) -> Bar:
        start = unit.first or 0.0
        kind = "failed" if unit.failed else "unit" if unit.result else "open"
        seconds = unit.seconds
        if unit.ended is None and unit.began is not None:
            seconds = None
        return self._bar(start, seconds, unit.name, kind, unit.stage, y, self._words.get(written(unit), ""))

    def _bar(
        self, start: float, seconds: float | None, label: str, kind: str, stage: str, y: int, word: str = ""
    ) -> Bar:
        x = min(100.0 * start / self.scale, 100.0)
        line = min(bisect_left(self._times, start - 0.0005), max(len(self.rows) - 1, 0))
        return Bar(
            x=x,
            width=min(100.0 * (seconds or 0.0) / self.scale, 100.0 - x),
            y=y,
            label=label if len(label) <= _LABEL else f"{label[:_LABEL]}…",
            kind=kind,
            stage=stage,
            line=line,
            start=start,
            seconds=seconds,
            late=x > _LATE,
            tight=100.0 * (seconds or 0.0) / self.scale * _TELEPHONE < len(label) * 8 + 10,
            word=word,
        )


def _ticks(seconds: float) -> list[float]:
    """Return round times from 0 on, at most seven: those of a telephone do not touch."""
    step = 10.0 ** math.floor(math.log10(seconds / 6))
    step *= next(times for times in (1, 2, 5, 10) if times * step >= seconds / 6)
    return [round(n * step, 6) for n in range(int(seconds / step) + 1)]


def render(run: Run, against: Run | None = None) -> str:
    """Return the page of a run, against an earlier one."""
    comparison: Comparison | None = None if against is None else compare(run, against)
    # The boot that failed first is open, else the first.
    opened = next((n for n, boot in enumerate(run.boots) if boot.told.word != "ready"), 0)
    places = {boot.name: n for n, boot in reversed(list(enumerate(run.boots)))}
    drawn = [
        Drawn(boot, [test for test in run.tests if boot.name in test.machines], comparison if n == 0 else None)
        for n, boot in enumerate(run.boots)
    ]
    return fill(
        "page.html.j2",
        run=run,
        drawn=drawn,
        opened=opened,
        places=places,
        comparison=comparison,
    )


def write(directory: Path, out: Path | None = None, against: Path | None = None) -> Path:
    """Write the page of a directory of results, and `trace.json` of each boot's first; return where the page is.

    Raises InputError where a directory has no boot, or the page cannot be where it is to be, HostError on a full disk.
    """
    run = read(directory)
    page = render(run, None if against is None else read(against))
    path = directory / "report.html" if out is None else out
    outputs.write(path, page, "--out", named=out is not None)
    if path.is_file():  # and not a pipe
        outputs.write(path.with_name("trace.json"), json.dumps(trace(run.boots[0])), "--out", named=False)
    return path


def _text(name: str) -> str:
    return (resources.files("vmtests.report") / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def fill(template: str, /, **values: object) -> str:
    """Return a template filled with values, the style sheet and the script, which its policy names."""
    style, script = _text("page.css"), _text("page.js")
    return _template(template).render(
        **values, style=style, script=script, style_digest=_digest(style), script_digest=_digest(script)
    )


@cache
def _template(name: str) -> "Template":
    # Here, since a run without machines must not wait for it.
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["ours"] = Markup  # of the style sheet and the script, which are the package's own
    return environment.from_string(_text(name))
