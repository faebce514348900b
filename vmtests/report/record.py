"""What directories of results tell, read back: a boot's lines, times and verdict, a run's machines and tests."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Self
from xml.etree import ElementTree

import msgspec

from vmtests.boot import journal
from vmtests.boot.console import LOG_LIMIT, Line
from vmtests.boot.replay import explain
from vmtests.boot.skim import CHUNK
from vmtests.boot.stages import Stage
from vmtests.boot.units import Unit
from vmtests.errors import GuestError, InputError
from vmtests.guest.facts import Mount, parse_mountinfo
from vmtests.resources import NAMED_LIMIT, PARSED_LIMIT, read_object
from vmtests.sizes import told_seconds
from vmtests.text import clean

LINES = 6000
"""Lines of a console that are shown: its first third and its end; a browser of a telephone bears that."""

MACHINE = "vmtests.machine"
"""The property of a test case in junit.xml that names a machine which the test had."""

_MACHINES = 40  # of a run
_TESTS = 100_000


class NoBootError(InputError):
    """A directory that no boot has left anything in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A line that led to a verdict: seconds since power-on, where it was seen, and its text."""

    t: float
    source: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A verdict as `verdict.json` has it; `word` is `ready`, `failed` or `unknown`."""

    word: str
    stage: str
    sentence: str
    hint: str = ""
    cause: str | None = None
    owner: str | None = None
    evidence: tuple[Evidence, ...] = ()

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Self:
        """Read the object; raises KeyError, TypeError and ValueError for what is none."""
        return cls(
            word=str(raw["verdict"]),
            stage=str(raw["stage"]),
            sentence=str(raw["sentence"]),
            hint=str(raw.get("hint") or ""),
            cause=raw.get("cause"),
            owner=raw.get("owner"),
            evidence=tuple(
                Evidence(t=told_seconds(e["t"]), source=str(e["source"]), text=str(e["text"])) for e in raw["evidence"]
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A partition as `inspection.json` has it."""

    number: int | None = None
    label: str = ""
    filesystem: str | None = None
    size: Annotated[int, msgspec.Meta(le=(1 << 63) - 1)] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """What is told of `inspection.json`."""

    ok: bool = False
    breaches: tuple[str, ...] = ()
    partitions: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """One boot of a machine: `starts` and `seconds` by stage, in seconds since power-on; `cut` lines are not shown.

    `inspection` is what `inspection.json` says, None without one; `mounts` are the guest's, if anybody asked.
    """

    name: str
    number: int
    told: Told
    starts: Mapping[Stage, float]
    seconds: Mapping[Stage, float]
    units: tuple[Unit, ...]
    lines: tuple[Line, ...]
    cut: int
    inspection: Inspected | None
    mounts: tuple[Mount, ...]
    started: datetime | None = None
    heard: bool = False
    """Whether the guest's journal tells of its units, and not the console alone."""

    @property
    def title(self) -> str:
        """What a page calls it."""
        again = f", boot {self.number}" if self.number > 1 else ""
        return f"{self.name or 'the machine'}{again}"

    @property
    def end(self) -> float:
        """Seconds from power-on until the boot was decided."""
        return max((sum(self.seconds.values()), *(u.ended or 0.0 for u in self.units), 0.001))


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """A test as junit.xml has it.

    `outcome` is `passed`, `failed`, `error` or `skipped`. `machines` are the directories of the machines that it had;
    "" is the one that a run shares.
    """

    __test__ = False

    name: str
    outcome: str
    seconds: float
    message: str = ""
    machines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """All boots below a directory, the run's own first, and its tests."""

    directory: Path
    boots: tuple[Boot, ...]
    tests: tuple[Test, ...]
    left_out: int = 0

    @property
    def bad(self) -> tuple[Test, ...]:
        """The tests that failed."""
        return tuple(test for test in self.tests if test.outcome in {"failed", "error"})

    @property
    def word(self) -> str:
        """`failed` where a boot or a test has, else `unknown` where one is, else `ready`."""
        words = {boot.told.word for boot in self.boots}
        if self.bad or "failed" in words:
            return "failed"
        return "unknown" if "unknown" in words else "ready"

    @property
    def sentence(self) -> str:
        """The run in one sentence."""
        failed = [boot for boot in self.boots if boot.told.word != "ready"]
        if failed:
            told = failed[0].told
            more = f" (and {len(failed) - 1} more boots)" if len(failed) > 1 else ""
            where = f" in {told.stage}" if told.word == "failed" else ""
            return f"{told.word}{where}: {told.sentence}{more}"
        if self.bad:
            return f"booted, and {len(self.bad)} of {len(self.tests)} tests failed: {self.bad[0].name}"
        boot = self.boots[0]
        also = f", and {len(self.tests)} tests ran" if self.tests else ""
        return f"ready after {sum(boot.seconds.values()):.1f} s{also}"


def read(directory: Path) -> Run:
    """Read a run's directory, or one machine's; raises NoBootError where there is no boot in it, InputError."""
    if not directory.is_dir():
        raise NoBootError(f"{directory} is no directory of results", hint="name one that a run left: results/latest")
    places = [directory, *sorted(path.parent for path in directory.glob("*/console.jsonl"))]
    places += sorted(path.parent for path in directory.glob("*/*/console.jsonl"))
    boots: list[Boot] = []
    for place in places[:_MACHINES]:
        if (place / "console.jsonl").is_file():
            name = "" if place == directory else place.relative_to(directory).as_posix()
            boots += _boots(place, clean(name))
    if not boots:
        raise NoBootError(f"{directory} has no console.jsonl", hint="name a directory that a run left: results/latest")
    tests = [test for path in sorted(directory.glob("junit*.xml")) if path.is_file() for test in _tests(path)]
    left_out = max(len(places) - _MACHINES, 0)
    return Run(directory=directory, boots=tuple(boots), tests=tuple(tests), left_out=left_out)


def _boots(place: Path, name: str) -> Iterator[Boot]:
    timelines = sorted(place.glob("timeline*.json"), key=lambda path: (len(path.name), path.name))
    known = [raw for path in timelines if (raw := read_object(path))] or [{}]
    inspection = _inspected(place)
    journals = journal.read_all(place)
    for raw in known:
        try:
            number = int(raw.get("boot", 1))
            began = raw.get("started")
            started = None if began is None else datetime.fromisoformat(began)
            lines, cut = _lines(place / "console.jsonl", number)
            starts = {Stage(s): told_seconds(t) for s, t in (raw.get("start") or {"firmware": 0.0}).items()}
            seconds = {Stage(s): told_seconds(t) for s, t in raw.get("seconds", {}).items()}
            units = tuple(_unit(u) for u in raw.get("units", ()))
        except (ArithmeticError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"{place} has a timeline that vmtests did not write: {error}") from error
        if not lines and number > 1:
            continue
        heard = journal.of_boot(journals, number, started)
        if (zero := journal.offset(heard, lines, started)) is not None:
            units = journal.merge(units, journal.units(heard, zero, starts), heard)
            lines = _sorted([*lines, *journal.lines(heard, zero, starts, lines)])
        yield Boot(
            name=name,
            number=number,
            told=_told(place, number, starts),
            starts=starts,
            seconds=seconds,
            units=units,
            lines=lines,
            cut=cut,
            inspection=inspection,
            mounts=_mounts(place),
            started=started,
            heard=bool(heard),
        )


def _inspected(place: Path) -> Inspected | None:
    raw = read_object(place / "inspection.json")
    try:
        return msgspec.convert(raw, Inspected) if raw else None
    except ValueError as error:  # also for half a surrogate
        raise InputError(f"{place} has an inspection that vmtests did not write: {error}") from error


def _sorted(lines: Sequence[Line]) -> tuple[Line, ...]:
    return tuple(sorted(lines, key=attrgetter("t")))


def _told(place: Path, number: int, starts: Mapping[Stage, float]) -> Told:
    raw = read_object(place / ("verdict.json" if number == 1 else f"verdict-{number}.json"))
    if raw:
        try:
            return Told.of(raw)
        except (ArithmeticError, AttributeError, ValueError, TypeError, KeyError) as error:
            raise InputError(f"{place} has a verdict that vmtests did not write: {error}") from error
    if Stage.READY in starts:
        return Told(word="ready", stage="ready", sentence="the guest is ready")
    # A run that was killed, or one of an older vmtests: judged again by what is left.
    log = place / "console.log"
    with contextlib.suppress(OSError):
        if log.is_file():
            with log.open("rb") as file:
                return Told.of(explain(iter(lambda: file.read(_room(file)), b"")).verdict.to_json())
    last = list(starts)[-1]
    return Told(word="unknown", stage=last, sentence=f"no verdict was kept; the boot was in {last}")


def _room(file: BinaryIO) -> int:
    """Return how much more is read of a log, at a time: of one that somebody else left there may be no end."""
    return min(CHUNK, max(LOG_LIMIT - file.tell(), 0))


def _unit(raw: Mapping[str, Any]) -> Unit:
    return Unit(
        name=str(raw["unit"]),
        stage=Stage(raw["stage"]),
        queued=_time(raw, "queued"),
        waits_for=str(raw.get("waits_for") or ""),
        began=_time(raw, "began"),
        ended=_time(raw, "ended"),
        result=str(raw.get("result") or ""),
    )


def _time(raw: Mapping[str, Any], name: str) -> float | None:
    return None if (t := raw.get(name)) is None else told_seconds(t)


def _lines(path: Path, boot: int) -> tuple[tuple[Line, ...], int]:
    """Return the lines of one boot, and how many are left out in the middle."""
    head: list[Line] = []
    tail: list[Line] = []
    total = 0
    with path.open("rb") as file:
        while data := file.readline(_room(file)):
            try:
                raw = json.loads(data)
                if raw["boot"] != boot:
                    continue
                line = Line(
                    t=told_seconds(raw["t"]),
                    text=str(raw["text"]),
                    stage=Stage(raw["stage"]),
                    source=str(raw["source"]),
                )
            except (ArithmeticError, RecursionError, ValueError, KeyError, TypeError):
                continue  # the last line of a log whose writer was killed
            total += 1
            if len(head) < LINES // 3:
                head.append(line)
                continue
            tail.append(line)
            if len(tail) > 2 * LINES:
                del tail[: len(tail) - 2 * LINES // 3]
    shown = [*head, *tail[-2 * LINES // 3 :]]
    return tuple(shown), total - len(shown)


def _mounts(place: Path) -> tuple[Mount, ...]:
    with contextlib.suppress(OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        if (path := place / "mounts.json").is_file():
            return tuple(msgspec.json.decode(_whole(path), type=list[Mount]))
    for told in ("mountinfo.txt", "diagnosis/mountinfo.txt"):
        with contextlib.suppress(OSError, GuestError):
            if (path := place / told).is_file():
                return tuple(parse_mountinfo(_whole(path).decode("utf-8", "replace")))
    return ()


def _whole(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(PARSED_LIMIT)


class _Cases:
    """What is wanted of a junit.xml, as it is parsed: a tree of it would be some thirty times as large."""

    def __init__(self) -> None:
        self.tests: list[Test] = []
        self._case: dict[str, str] | None = None
        self._outcome, self._message = "passed", ""
        self._machines: set[str] = set()

    def doctype(self, *_: object) -> None:
        """Refuse what pytest does not write: entities could grow without end."""
        raise ValueError("it has a DOCTYPE")

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Take what an element says."""
        if tag == "testcase":
            self._case, self._outcome, self._message, self._machines = attributes, "passed", "", set()
        elif tag in {"failure", "error", "skipped"}:
            self._outcome = "failed" if tag == "failure" else tag
            self._message = attributes.get("message", "")[:2000]
        elif tag == "property" and attributes.get("name") == MACHINE and len(self._machines) < _MACHINES:
            self._machines.add(clean(attributes.get("value", "")))

    def end(self, tag: str) -> None:
        """Take a test that is told to its end."""
        if tag != "testcase" or (case := self._case) is None:
            return
        if len(self.tests) >= _TESTS:
            raise ValueError(f"it has more than {_TESTS} tests")
        where = case.get("classname", "").rpartition(".")[2]
        self.tests.append(
            Test(
                name=f"{where}::{case.get('name', '')}",
                outcome=self._outcome,
                seconds=told_seconds(case.get("time") or 0.0),
                message=self._message,
                machines=tuple(sorted(self._machines)),
            )
        )
        self._case = None

    def close(self) -> None:
        """Nothing is open."""


def _tests(path: Path) -> list[Test]:
    # pytest writes UTF-8, whatever it may say of itself.
    cases = _Cases()
    parser = ElementTree.XMLParser(target=cases, encoding="utf-8")  # noqa: S314 - no DOCTYPE, no entities
    if path.stat().st_size > NAMED_LIMIT:
        raise InputError(f"{path} is no junit.xml of pytest: it is too long")
    try:
        with path.open("rb") as file, contextlib.suppress(ElementTree.ParseError):  # of a run that was killed
            while data := file.read(CHUNK):
                parser.feed(data)
    except ValueError as error:
        raise InputError(f"{path} is no junit.xml of pytest: {error}") from error
    return cases.tests
