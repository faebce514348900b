"""Which of many in a row is the first bad one, asked as seldom as can be, as git bisect does."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from vmtests.errors import InputError


class Word(StrEnum):
    """What came of one; nobody can tell of one that is skipped."""

    GOOD = "good"
    BAD = "bad"
    SKIP = "skip"


@dataclass(slots=True)
class Bisection:
    """The search among `names`, the first of which is good and the last bad; raises InputError for fewer than two."""

    names: Sequence[str]
    known: dict[int, Word] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.names) < 2:
            raise InputError(
                "a bisection needs two at least", hint="name them in order: the good one first, then the bad"
            )

    @property
    def _ends(self) -> tuple[int, int]:
        good = max((n for n, word in self.known.items() if word is Word.GOOD), default=0)
        bad = min((n for n, word in self.known.items() if word is Word.BAD and n > good), default=len(self.names) - 1)
        return good, bad

    @property
    def next(self) -> int | None:
        """The number of the one to try next: the two ends first, then nearest to the middle; None when it is over."""
        for end in (len(self.names) - 1, 0):
            if end not in self.known:
                return end
        good, bad = self._ends
        middle = (good + bad) // 2
        left = [n for n in range(good + 1, bad) if n not in self.known]
        return min(left, key=lambda n: (abs(n - middle), n), default=None)

    @property
    def left(self) -> int:
        """How many more will be tried, about."""
        good, bad = self._ends
        return max(bad - good - 1, 0).bit_length()

    def note(self, number: int, word: Word) -> None:
        """Say what came of one; raises InputError when an end is not what it has to be."""
        last = len(self.names) - 1
        if number == last and word is not Word.BAD:
            raise InputError(
                f"{self.names[last]}, the last, is {word}", hint="the last one has to be bad; the first good"
            )
        if number == 0 and word is not Word.GOOD:
            raise InputError(f"{self.names[0]}, the first, is {word}", hint="begin with an older one that is good")
        self.known[number] = word

    @property
    def first_bad(self) -> tuple[str, ...]:
        """The first bad one, or those of which it is one, where some between were skipped."""
        good, bad = self._ends
        return tuple(self.names[good + 1 : bad + 1])
