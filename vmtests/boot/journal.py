"""The guest's journal, of stage 1 and after, on the clock of its console.

Read in journalctl's export format (systemd docs/JOURNAL_EXPORT_FORMATS.md); the fields of jobs are those of
job_emit_start_message() and job_emit_done_message() in systemd's src/core/job.c.
"""

import re
import statistics
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from pathlib import Path

from vmtests.boot.causality import in_order
from vmtests.boot.console import Line
from vmtests.boot.stages import Stage
from vmtests.boot.timeline import Timeline
from vmtests.boot.units import UNITS_LIMIT, Unit
from vmtests.boot.verdict import Evidence, Verdict
from vmtests.text import clean

FILES = ("journal.export", "diagnosis/journal.export", "diagnosis/journal-on-disk.export")
"""Where a journal may be in a directory of results, the best first."""

FILE_LIMIT = 64 << 20
"""Bytes of an export among results that are read."""

_NAME = 65  # bytes of a field's name, and its sign (systemd's journal_field_valid)
_VALUE = 4096  # bytes of a field that are kept
_FIELDS = {
    name.encode(): name
    for name in (
        "__MONOTONIC_TIMESTAMP", "__REALTIME_TIMESTAMP", "_SOURCE_MONOTONIC_TIMESTAMP", "_TRANSPORT", "PRIORITY",
        "_BOOT_ID", "MESSAGE", "SYSLOG_IDENTIFIER", "_COMM", "_RUNTIME_SCOPE", "_SYSTEMD_UNIT", "UNIT", "JOB_TYPE",
        "JOB_RESULT",
    )
}  # fmt: skip

