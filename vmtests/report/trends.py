"""The page of many runs: what each stage took over time, drawn, with what is too slow."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vmtests.boot.stages import Stage
from vmtests.host import outputs
from vmtests.report import page
from vmtests.report.history import WHOLE, Finding, Trend

_WIDTH, _HEIGHT, _TOP, _LEFT = 460, 110, 10, 62
_MEDIAN_OF = 20  # runs that the line is the median of


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """A run: its place in pixels, and what is said of it."""

    x: float
    y: float
    name: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A stage over time: dots, the line of the medians of the runs up to there, and the numbers of the table.

    `newest` is the median of the newest runs that a finding is about, else of the newest one, `median` that before.

    `spread` is the median distance from the median of the runs before the newest, in seconds.
    """

    stage: str
    dots: tuple[Dot, ...]
    line: str
    top: float
    newest: float
    median: float
    spread: float
    findings: tuple[Finding, ...]
    width: int = _WIDTH
    height: int = _HEIGHT


def chart(trend: Trend, stage: str, findings: Sequence[Finding]) -> Chart:
    """Return a stage's drawing."""
    runs = [(n, run) for n, run in enumerate(trend.runs) if stage in run.seconds]
    series = [run.seconds[stage] for _, run in runs]
    top = max(*series, 0.001) * 1.1
    wide = max(len(trend.runs) - 1, 1)

    def place(n: int, seconds: float) -> tuple[float, float]:
        x = _LEFT + n / wide * (_WIDTH - _LEFT - 10)
        return round(x, 1), round(_TOP + (1 - seconds / top) * (_HEIGHT - 2 * _TOP), 1)

    points = [
        place(n, statistics.median(series[max(0, at - _MEDIAN_OF + 1) : at + 1])) for at, (n, _) in enumerate(runs)
    ]
    told = tuple(f for f in findings if f.trend == trend.title and f.stage == stage)
    newest = max((finding.runs for finding in told), default=1)
    before = series[-_MEDIAN_OF - newest : -newest] or series
    middle = statistics.median(before)
    dots = []
    for n, run in runs:
        x, y = place(n, run.seconds[stage])
        dots.append(Dot(x=x, y=y, name=run.name, seconds=run.seconds[stage]))
    return Chart(
        stage=stage,
        dots=tuple(dots),
        line=" ".join(f"{x},{y}" for x, y in points),
        top=top,
        newest=statistics.median(series[-newest:]),
        median=middle,
        spread=statistics.median(abs(value - middle) for value in before),
        findings=told,
    )


def render(directory: Path, trends: Sequence[Trend], findings: Sequence[Finding]) -> str:
    """Return the page."""
    bad = [finding for finding in findings if finding.bad]
    told = bad or list(findings)
    word = "failed" if bad else "unknown" if findings else "ready"
    sentence = told[0].sentence if told else "no stage is slower than its last runs or over its budget"
    if len(bad) > 1:
        sentence = f"{sentence} (and {len(bad) - 1} more)"
    return page.fill(
        "trends.html.j2",
        name=directory.resolve().name,
        word=word,
        sentence=sentence,
        findings=findings,
        trends=[(trend, [chart(trend, stage, findings) for stage in _shown(trend)]) for trend in trends],
    )


def _shown(trend: Trend) -> list[str]:
    return sorted(trend.stages, key=lambda stage: -1 if stage == WHOLE else Stage(stage).position)


def write(out: Path | None, directory: Path, trends: Sequence[Trend], findings: Sequence[Finding]) -> Path:
    """Write the page to `out`, else into the directory; return where it is. Raises HostError."""
    path = out or directory / "trends.html"
    outputs.write(path, render(directory, trends, findings), "--out", named=out is not None)
    return path
