"""Whether one set of timings is slower than another, and not by chance.

Timings of boots have long tails, so ranks are compared (Mann and Whitney, Annals of Mathematical Statistics 18), with
the exact distribution, which small sets need, and mid-ranks for ties. Own code of a few lines, since the libraries
that have it bring a hundred megabytes; decision 5.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

FACTOR = 1.25
"""How many times slower is worth an alarm, unless somebody says otherwise."""

BEFORE = 20
"""Runs that the newest are compared with."""

FALSE_ALARM = 0.01
"""The probability, at most, that a stage whose time did not change gives an alarm in one report."""

LEAST = 0.25
"""Seconds that a stage is slower at least: nobody waits for less."""

_FEWEST_BEFORE = 5
# Neighbouring beginnings say nearly the same, so that twenty of them count as ten at most (measured: the tests).
_SURE = FALSE_ALARM / 10
_BOUND = 0.8416  # of the normal distribution, below which four fifths lie


def chance(now: Sequence[float], before: Sequence[float]) -> float:
    """Return the probability that `now` ranks so high, or higher, if both came of one source."""
    ranks = _doubled_ranks([*now, *before])
    observed = sum(ranks[: len(now)])
    # ways[k] says in how many ways k of them have each sum: a number of `width` bits for a sum, in one large integer.
    width = len(ranks) + 1
    ways = [1] + [0] * len(now)
    for rank in ranks:
        for k in range(len(now), 0, -1):
            ways[k] += ways[k - 1] << (rank * width)
    left, mask, count = ways[-1] >> (observed * width), (1 << width) - 1, 0
    while left:
        count += left & mask
        left >>= width
    return count / math.comb(len(ranks), len(now))


def _doubled_ranks(values: Sequence[float]) -> list[int]:
    """Return twice the ranks: those of equal values are their mean, which may end in a half."""
    ordered = sorted(values)
    first = {value: n for n, value in reversed(list(enumerate(ordered, 1)))}
    last = {value: n for n, value in enumerate(ordered, 1)}
    return [first[value] + last[value] for value in values]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slowdown:
    """The newest `runs` against the `before` ones: medians in seconds, how many times slower (the median of all pairs,
    after Hodges and Lehmann) and at most, with four chances in five, and the probability that it is chance.

    `sure` is that it is slower by the factor and not by chance; otherwise the newest run only looks so.
    """

    runs: int
    before: int
    now: float
    then: float
    ratio: float
    high: float
    chance: float
    sure: bool


def _deviation(one: int, other: int) -> float:
    """Return the standard deviation of the number of pairs of which the first is larger."""
    return math.sqrt(one * other * (one + other + 1) / 12)


def enough(series: Sequence[float]) -> bool:
    """Whether anything could be told of a series, the oldest first."""
    return len(series) > _FEWEST_BEFORE


def slower(series: Sequence[float], *, factor: float = FACTOR, window: int = BEFORE) -> Slowdown | None:
    """Return by how much the end of a series, the oldest first, is slower than what came before it; None if it is not.

    Nobody knows since when, so each beginning is tried; each has a share of FALSE_ALARM.
    """
    last = min(window, len(series) - _FEWEST_BEFORE)
    looks: Slowdown | None = None
    for runs in range(1, last + 1):
        now, before = series[-runs:], series[-runs - window : -runs]
        one, other = statistics.median(now), statistics.median(before)
        pairs = sorted(x / max(y, 0.001) for x in now for y in before)
        high = pairs[min(len(pairs) // 2 + round(_BOUND * _deviation(runs, len(before))), len(pairs) - 1)]
        if high <= factor or one - other < LEAST:
            continue
        found = Slowdown(
            runs=runs,
            before=len(before),
            now=one,
            then=other,
            ratio=statistics.median(pairs),
            high=high,
            chance=(probability := chance(now, before)),
            sure=probability <= _SURE,
        )
        if looks is None or (found.sure, -found.chance) > (looks.sure, -looks.chance):
            looks = found
    return looks
