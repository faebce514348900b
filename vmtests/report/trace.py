"""A boot in the Trace Event Format, which Perfetto and Chrome open.

Its "Trace Event Format" document: `X` has a beginning and a duration, `i` is an instant, `M` names a thread; times are
microseconds.
"""

from vmtests.report.record import Boot

_STAGES, _MACHINE, _UNITS, _CONSOLE = 1, 2, 10, 1000  # rows; units that overlap get several
_MICRO = 1_000_000


def trace(boot: Boot) -> dict[str, object]:
    """Return the trace of one boot: its stages, its units, what happened to the machine, and its console."""
    named = {_STAGES: "stages", _MACHINE: "machine", _CONSOLE: "console"}
    events: list[dict[str, object]] = []
    for stage, start in boot.starts.items():
        events.append(_span(stage, start, boot.seconds.get(stage, 0.0), _STAGES, {}))
    free: list[float] = []
    for unit in sorted(boot.units, key=lambda u: u.first or 0.0):
        if unit.first is None:
            continue
        begin = unit.first if unit.began is None else unit.began
        row = next((n for n, until in enumerate(free) if until <= begin), len(free))
        end = begin if unit.ended is None else max(unit.ended, begin)
        free[row : row + 1] = [end]
        named[_UNITS + row] = f"units {row + 1}"
        details = {"stage": str(unit.stage), "result": unit.result, "waits_for": unit.waits_for}
        events.append(_span(unit.name, begin, end - begin, _UNITS + row, details))
    for line in boot.lines:
        row = _MACHINE if line.source == "event" else _CONSOLE
        events.append({"name": line.text, "ph": "i", "s": "t", "ts": round(line.t * _MICRO), "pid": 1, "tid": row})
    names = [
        {"name": "thread_name", "ph": "M", "pid": 1, "tid": row, "args": {"name": name}} for row, name in named.items()
    ]
    return {"displayTimeUnit": "ms", "traceEvents": [*names, *events]}


def _span(name: str, start: float, seconds: float, row: int, details: dict[str, str]) -> dict[str, object]:
    times = {"ts": round(start * _MICRO), "dur": round(seconds * _MICRO)}
    return {"name": name, "ph": "X", "pid": 1, "tid": row, "args": details, **times}
