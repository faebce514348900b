"""What has to be read of a long recording: its ends, and the lines in between that somebody could know.

A hundred megabytes of a console are a flood of the same. So the middle is passed over, but for lines that hold a word
which some pattern cannot match without, and of those the first of each kind and for each word. The words are searched
all at once (Aho and Corasick).
"""

import functools
import importlib
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import Any

from ahocorasick_rs import BytesAhoCorasick, MatchKind

from vmtests.boot.course import LOGIN_PROMPT
from vmtests.boot.rules import Weight
from vmtests.boot.speakers import LINE_RULES, SIGNS

CHUNK = 1 << 18
"""Bytes that are searched at a time."""

ENDS = 1 << 18
"""Bytes at the begin and at the end that are read whole."""

BOOTS = 10
"""Boots that are looked at; of more in the middle the begins are counted."""

_LINE = 8192  # bytes of one line that are kept
_LEAST = 5  # characters of a word that is worth a search
_ALIKE = 8  # lines of a boot that differ in their numbers only; more are a flood of them
_OF_A_WORD = 16  # lines of a boot that are picked for one word
_NUMBERS = b"0123456789abcdef"
_KINDS = 50_000  # of lines that are remembered
_RESTARTS = (b"Linux version ", b"BdsDxe: ", b"SeaBIOS ", b"U-Boot ", b"Welcome to GRUB", b"UEFI firmware")


class Skim:
    """A recording without what nobody needs to see; nothing is left out where it is short. `boots` of it were not
    looked at, only counted.
    """

    def __init__(self, chunks: Iterable[bytes], ready: re.Pattern[str] | None = None) -> None:
        self._chunks = chunks
        self._middle = _Middle(ready)

    @property
    def boots(self) -> int:
        """Boots that were counted only."""
        return self._middle.skipped

    def _pieces(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            for start in range(0, len(chunk), CHUNK):
                yield chunk[start : start + CHUNK]

    def __iter__(self) -> Iterator[bytes]:
        """Yield what is to be seen."""
        passed = 0
        held: deque[bytes] = deque()
        size = 0
        rest = b""
        for chunk in self._pieces():
            if passed < ENDS:
                cut = chunk.rfind(b"\n", 0, ENDS - passed) + 1 or len(chunk)
                passed += ENDS if cut < len(chunk) else cut
                yield chunk[:cut]
                if not (chunk := chunk[cut:]):
                    continue
            held.append(chunk)
            size += len(chunk)
            while held and size - len(held[0]) >= ENDS:
                oldest = held.popleft()
                size -= len(oldest)
                data = rest + oldest
                cut = data.rfind(b"\n") + 1
                rest = data[cut:][:_LINE]  # of a line without end its begin is enough
                if cut:
                    yield from self._middle.picked(data[:cut])
        yield rest
        yield from held


class _Middle:
    """Picks lines of what is passed over."""

    def __init__(self, ready: re.Pattern[str] | None) -> None:
        self._ready = ready
        self._kinds: Counter[bytes] = Counter()
        self._words: Counter[int] = Counter()
        self._begins: Counter[int] = Counter()

    @property
    def skipped(self) -> int:
        """Boots that are not seen."""
        return max(0, *(count - BOOTS for count in self._begins.values()), 0)

    def picked(self, data: bytes) -> Iterator[bytes]:
        """Yield what is to be seen of whole lines."""
        if self._ready is not None and self._ready.search(data.decode("utf-8", "replace")):
            yield data  # what a caller waits for may be anything
            return
        search, restarts = _search()
        words, end = self._words, 0
        picked: list[bytes] = []
        for word, at, _ in search.find_matches_as_indexes(data):
            if at < end or (words[word] >= _OF_A_WORD and word >= restarts):
                continue  # on a line that was picked, or another of a flood
            start = data.rfind(b"\n", 0, at) + 1
            end = data.find(b"\n", at) + 1 or len(data)
            line = data[start : min(end, start + _LINE)]
            if word < restarts:
                if not self._begin(word):
                    continue
            elif not self._new(line):
                continue
            words[word] += 1
            picked.append(line.rstrip(b"\n"))
        if picked:
            yield b"\n".join([*picked, b""])

    def _begin(self, word: int) -> bool:
        """Take the begin of a boot, and return whether it is looked at: then everything in it is new."""
        self._begins[word] += 1
        if self._begins[word] > BOOTS:
            return False
        self._kinds.clear()
        self._words.clear()
        return True

    def _new(self, line: bytes) -> bool:
        """Whether a line is not yet another of its kind."""
        kinds = self._kinds
        kind = line.translate(None, _NUMBERS)
        if (count := kinds[kind]) >= _ALIKE:
            return False
        kinds[kind] = count + 1
        if len(kinds) > _KINDS:
            kinds.clear()
        return True


@functools.cache
def _search() -> tuple[BytesAhoCorasick, int]:
    """Return the search for all words, and how many of them, the first, begin a boot."""
    others = [word for word in words() if not any(begin in word for begin in _RESTARTS)]
    return BytesAhoCorasick([*_RESTARTS, *others], matchkind=MatchKind.LeftmostLongest), len(_RESTARTS)


@functools.cache
def words() -> tuple[bytes, ...]:
    """Return words of which each line has one that begins a stage, ends a boot, or says why."""
    patterns = [LOGIN_PROMPT, *(sign.pattern for sign in SIGNS)]
    patterns += [rule.pattern for rule in LINE_RULES if rule.weight is not Weight.CLUE or rule.fatal]
    found = {word.encode() for pattern in patterns for word in fixed(pattern)} | {b"Welcome to ", b"Running in init"}
    # A word that holds another is found with it.
    return tuple(sorted(word for word in found if not any(other in word and other != word for other in found)))


def fixed(pattern: re.Pattern[str]) -> tuple[str, ...]:
    """Return words of which any match of `pattern` has one; empty where there is none that is long enough."""
    parser = importlib.import_module("re._parser")
    return tuple(_words(parser.parse(pattern.pattern, pattern.flags & re.IGNORECASE)) or ())


def _words(parsed: Any) -> set[str] | None:
    """Return the best set of words of a parsed pattern: the one whose shortest word is longest."""
    sets: list[set[str]] = []
    run = ""
    for op, value in [*parsed, (None, None)]:
        name = str(op)
        if name == "LITERAL":
            run += chr(value)
            continue
        if len(run) >= _LEAST:
            sets.append({run})
        run = ""
        if name == "SUBPATTERN":
            inner = _words(value[3])
        elif name == "BRANCH":
            alternatives = [_words(one) for one in value[1]]
            inner = (
                None if any(one is None for one in alternatives) else {w for one in alternatives for w in one or ()}
            )
        elif name in {"MAX_REPEAT", "MIN_REPEAT"} and value[0] > 0:
            inner = _words(value[2])
        else:
            inner = None
        if inner:
            sets.append(inner)
    return max(sets, key=lambda one: (min(map(len, one)), -len(one)), default=None)
