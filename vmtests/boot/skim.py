"""What has to be read of a long recording: its ends, and the lines in between that somebody could know.

A hundred megabytes of a console are a flood of the same. So the middle is passed over, but for the first lines of
their kind, and of those the ones that hold a word which some pattern cannot match without. The words are searched all
at once (Aho and Corasick).
"""

import functools
import importlib
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import Any

from ahocorasick_rs import BytesAhoCorasick

from vmtests.boot.course import LOGIN_PROMPT
from vmtests.boot.rules import Weight
from vmtests.boot.speakers import LINE_RULES, SIGNS

CHUNK = 1 << 20
"""Bytes that are searched at a time."""

ENDS = 1 << 20
"""Bytes at the begin and at the end that are read whole."""

BOOTS = 50
"""Boots that are looked at; of more in the middle the begins are counted."""

_LINE = 8192  # bytes of one line that are kept
_LEAST = 5  # characters of a word that is worth a search
_ALIKE = 8  # lines of a boot that differ in their numbers only; more are a flood of them
_NUMBERS = b"0123456789abcdef"
_KINDS = 50_000  # of lines that are remembered
_RESTARTS = (b"Linux version ", b"BdsDxe: ", b"SeaBIOS ", b"U-Boot ", b"Welcome to GRUB", b"UEFI firmware")


def skim(chunks: Iterable[bytes], ready: re.Pattern[str] | None = None) -> Iterator[bytes]:
    """Yield a recording without what nobody needs to see; nothing is left out where it is short."""
    passed = 0
    middle = _Middle(ready)
    held: deque[bytes] = deque()
    size = 0
    rest = b""
    for chunk in chunks:
        if passed < ENDS:
            passed += len(chunk)
            yield chunk
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
                yield from middle.picked(data[:cut])
    yield rest
    yield from held


class _Middle:
    """Picks lines of what is passed over."""

    def __init__(self, ready: re.Pattern[str] | None) -> None:
        self._ready = ready
        self._seen: Counter[bytes] = Counter()
        self._begins = 0

    def picked(self, data: bytes) -> Iterator[bytes]:
        """Yield what is to be seen of whole lines."""
        if self._ready is not None and self._ready.search(data.decode("utf-8", "replace")):
            yield data  # what a caller waits for may be anything
            return
        kept = b"\n".join(self._new(data))
        end = 0
        for _, at, _ in _search().find_matches_as_indexes(kept):
            if at >= end:  # else on the line of the match before
                start = kept.rfind(b"\n", 0, at) + 1
                end = kept.find(b"\n", at) + 1 or len(kept)
                yield kept[start : min(end, start + _LINE)].rstrip(b"\n") + b"\n"

    def _new(self, data: bytes) -> Iterator[bytes]:
        """Yield the lines that are not yet another of a kind, and all that begin a boot."""
        seen = self._seen
        again = any(word in data for word in _RESTARTS)
        for line, kind in zip(data.split(b"\n"), data.translate(None, _NUMBERS).split(b"\n"), strict=True):
            if again and any(word in line for word in _RESTARTS):
                self._begins += 1
                if self._begins < BOOTS * len(_RESTARTS):
                    seen.clear()
                yield line
            elif (count := seen[kind]) < _ALIKE:
                seen[kind] = count + 1
                yield line
        if len(seen) > _KINDS:
            seen.clear()


@functools.cache
def _search() -> BytesAhoCorasick:
    return BytesAhoCorasick(list(words()))


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
