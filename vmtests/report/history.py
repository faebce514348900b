"""Many runs below one directory: what each stage took over time, and whether it has become slower."""

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from vmtests.boot.stages import Stage
from vmtests.errors import InputError, Owner
from vmtests.report import noise
from vmtests.report.noise import Slowdown
from vmtests.resources import read_object
from vmtests.sizes import told_seconds
from vmtests.text import clean, printable

WHOLE = "boot"
"""What the time from power-on to ready is called, among the stages."""

_RUNS = 2000
_MOST = 40  # runs before the newest: the exact probability of more takes minutes
_BUDGET = re.compile(r"\s*([a-z-]+)\s*<=?\s*(\d{1,6}(?:\.\d{1,6})?)\s*(ms|s|min)?\s*")
_RULE = re.compile(r"\s*(\d{1,3}(?:\.\d{1,4})?)\s*(?:x\s*(\d{1,4})\s*)?")
_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0}
_NAMES = (*map(str, list(Stage)[:-1]), WHOLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A limit of a stage, or of the whole boot, in seconds."""

    stage: str
    seconds: float

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Read `initrd<12s`, `boot<1.5min`, `kernel<800ms`; raises InputError."""
        match = _BUDGET.fullmatch(text)
        if match is None or match[1] not in _NAMES:
            hint = f"write a stage and its limit, as initrd<12s; stages are {', '.join(_NAMES)}"
            raise InputError(f"--budget {printable(text)!r} is no budget", hint=hint)
        return cls(stage=match[1], seconds=float(match[2]) * _UNITS[match[3] or "s"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """No stage is slower than `factor` times the median of its last `window` runs."""

    factor: float = noise.FACTOR
    window: int = noise.BEFORE

    @classmethod
    def parse(cls, text: str) -> "Rule":
        """Read `1.25x20`, or the factor alone; raises InputError."""
        match = _RULE.fullmatch(text)
        factor, window = (0.0, 0) if match is None else (float(match[1]), int(match[2] or noise.BEFORE))
        if factor <= 1 or not 2 <= window <= _MOST:
            hint = f"1.25x20 is 1.25 times the last 20 runs; the factor is above 1, the runs are 2 to {_MOST}"
            raise InputError(f"--no-slower {printable(text)!r} is no rule", hint=hint)
        return cls(factor=factor, window=window)


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """One run of one image.

    `name` is that of its directory; `ready` and `failed` count boots; `seconds` has the median of each stage that was
    passed.
    """

    name: str
    started: datetime
    ready: int
    failed: int
    seconds: Mapping[str, float]


@dataclass(slots=True, kw_only=True)
class Trend:
    """The runs of one image on one kind of machine, the oldest first."""

    image: str
    machine: str
    runs: list[Past] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Image and machine."""
        return f"{self.image} ({self.machine})" if self.machine else self.image

    def series(self, stage: str) -> list[float]:
        """Return the seconds of a stage, of the runs that passed it."""
        return [run.seconds[stage] for run in self.runs if stage in run.seconds]

    @property
    def stages(self) -> list[str]:
        """The stages that any run passed, in order."""
        return [name for name in _NAMES if any(name in run.seconds for run in self.runs)]


def read(directory: Path) -> list[Trend]:
    """Read all runs below a directory; raises InputError where there is none.

    A directory with timelines is a run, as is one whose machines' directories have some.
    """
    if not directory.is_dir():
        raise InputError(f"{directory} is no directory of runs", hint="--history names one that holds them: results")
    places = sorted(path for path in directory.iterdir() if path.is_dir() and not path.is_symlink())[-_RUNS:]
    if not (trends := _trends(places)):
        hint = "it holds one directory for each run, as results/ does; for one run: vmtests report DIR"
        raise InputError(f"{directory} has no run with a timeline", hint=hint)
    return trends


def read_run(directory: Path) -> list[Trend]:
    """Read one run, each of whose images is a trend of one; raises InputError where it has no timeline."""
    if not (trends := _trends([directory])):
        raise InputError(f"{directory} has no timeline", hint="name a directory that a run left: results/latest")
    return trends


def _trends(places: Sequence[Path]) -> list[Trend]:
    trends: dict[tuple[str, str], Trend] = {}
    seen: set[tuple[str, datetime]] = set()  # what was kept and gone on from is told again by whoever did
    for place in places:
        boots: dict[tuple[str, str], list[_Boot]] = {}
        for path in (
            *place.glob("timeline.json"),
            *place.glob("*/timeline.json"),
            *place.glob("*/*/timeline.json"),
        ):
            boot = _boot(path.with_name(f"timeline{own_boot(path.parent)}.json"))
            if boot is not None and (boot.image, boot.started) not in seen:
                seen.add((boot.image, boot.started))
                boots.setdefault((boot.image, boot.machine), []).append(boot)
        for key, found in boots.items():
            trend = trends.setdefault(key, Trend(image=key[0], machine=key[1]))
            trend.runs.append(_past(place.name, found))
    for trend in trends.values():
        trend.runs.sort(key=lambda run: run.started)
    return sorted(trends.values(), key=lambda trend: (-len(trend.runs), trend.title))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Boot:
    image: str
    machine: str
    started: datetime
    ready: bool
    seconds: Mapping[str, float]


def own_boot(place: Path) -> str:
    """Return what the names of the files of a machine's own boot end with: nothing for the first, `-2` for the second
    where the host spoilt that. Later ones are reboots.
    """
    spoilt = read_object(place / "verdict.json").get("owner") == Owner.HOST
    return "-2" if spoilt and read_object(place / "verdict-2.json") else ""


def _boot(path: Path) -> _Boot | None:
    """Return one boot from power-on; None for what a fork or a killed run left, and what is no timeline."""
    raw, about = read_object(path), read_object(path.with_name("booted.json"))
    try:
        began = raw.get("started")
        started = datetime.fromtimestamp(path.stat().st_mtime, UTC) if began is None else datetime.fromisoformat(began)
        start = {str(Stage(s)): told_seconds(t) for s, t in raw["start"].items()}
        passed = list(start)[:-1]  # the last one was not left
        seconds = {str(Stage(s)): told_seconds(t) for s, t in raw["seconds"].items() if s in passed}
        image, machine = str(about.get("image", "an image")), str(about.get("machine", ""))
    except (ArithmeticError, KeyError, TypeError, ValueError, AttributeError, OSError):
        return None
    if not passed:
        return None
    if started.tzinfo is None:
        started = started.replace(tzinfo=UTC)
    ready = str(Stage.READY) in start
    if ready:
        seconds[WHOLE] = start[Stage.READY]
    return _Boot(image=clean(image), machine=clean(machine), started=started, ready=ready, seconds=seconds)


def _past(name: str, boots: Sequence[_Boot]) -> Past:
    stages = {stage for boot in boots for stage in boot.seconds}
    ready = sum(boot.ready for boot in boots)
    return Past(
        name=clean(name),
        started=min(boot.started for boot in boots),
        ready=ready,
        failed=len(boots) - ready,
        seconds={s: statistics.median(b.seconds[s] for b in boots if s in b.seconds) for s in stages},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A sentence about a stage: `bad` breaks a budget or the rule, of an `unknown` one nobody can tell; else it looks
    slower, and more runs will tell.
    """

    trend: str
    stage: str
    sentence: str
    bad: bool = False
    unknown: bool = False
    runs: int = 1
    """The newest runs that it is about."""

    @property
    def word(self) -> str:
        """What it comes to."""
        return "slower" if self.bad else "cannot tell" if self.unknown else "perhaps slower"


def over_budget(trend: Trend, budgets: Sequence[Budget]) -> list[Finding]:
    """Return which budgets the newest run breaks, or that it never got so far."""
    newest = trend.runs[-1]
    found = []
    for budget in budgets:
        took = newest.seconds.get(budget.stage)
        limit = f"its budget is {budget.seconds:g} s"
        if took is None:
            told = f"cannot tell: {budget.stage} was not passed in {newest.name}; {limit}"
            found.append(Finding(trend=trend.title, stage=budget.stage, sentence=told, unknown=True))
        elif took > budget.seconds:
            told = f"{budget.stage} took {took:.2f} s in {newest.name}, and {limit}"
            found.append(Finding(trend=trend.title, stage=budget.stage, sentence=told, bad=True))
    return found


def slower(trend: Trend, rule: Rule) -> list[Finding]:
    """Return which stages have become slower than the rule allows, and of which nobody can tell.

    The firmware is no part of the image: where it is slower too, the host is.
    """
    found: dict[str, Slowdown | None] = {}
    short = []
    for stage in trend.stages:
        series = trend.series(stage)
        if noise.enough(series):
            found[stage] = noise.slower(series, factor=rule.factor, window=rule.window)
        else:
            short.append(stage)
    host = found.get(Stage.FIRMWARE)
    findings = []
    for stage, slow in found.items():
        if slow is None:
            continue
        told = (
            f"{stage} took {slow.now:.2f} s in the last {_runs(slow.runs)}, {slow.ratio:.2f} x "
            f"(at most {slow.high:.2f} x) the {slow.then:.2f} s of the {slow.before} before"
        )
        chance = f"by chance in {_odds(slow.chance)}"
        by_host = host is not None and host.sure and host.ratio * rule.factor > slow.ratio
        if not slow.sure:
            told = f"cannot tell: {told}; so much comes {chance}: more runs will tell"
        elif by_host:
            told = f"cannot tell: {told}, but so is the firmware, which is no part of the image: this host is slower"
        else:
            told = f"{told}; the rule is {rule.factor:g} x, and so much comes {chance}"
        known = {"bad": slow.sure and not by_host, "unknown": slow.sure and by_host}
        findings.append(Finding(trend=trend.title, stage=stage, sentence=told, runs=slow.runs, **known))
    if short:
        told = f"cannot tell of {', '.join(short)}: {_runs(len(trend.runs))} are too few, 6 are the least"
        findings.append(Finding(trend=trend.title, stage="", sentence=told, unknown=True))
    return findings


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def _odds(chance: float) -> str:
    if chance >= 0.5:
        return "1 of 2 reports"
    return f"1 of {1 / chance:,.0f} reports" if chance > 1e-4 else "less than 1 of 10,000 reports"
