"""Two images, without booting them: what one has and the other has not."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from vmtests.image.contents import SECTIONS, Contents, Fact

_LINES = 40  # of a file that changed
_COMPARED = 1 << 18  # pairs of lines


class Word(StrEnum):
    """What became of a thing, from the first to the second."""

    ADDED = "added"
    MISSING = "missing"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A thing that differs: what is told of it in the first and in the second, and the lines (or words) that changed,
    each with + or - in front.
    """

    section: str
    name: str
    word: Word
    first: str = ""
    second: str = ""
    lines: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return the fields by name."""
        return {
            "section": self.section,
            "name": self.name,
            "word": str(self.word),
            "first": self.first,
            "second": self.second,
            "lines": list(self.lines),
        }


def compare(first: Contents, second: Contents) -> list[Difference]:
    """Return all differences, by section and name; one at least where any fact differs."""
    found = [d for section in SECTIONS for d in _section(section, first.facts[section], second.facts[section])]
    if not found and first.summed != second.summed:
        one, other, name = first.summed, second.summed, "facts that others hide"
        found.append(Difference(section=SECTIONS[-1], name=name, word=Word.CHANGED, first=one, second=other))
    return found


def _section(section: str, first: dict[str, Fact], second: dict[str, Fact]) -> Iterator[Difference]:
    for name in sorted({*first, *second}):
        one, other = first.get(name), second.get(name)
        if one is not None and other is not None and one.told == other.told:
            continue
        if one is None or other is None:
            word = Word.ADDED if one is None else Word.MISSING
            yield Difference(
                section=section,
                name=name,
                word=word,
                first="" if one is None else one.told,
                second="" if other is None else other.told,
            )
        else:
            lines = () if one.lines is None or other.lines is None else tuple(changed(one.lines, other.lines))
            yield Difference(
                section=section, name=name, word=Word.CHANGED, first=one.told, second=other.told, lines=lines
            )


def changed(first: Sequence[str], second: Sequence[str]) -> Iterator[str]:
    """Yield the lines that went and came; of a line of many words, as a command line is, only the words."""
    count = 0
    if len(first) * len(second) > _COMPARED:
        # Lines that are repeated often take it the third power of their number.
        have, had = {*second}, {*first}
        gone = [f"- {line}" for line in first if line not in have]
        told = [*gone, *(f"+ {line}" for line in second if line not in had)]
        yield from told[:_LINES]
        if len(told) > _LINES or not told:
            yield "… and more lines"
        return
    for tag, a, b, c, d in difflib.SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        if tag == "replace" and b - a == d - c:
            told = [line for one, other in zip(first[a:b], second[c:d], strict=True) for line in _words(one, other)]
        else:
            told = [*(f"- {line}" for line in first[a:b]), *(f"+ {line}" for line in second[c:d])]
        for line in told:
            count += 1
            if count > _LINES:
                yield "… and more lines"
                return
            yield line


def _words(first: str, second: str) -> Iterator[str]:
    one, other = first.split(), second.split()
    common = {*one} & {*other}
    if len(one) < 4 or len(common) < len(one) // 2:
        yield f"- {first}"
        yield f"+ {second}"
        return
    gone = [word for word in one if word not in common]
    come = [word for word in other if word not in common]
    if gone:
        yield f"- {one[0]} … {' '.join(gone)}" if one[0] in common else f"- {' '.join(gone)}"
    if come:
        yield f"+ {one[0]} … {' '.join(come)}" if one[0] in common else f"+ {' '.join(come)}"
    if not gone and not come:
        yield f"- {first}"
        yield f"+ {second}"
