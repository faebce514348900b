"""GRUB's script language, word by word (GRUB manual 2.12, section "Writing full configuration files directly").

A variable of which nothing is known stays in a word, with its `$`. A `$` that begins none, as in single quotes, is
`LITERAL` until a word is used, and where quotes were is `QUOTED`: without them, a word of nothing is no word.
"""

import operator
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from vmtests.image.cmdline import LINE_LIMIT

LITERAL, QUOTED = "\0", "\1"

VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")

_COMMANDS = 40_000  # that are looked at
_PIECE = re.compile(r"""\\(.)|'([^']*)'|"((?:[^"\\]|\\.)*)"|((?:\$\{\w+\}|[^\s'"\\;{}])+)""", re.DOTALL)
_NUMBER = re.compile(r"\s*(-?)(?:0[xX]([0-9a-fA-F]{1,16})|(0[0-7]{0,21})|([1-9][0-9]{0,18}))")

Compare = Callable[[str, str], bool]


def commands(text: str) -> Iterator[list[str]]:
    """Yield commands as their words, a brace as a command of its own."""
    text = text.replace("\\\n", "").replace(LITERAL, "").replace(QUOTED, "")
    for number, line in enumerate(text.splitlines()):
        if number > _COMMANDS:
            return
        words: list[str] = []
        at, word = 0, None
        while at < len(line):
            if line[at] == "#" and word is None:
                break
            if match := _PIECE.match(line, at):
                escaped, single, double, plain = match.groups()
                if single is not None:
                    piece = QUOTED + single.replace("$", LITERAL)
                elif double is not None:
                    piece = QUOTED + re.sub(r'\\([\\"$])', lambda m: LITERAL if m[1] == "$" else m[1], double)
                else:
                    piece = escaped.replace("$", LITERAL) if escaped is not None else plain
                word = (word or "") + piece
                at = match.end()
                continue
            if word is not None:
                words.append(word)
                word = None
            if line[at] in ";{}":
                if words:
                    yield words
                words = []
                if line[at] != ";":
                    yield [line[at]]
            at += 1
        if word is not None:
            words.append(word)
        if words:
            yield words


def filled_in(words: Sequence[str], value: Callable[[str], str]) -> list[str]:
    """Return words with the values of their variables: a variable alone may be several words, or none."""
    found = []
    for word in words:
        put = put_in(word, lambda match: value(match[1] or match[2]))
        if VARIABLE.fullmatch(word):
            found += put.split()
        elif put:
            found.append(put.replace(QUOTED, ""))
    return found


def put_in(text: str, value: Callable[[re.Match[str]], str]) -> str:
    """Put the values of variables in, as long as a kernel could take what comes of it: each may hold others twice."""
    left = LINE_LIMIT

    def put(match: re.Match[str]) -> str:
        nonlocal left
        said = value(match)
        left -= len(said)
        return said if left >= 0 else ""

    return VARIABLE.sub(put, text)


def arguments(
    words: Sequence[str], taking: Collection[str], short: Mapping[str, str]
) -> tuple[dict[str, list[str]], list[str]]:
    """Return the options of a command, each with its values, and its other words (grub-core/lib/arg.c).

    `taking` are options that take a value, which is empty where the next word is an option; `short` names them by
    their letters.
    """
    options: dict[str, list[str]] = {}
    others: list[str] = []
    waiting = iter(range(len(words)))
    for at in waiting:
        word = words[at]
        if word == "--":
            others += words[at + 1 :]
            break
        if len(word) < 2 or word[0] != "-":
            others.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        names = [name] if word[1] == "-" else [short.get(letter, letter) for letter in word[1:]]
        for name in names:
            options.setdefault(name, []).append(value if word[1] == "-" else "")
        if names[-1] in taking and not equals and at + 1 < len(words) and words[at + 1][:1] != "-":
            options[names[-1]][-1] = words[next(waiting)]
    return options, others


def _number(word: str) -> int:
    if (match := _NUMBER.match(word)) is None:
        return 0
    sign, sixteen, eight, ten = match.groups()
    value = int(sixteen, 16) if sixteen else int(eight, 8) if eight else int(ten)
    return -value if sign else value


def _numbers(compare: Callable[[int, int], bool]) -> Compare:
    return lambda one, other: compare(_number(one), _number(other))


_COMPARED: dict[str, Compare] = {
    "=": operator.eq, "==": operator.eq, "!=": operator.ne,
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
    "-eq": _numbers(operator.eq), "-ne": _numbers(operator.ne), "-lt": _numbers(operator.lt),
    "-le": _numbers(operator.le), "-gt": _numbers(operator.gt), "-ge": _numbers(operator.ge),
}  # fmt: skip
_NOT_COMPARED = re.compile(r"-[no]t.*|-p[gl]t")  # times of files, numbers behind equal words
_FILES = frozenset({"-d", "-e", "-f", "-s"})


def holds(words: Sequence[str], look: Callable[[str, str], bool | None]) -> bool | None:
    """Return whether a test holds, None where that is not known (grub-core/commands/test.c).

    `look` tells whether a file is as an operator asks for.
    """
    # Of each bracket that is open: whether what stands before `-o` holds, what stands behind it, and `!`.
    open_: list[tuple[bool | None, bool | None, bool]] = []
    before: bool | None = False
    behind: bool | None = True
    at, negated = 0, False
    while at < len(words) or open_:
        one, two, three = [*words[at : at + 3], "", "", ""][:3]
        left = len(words) - at
        value: bool | None = None
        if left > 2 and (two in _COMPARED or _NOT_COMPARED.fullmatch(two)):
            if two in _COMPARED and "$" not in one + three:
                value = _COMPARED[two](one, three)
            at += 3
        elif left > 1 and one in ("-n", "-z"):
            value = _some(two) if one == "-n" else _not(_some(two))
            at += 2
        elif left > 1 and one in _FILES:
            value = look(one, two)
            at += 2
        elif one == "(":
            open_.append((before, behind, negated))
            before, behind, negated = False, True, False
            at += 1
            continue
        elif (one == ")" or left < 1) and open_:
            value = _or(before, behind)
            before, behind, negated = open_.pop()
            at += 1
        elif one in ("!", "-a"):
            negated ^= one == "!"
            at += 1
            continue
        elif one == "-o":
            before, behind = _or(before, behind), True
            at += 1
            continue
        else:
            value = _some(one)
            at += 1
        behind, negated = _and(behind, _not(value) if negated else value), False
    return _or(before, behind)


def _some(word: str) -> bool | None:
    """Whether a word is not empty."""
    return True if VARIABLE.sub("", word) else None if word else False


def _not(value: bool | None) -> bool | None:
    return None if value is None else not value


def _and(one: bool | None, other: bool | None) -> bool | None:
    return False if one is False or other is False else None if one is None or other is None else True


def _or(one: bool | None, other: bool | None) -> bool | None:
    return _not(_and(_not(one), _not(other)))
