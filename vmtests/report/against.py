"""A boot against an earlier one: what is new, what is missing, what is slower."""

from dataclasses import dataclass

from vmtests.boot.stages import Stage
from vmtests.boot.units import Unit
from vmtests.report.record import Boot, Run

FACTOR = 1.25
"""How many times slower is worth a line, if it is also SECONDS more: one boot each knows no noise."""

SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Something measured in both, in seconds; `then` is None where it is new, `now` where it is missing."""

    what: str
    now: float | None
    then: float | None
    slower: bool = False

    @property
    def word(self) -> str:
        """`new`, `missing`, `slower` or nothing."""
        if self.then is None:
            return "new"
        if self.now is None:
            return "missing"
        return "slower" if self.slower else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Stages in order; units that are worth a line; tests that fail now and did not, or are gone."""

    name: str
    verdict_then: str
    stages: tuple[Change, ...]
    units: tuple[Change, ...]
    tests: tuple[str, ...]
    boot: Boot
    """The earlier run's first boot."""

    @property
    def words(self) -> dict[str, str]:
        """What became of each unit that is worth a line, by its name and stage as they are written here."""
        return {change.what: change.word for change in self.units}


def compare(now: Run, then: Run) -> Comparison:
    """Compare the first boots of two runs, and their tests."""
    one, other = now.boots[0], then.boots[0]
    stages = [_change(s, one.seconds.get(s), other.seconds.get(s)) for s in {**other.seconds, **one.seconds}]
    mine, theirs = _units(one), _units(other)
    both = {**theirs, **mine}
    units = [_change(name, _seconds(mine.get(name)), _seconds(theirs.get(name))) for name in both]
    before = {test.name: test.outcome for test in then.tests}
    after = {test.name: test.outcome for test in now.tests}
    tests = [
        f"{test.name} {test.outcome}; it {before.get(test.name, 'was not there')} then"
        for test in now.bad
        if before.get(test.name) not in {"failed", "error"}
    ]
    # A boot alone has none, and misses none.
    tests += [f"{name} is missing" for name in before if after and name not in after]
    return Comparison(
        name=then.directory.name,
        verdict_then=then.sentence,
        stages=tuple(stages),
        units=tuple(sorted((c for c in units if c.word), key=lambda c: c.word)),
        tests=tuple(tests),
        boot=other,
    )


def _change(what: str, now: float | None, then: float | None) -> Change:
    slower = now is not None and then is not None and now > then * FACTOR and now > then + SECONDS
    return Change(what=what, now=now, then=then, slower=slower)


def _units(boot: Boot) -> dict[str, Unit]:
    return {written(unit): unit for unit in boot.units}


def written(unit: Unit) -> str:
    """Return a unit's name and the manager that started it, which is what two boots have alike."""
    return f"{unit.name} ({'initrd' if unit.stage.before(Stage.USERSPACE) else 'system'})"


def _seconds(unit: Unit | None) -> float | None:
    return None if unit is None else unit.seconds or 0.0
