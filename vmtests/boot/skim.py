"""What has to be read of a long recording: its ends, and the lines in between that somebody could know.

A hundred megabytes of a console are a flood of the same. Searching bytes for fixed words is a hundred times faster
than looking at lines, so the middle is passed over but for the lines that hold a word which some pattern cannot
match without.
"""

import functools
import importlib
import re
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from vmtests.boot.course import LOGIN_PROMPT
from vmtests.boot.rules import Weight
from vmtests.boot.speakers import LINE_RULES, SIGNS

CHUNK = 1 << 20
"""Bytes that are searched at a time."""

ENDS = 4 << 20
"""Bytes at the begin and at the end that are read whole."""

_LINE = 8192  # bytes of one line that are kept
_HITS = 2000  # lines of a chunk with the same word; more are a flood of it
_LEAST = 5  # characters of a word that is worth a search


def skim(chunks: Iterable[bytes], ready: re.Pattern[str] | None = None) -> Iterator[bytes]:
    """Yield a recording without what nobody needs to see; nothing is left out where it is short."""
    passed = 0
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
                yield from _picked(data[:cut], ready)
    yield rest
    yield from held


def _picked(data: bytes, ready: re.Pattern[str] | None) -> Iterator[bytes]:
    if ready is not None and ready.search(data.decode("utf-8", "replace")):
        yield data  # what a caller waits for may be anything
        return
    starts: set[int] = set()
    for word in words():
        at, hits = data.find(word), 0
        while at >= 0 and hits < _HITS:
            start = data.rfind(b"\n", 0, at) + 1
            starts.add(start)
            end = data.find(b"\n", at)
            at = data.find(word, end) if end >= 0 else -1
            hits += 1
    for start in sorted(starts):
        end = data.find(b"\n", start) + 1
        yield data[start : min(end, start + _LINE)] if end - start <= _LINE else data[start : start + _LINE] + b"\n"


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