_ENTRIES = 50_000
_SHOWN = 600  # entries among the console's lines
_ENOUGH = 5  # lines, of which one may be at fault
_WARNING, _NOTICE = 4, 5  # syslog(3)
_NO_REASON = "dmesg(1) may have more information"  # mount(8), behind its reason
_FAILED = frozenset({"failed", "timeout"})
_UNITS, _WORDS = 4, 3  # that are told of a boot that failed, and of each of them
_START = frozenset({"start", "restart", "verify-active", "reload-or-start"})
# What stands before a unit's description, as UNIT_STATUS_FORMATS of systemd's unit types have it.
_TOLD = re.compile(
    r"(?:Starting|Mounting|Activating swap|Started|Finished|Mounted|Activated swap|Found device|Reached target|Stopped"
    r"|Failed to (?:start|mount|activate swap)|Timed out (?:starting|mounting|waiting for device)"
    r"|(?:Dependency|Assertion) failed for) (?P<shown>.+?)(?:\.\.\.|…|\.)?$"
)
_KERNEL_TIME = re.compile(r"\[ {0,8}(\d{1,7}\.\d{6})\] ")
_BARE = re.compile(r"^(?:\[[A-Z ]{2,8}\] |\[ {0,8}\d+\.\d+\] |\S{1,40}\[\d+\]: )+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An entry: `monotonic` and `real` are seconds of the guest's two clocks, `initrd` that stage 1 wrote it."""

    monotonic: float
    real: float
    boot: str
    text: str
    priority: int
    by: str
    initrd: bool
    own: str = ""
    """The unit whose process wrote it."""
    unit: str = ""
    """The unit of which the manager tells."""
    job: str = ""
    result: str = ""

    @property
    def line(self) -> str:
        """What it says, and who."""
        told = not self.by or self.text.startswith(f"{self.by}: ")
        return self.text if told else f"{self.by}: {self.text}"


def read(path: Path) -> list[Entry]:
    """Read an export; nothing where there is none. What is no entry is left out, a cut end too."""
    try:
        if not path.is_file():  # nobody would write into a pipe
            return []
        with path.open("rb") as file:
            return parse(file.read(FILE_LIMIT))
    except OSError:
        return []


def parse(data: bytes) -> list[Entry]:
    """Return the entries of an export."""
    return list(islice(_entries((data,)), _ENTRIES))


def _entries(pieces: Iterable[bytes]) -> Iterator[Entry]:
    return (entry for fields in _blocks(_Pieces(pieces)) if (entry := _entry(fields)) is not None)


class _Pieces:
    """An export that comes piece by piece, and may have no end: of a field no more is kept than is wanted."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._data = b""
        self._at = 0

    def _more(self) -> bool:
        self._data, self._at = next((piece for piece in self._pieces if piece), b""), 0
        return bool(self._data)

    def line(self) -> bytes | None:
        """Return the begin of the next line, without its end; None where there is none."""
        found = b""
        while self._at < len(self._data) or self._more():
            end = self._data.find(b"\n", self._at)
            stop = len(self._data) if end < 0 else end
            found += self._data[self._at : min(stop, self._at + _VALUE + _NAME - len(found))]
            self._at = stop + 1
            if end >= 0:
                return found
        return found or None

    def take(self, size: int) -> bytes | None:
        """Pass over so many bytes, and return the first of them; None where there are fewer."""
        found = b""
        while size > 0 and (self._at < len(self._data) or self._more()):
            step = min(size, len(self._data) - self._at)
            found += self._data[self._at : self._at + min(step, _VALUE - len(found))]
            self._at += step
            size -= step
        return None if size else found


def _blocks(export: _Pieces) -> Iterator[Mapping[str, str]]:
    fields: dict[str, str] = {}
    while (line := export.line()) is not None:
        if not line:
            if fields:
                yield fields
            fields = {}
            continue
        name, equals, value = line.partition(b"=")
        if not equals:  # a size of eight bytes, then so many bytes that may be anything, and the end of the line
            if (size := export.take(8)) is None or (text := export.take(int.from_bytes(size, "little"))) is None:
                return
            value = text
            export.take(1)
        if (known := _FIELDS.get(name)) is not None:  # of others an entry may have millions
            fields.setdefault(known, value[:_VALUE].decode("utf-8", "replace"))
    if fields:
        yield fields


def _entry(fields: Mapping[str, str]) -> Entry | None:
    try:
        own = fields.get("_SOURCE_MONOTONIC_TIMESTAMP") if fields.get("_TRANSPORT") == "kernel" else None
        monotonic = int(own or fields["__MONOTONIC_TIMESTAMP"])
        real = int(fields["__REALTIME_TIMESTAMP"])
        priority = int(fields.get("PRIORITY", "6"))
    except (KeyError, ValueError):
        return None
    # Any digits may stand there, and no float is so large.
    if not 0 <= monotonic < 1 << 50 or not 0 <= real < 1 << 63:
        return None
    return Entry(
        monotonic=monotonic / 1e6,
        real=real / 1e6,
        boot=clean(fields.get("_BOOT_ID", "")),
        text=clean(fields.get("MESSAGE", "")),
        priority=priority,
        by=clean(fields.get("SYSLOG_IDENTIFIER") or fields.get("_COMM", "")),
        initrd=fields.get("_RUNTIME_SCOPE") == "initrd",
        own=clean(fields.get("_SYSTEMD_UNIT", "")),
        unit=clean(fields.get("UNIT", "")),
        job=clean(fields.get("JOB_TYPE", "")),
        result=clean(fields.get("JOB_RESULT", "")),
    )


def as_console(pieces: Iterable[bytes]) -> bytes:
    """Return the last boot of an export, of any length, as `journalctl -o short-monotonic` prints it."""
    last: list[Entry] = []
    for entry in _entries(pieces):
        if last and entry.boot != last[0].boot:
            last = []
        if len(last) < _ENTRIES:
            last.append(entry)
    said = (f"{entry.by}{'[1]' if entry.by == 'systemd' else ''}: {entry.text}" for entry in last)
    return "".join(f"[{e.monotonic:12.6f}] localhost {text}\n" for e, text in zip(last, said, strict=True)).encode()


def read_all(results: Path) -> list[list[Entry]]:
    """Read the journals in a directory of results, the best first."""
    return [found for file in FILES if (found := read(results / file))]


def of_boot(journals: Sequence[Sequence[Entry]], number: int, started: datetime | None) -> list[Entry]:
    """Return the entries of one boot of a machine that was switched on at `started`, its `number`-th, by the first
    journal that has any.
    """
    return next((found for entries in journals if (found := _of_boot(entries, number, started))), [])


def _of_boot(entries: Sequence[Entry], number: int, started: datetime | None) -> list[Entry]:
    boots: dict[str, list[Entry]] = {}
    for entry in entries:
        boots.setdefault(entry.boot, []).append(entry)
    if started is None:
        return list(boots.values())[number - 1] if 0 < number <= len(boots) else []
    # The guest's clock has whole seconds when it is read first.
    later = [known for known in boots.values() if known[-1].real > started.timestamp() - 2]
    return later[0] if later else []


def offset(entries: Sequence[Entry], lines: Sequence[Line], started: datetime | None) -> float | None:
    """Return the seconds from power-on to the zero of the guest's clock; None where nothing tells.

    Lines that console and journal have equally often tell it, half of them early, since a journal that has just begun
    takes what waited; else lines with the kernel's time, which are late or right, never early; else the date of
    power-on, to a second.
    """
    of_journal: dict[str, list[float]] = {}
    for entry in entries:
        of_journal.setdefault(entry.text, []).append(entry.monotonic)
    of_console: dict[str, list[float]] = {}
    late = []
    for line in lines:
        if line.source == "console":
            of_console.setdefault(_BARE.sub("", line.text), []).append(line.t)
            if match := _KERNEL_TIME.match(line.text):
                late.append(line.t - float(match[1]))
    both = [
        seen - written
        for text, times in of_console.items()
        if len(times) == len(of_journal.get(text, ()))
        for seen, written in zip(times, of_journal[text], strict=True)
    ]
    if len(both) >= _ENOUGH or (both and not late):
        return max(statistics.median(both), 0.0)
    if late:
        return max(sorted(late)[len(late) // 20], 0.0)
    if started is None or not entries:
        return None
    return max(entries[-1].real - entries[-1].monotonic - started.timestamp(), 0.0)


def units(entries: Sequence[Entry], zero: float, starts: Mapping[Stage, float]) -> list[Unit]:
    """Return the units whose start the journal tells, in seconds since power-on; `zero` is that of its clock."""
    known: dict[tuple[bool, str], Unit] = {}
    for entry in entries:
        if not entry.unit or entry.job not in _START:
            continue
        t = round(entry.monotonic + zero, 3)
        key = (entry.initrd, entry.unit)
        if key not in known:
            if len(known) == UNITS_LIMIT:
                break
            known[key] = Unit(name=entry.unit, stage=_stage(t, starts, initrd=entry.initrd))
        unit = known[key]
        if not entry.result:
            unit.began = t if unit.began is None else unit.began
        elif not unit.result:
            unit.ended, unit.result = t, entry.result
    return list(known.values())


def _stage(t: float, starts: Mapping[Stage, float], *, initrd: bool) -> Stage:
    stage = next((s for s, start in reversed(list(starts.items())) if start <= t), Stage.KERNEL)
    if initrd:
        return Stage.INITRD if not stage.before(Stage.USERSPACE) else stage
    return stage


def merge(of_console: Sequence[Unit], of_journal: Sequence[Unit], entries: Sequence[Entry]) -> tuple[Unit, ...]:
    """Return all units once: the journal's where it tells of one, under the name or the description of the console."""
    told = {(unit.stage.before(Stage.USERSPACE), unit.name): unit for unit in of_journal}
    named: dict[tuple[bool, str], str] = {}
    written: dict[bool, dict[str, set[str]]] = {}  # whole, as a narrow console cuts it
    for entry in entries:
        if entry.unit and entry.job and (match := _TOLD.match(entry.text)):
            shown = match["shown"].removeprefix(f"{entry.unit} - ")
            named[(entry.initrd, shown)] = entry.unit
            whole = {entry.unit, shown, f"{entry.unit} - {shown}"}
            written.setdefault(entry.initrd, {}).setdefault(entry.unit, set()).update(whole)
    kept: dict[tuple[bool, str], Unit] = {}
    for unit in of_console:
        early = unit.stage.before(Stage.USERSPACE)
        name = named.get((early, unit.name), "")
        if "…" in unit.name and not name:
            name = _cut(unit.name, written.get(early, {}))
            unit.name = name or unit.name  # the start of a job and its end are cut at different places
        better = told.get((early, unit.name)) or told.get((early, name)) or kept.get((early, unit.name))
        if better is None:
            kept[early, unit.name] = unit
            continue
        better.queued, better.waits_for = better.queued or unit.queued, better.waits_for or unit.waits_for
        # The journal begins when its daemon does: what ran before is told by the console alone.
        better.began = unit.began if better.began is None else better.began
        if not better.result:
            better.ended, better.result = unit.ended, unit.result
    return (*kept.values(), *of_journal)


def _cut(shown: str, written: Mapping[str, set[str]]) -> str:
    """Return the one unit that `shown` may be, where systemd has put an ellipsis in its middle; else nothing."""
    head, _, tail = shown.partition("…")
    found = [
        unit
        for unit, names in written.items()
        if any(name.startswith(head) and name.endswith(tail) and len(name) >= len(shown) for name in names)
    ]
    return found[0] if len(found) == 1 else ""


def lines(
    entries: Sequence[Entry], zero: float, starts: Mapping[Stage, float], shown: Sequence[Line]
) -> Iterator[Line]:
    """Yield what the journal has and the console has not: the last words of what failed, warnings and worse."""
    seen = {_BARE.sub("", line.text) for line in shown} | {line.text for line in shown}
    words = {id(entry) for last in last_words(entries).values() for entry in last}
    left = _SHOWN
    for entry in entries:
        if (entry.priority > _WARNING and id(entry) not in words) or not entry.text or entry.text in seen:
            continue
        seen.add(entry.text)
        left -= 1
        if left < 0:
            return
        t = round(entry.monotonic + zero, 3)
        yield Line(t=t, text=entry.line, stage=_stage(t, starts, initrd=entry.initrd), source="journal")


def last_words(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Return what each unit whose start failed said last, or the manager of it where itself said nothing."""
    ended = (entry for entry in entries if entry.job in _START and entry.result in _FAILED)
    failed = list(dict.fromkeys((entry.initrd, entry.unit) for entry in ended))[:_UNITS]
    own = {key: deque[Entry](maxlen=_WORDS) for key in failed}
    told = {key: deque[Entry](maxlen=_WORDS) for key in failed}
    for entry in entries:
        if not entry.text or _NO_REASON in entry.text:
            continue
        if (key := (entry.initrd, entry.own)) in own:
            own[key].append(entry)
        elif (key := (entry.initrd, entry.unit)) in told and not entry.job and entry.priority <= _NOTICE:
            told[key].append(entry)
    return {key[1]: [*(own[key] or told[key])] for key in failed}


def amend(verdict: Verdict, results: Path, lines: Sequence[Line], timeline: Timeline) -> Verdict:
    """Return the verdict on a boot that failed with what its journal in `results` says of the units that did.

    `lines` are the console's.
    """
    entries = of_boot(read_all(results), timeline.boot, timeline.started)
    words, zero = last_words(entries), offset(entries, lines, timeline.started)
    if verdict.ready or not words or zero is None:
        return verdict
    said = {text for item in verdict.evidence for text in (item.text, _BARE.sub("", item.text))}
    new = [(unit, entry) for unit, last in words.items() for entry in last if not {entry.text, entry.line} & said]
    evidence = (Evidence(t=round(entry.monotonic + zero, 3), source="journal", text=entry.line) for _, entry in new)
    return replace(
        verdict,
        evidence=in_order([*verdict.evidence, *evidence]),
        failed_units=tuple(words),
        hint="; ".join([*(f"{unit} says: {words[unit][-1].text.rstrip('.')}" for unit, _ in new[:1]), verdict.hint]),
    )
