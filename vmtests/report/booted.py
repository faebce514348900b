"""Two images as they boot: stages, units, mounts and what failed, each of one boot or more."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from vmtests.boot.stages import Stage
from vmtests.image.diff import Difference, Word
from vmtests.report.against import FACTOR, SECONDS, written
from vmtests.report.noise import chance
from vmtests.report.record import Boot

SURE = 0.05
"""The probability, at most, that any of what is alike is called slower or faster: of all stages, or of all units.

Five boots each can show it of a stage, eight of one of a hundred units.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """How long a stage or a unit took in the boots of both images, in seconds (medians).

    `word` is `slower`, `faster`, `perhaps …` where there are too few boots to know, or empty. `chance` is the
    probability that among all stages and units at least one differs as much by chance.
    """

    name: str
    first: float | None
    second: float | None
    chance: float | None = None
    word: str = ""

    def to_json(self) -> dict[str, object]:
        """Return the fields by name."""
        return {
            "name": self.name, "first": self.first, "second": self.second, "chance": self.chance, "word": self.word,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Booted:
    """What differs between the boots of two images; `stages` are all, `units` those whose time differs."""

    boots: tuple[int, int]
    stages: tuple[Times, ...]
    units: tuple[Times, ...]
    differences: tuple[Difference, ...]

    def to_json(self) -> dict[str, object]:
        """Return it as JSON data."""
        return {
            "boots": list(self.boots),
            "stages": [times.to_json() for times in self.stages],
            "units": [times.to_json() for times in self.units],
            "differences": [difference.to_json() for difference in self.differences],
        }


def compare(first: Sequence[Boot], second: Sequence[Boot]) -> Booted:
    """Compare the boots of two images, or of one at two times."""
    passed = [list(Stage)[n] for n in range(len(Stage) - 1)]
    looks = 2 * len(passed)  # in both directions
    stages = [_times(stage, _stage(first, stage), _stage(second, stage), looks) for stage in passed]
    one, other = _units(first), _units(second)
    both = [name for name in one if name in other]
    units = [_times(name, one[name], other[name], 2 * len(both)) for name in both]
    return Booted(
        boots=(len(first), len(second)),
        stages=tuple(times for times in stages if times.first is not None or times.second is not None),
        units=tuple(times for times in units if times.word),
        differences=tuple(_differences(first, second)),
    )


def _stage(boots: Sequence[Boot], stage: Stage) -> list[float]:
    """Return the seconds of a stage, of those that left it."""
    return [boot.seconds[stage] for boot in boots if stage in boot.seconds and stage != list(boot.starts)[-1]]


def _units(boots: Sequence[Boot]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for boot in boots:
        for unit in boot.units:
            if unit.seconds is not None:
                found.setdefault(written(unit), []).append(unit.seconds)
    return found


def _times(name: str, first: Sequence[float], second: Sequence[float], looks: int) -> Times:
    one, other = (statistics.median(times) if times else None for times in (first, second))
    if one is None or other is None:
        return Times(name=name, first=one, second=other)
    slow, fast = (chance(second, first), chance(first, second)) if min(len(first), len(second)) > 1 else (None, None)
    # Of a hundred that did not change one looks so at 1 in 100.
    probability = None if slow is None or fast is None else min(min(slow, fast) * looks, 1.0)
    word = ""
    large = max(one, other) > min(one, other) * FACTOR and abs(one - other) > SECONDS
    if probability is not None and probability <= SURE and abs(one - other) > SECONDS / 10:
        word = "slower" if other > one else "faster"
    elif large:
        word = "perhaps slower" if other > one else "perhaps faster"
    return Times(name=name, first=round(one, 3), second=round(other, 3), chance=probability, word=word)


def _differences(first: Sequence[Boot], second: Sequence[Boot]) -> Iterator[Difference]:
    yield from _sets("verdict", _often(first, _verdict), _often(second, _verdict))
    yield from _sets("failed unit", _often(first, _failed), _often(second, _failed))
    yield from _sets("booted unit", _often(first, _names), _often(second, _names))
    yield from _sets("mount", _often(first, _mounts), _often(second, _mounts))


def _sets(section: str, first: dict[str, str], second: dict[str, str]) -> Iterator[Difference]:
    for name in sorted({*first, *second}):
        one, other = first.get(name), second.get(name)
        if one == other:
            continue
        word = Word.ADDED if one is None else Word.MISSING if other is None else Word.CHANGED
        yield Difference(section=section, name=name, word=word, first=one or "", second=other or "")


def _often(boots: Sequence[Boot], tell: Callable[[Boot], dict[str, str]]) -> dict[str, str]:
    """Return what more than half of the boots tell: what comes now and then is no difference of images."""
    told = [tell(boot) for boot in boots]
    return {
        name: next(facts[name] for facts in told if name in facts)
        for name in {name for facts in told for name in facts}
        if sum(name in facts for facts in told) * 2 > len(boots)
    }


def _verdict(boot: Boot) -> dict[str, str]:
    return {"boot": boot.told.word if boot.told.cause is None else f"{boot.told.word}, {boot.told.cause}"}


def _failed(boot: Boot) -> dict[str, str]:
    return {written(unit): unit.result for unit in boot.units if unit.failed}


def _names(boot: Boot) -> dict[str, str]:
    return {written(unit): "" for unit in boot.units if not unit.failed}


def _mounts(boot: Boot) -> dict[str, str]:
    return {
        mount.target: f"{mount.fstype} {','.join(sorted(mount.options))}"
        for mount in boot.mounts
        if mount.fstype not in {"proc", "sysfs", "cgroup2", "devpts", "autofs", "mqueue", "bpf"}
    }
