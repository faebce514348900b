"""Lists as Compute Engine gives them: filtered, ordered and in pages.

The grammar of filters is that of the API's reference (`filter` of any list method): comparisons with `=`, `!=`, `>`,
`<`, `>=`, `<=` and `:`, joined by AND (also by standing side by side) and OR, negated by `-` or NOT, grouped by
parentheses; and the older form `field eq regex`, `field ne regex`.
"""

import re
from collections.abc import Callable, Collection, Iterable, Sequence

from vmtests.emulator.http import ApiError, Json, Request, invalid

PAGE = 500
"""Items of a page unless fewer are asked for."""

Test = Callable[[Json], bool]

_TOKEN = re.compile(
    r"""\s*(?:(?P<mark>[()]|!=|>=|<=|[=:<>]|-(?=[(a-zA-Z]))|"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<word>[^\s()=:<>!"]+))"""
)
_DEPTH = 20
_FILTER = 2048  # characters; the API's own limit is of this size


class _Parser:
    """Reads a filter from left to right."""

    def __init__(self, text: str) -> None:
        if len(text) > _FILTER:
            raise invalid("filter", "…", f"a filter may have {_FILTER} characters")
        self._text = text
        self._tokens: list[tuple[str, str]] = []
        position = 0
        while position < len(text.rstrip()):
            match = _TOKEN.match(text, position)
            if match is None or match.end() == position:
                raise self._bad()
            kind = str(match.lastgroup)
            self._tokens.append((kind, match[kind]))
            position = match.end()
        self._tokens.reverse()
        self._depth = 0

    def parse(self) -> Test:
        test = self._any()
        if self._tokens:
            raise self._bad()
        return test

    def _bad(self) -> ApiError:
        return invalid("filter", self._text, "the filter cannot be read")

    def _peek(self) -> tuple[str, str]:
        return self._tokens[-1] if self._tokens else ("", "")

    def _take(self) -> tuple[str, str]:
        if not self._tokens:
            raise self._bad()
        return self._tokens.pop()

    def _any(self) -> Test:
        tests = [self._all()]
        while self._peek() == ("word", "OR"):
            self._take()
            tests.append(self._all())
        return lambda item: any(test(item) for test in tests)

    def _all(self) -> Test:
        tests = [self._one()]
        while self._tokens and self._peek() not in {("word", "OR"), ("mark", ")")}:
            if self._peek() == ("word", "AND"):
                self._take()
            tests.append(self._one())
        return lambda item: all(test(item) for test in tests)

    def _one(self) -> Test:
        kind, text = self._take()
        if (kind, text) in {("mark", "-"), ("word", "NOT")}:
            test = self._one()
            return lambda item: not test(item)
        if (kind, text) == ("mark", "("):
            self._depth += 1
            if self._depth > _DEPTH:
                raise self._bad()
            test = self._any()
            self._depth -= 1
            if self._take() != ("mark", ")"):
                raise self._bad()
            return test
        if kind == "mark":
            raise self._bad()
        return self._comparison(text)

    def _comparison(self, name: str) -> Test:
        kind, operator = self._take()
        value_kind, value = self._take()
        if value_kind == "mark":
            raise self._bad()
        if kind == "word" and operator in {"eq", "ne"}:
            return _matches(name, value, wanted=operator == "eq")
        if kind != "mark" or operator in {"(", ")", "-"}:
            raise self._bad()
        return _compares(name, operator, value)


def _matches(name: str, pattern: str, *, wanted: bool) -> Test:
    # Only `.*` is taken of the regular expressions, so that no pattern of a client can be slow.
    pieces = [re.escape(piece) for piece in pattern.split(".*")]
    regex = re.compile(".*".join(pieces), re.DOTALL)

    def test(item: Json) -> bool:
        return any(regex.fullmatch(_text(value)) is not None for value in _values(item, name)) == wanted

    return test


def _compares(name: str, operator: str, value: str) -> Test:
    def test(item: Json) -> bool:
        found = _values(item, name)
        if operator == "=":
            return any(_text(one) == value for one in found)
        if operator == "!=":
            return all(_text(one) != value for one in found)
        if operator == ":":
            return bool(found) if value == "*" else any(_has(one, value) for one in found)
        return any(_ordered(_text(one), operator, value) for one in found)

    return test


def _has(found: object, value: str) -> bool:
    text = _text(found).lower()
    return text.startswith(value[:-1].lower()) if value.endswith("*") else value.lower() in text


def _ordered(found: str, operator: str, value: str) -> bool:
    try:
        left: float | str = float(found)
        right: float | str = float(value)
    except ValueError:
        left, right = found, value
    less, equal = (left < right, left == right) if type(left) is type(right) else (False, False)  # type: ignore[operator]
    return {"<": less, "<=": less or equal, ">": not less and not equal, ">=": not less}[operator]


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _values(item: Json, name: str) -> list[object]:
    """Return the values of a field with dots in its name; of a list, those of each of its members."""
    found: list[object] = [item]
    for part in name.split("."):
        found = [one[part] for one in _members(found) if isinstance(one, dict) and part in one]
    return _members(found)


def _members(found: Iterable[object]) -> list[object]:
    return [member for one in found for member in (one if isinstance(one, list) else [one])]


def parse_filter(text: str) -> Test:
    """Return the test that a filter asks for; an empty one takes everything. Raises ApiError."""
    return _Parser(text).parse() if text.strip() else lambda _: True


def page(request: Request, items: Iterable[Json]) -> tuple[Sequence[Json], str | None]:
    """Return the items of the page that is asked for, and the token of the next one."""
    test = parse_filter(request.query.get("filter", ""))
    found = sorted((item for item in items if test(item)), key=_name)
    order = request.query.get("orderBy", "name")
    if order == "creationTimestamp desc":
        found.sort(key=lambda item: str(item.get("creationTimestamp", "")), reverse=True)
    elif order != "name":
        raise invalid("orderBy", order, "'name' and 'creationTimestamp desc' are taken")
    size = request.number("maxResults", PAGE)
    if not 0 <= size <= PAGE:
        raise invalid("maxResults", size, f"must be from 0 to {PAGE}")
    start = request.number("pageToken", 0)
    end = start + (size or PAGE)
    return found[start:end], str(end) if end < len(found) else None


def listed(request: Request, kind: str, items: Iterable[Json], link: str) -> Json:
    """Return the list of a kind (`compute#instanceList`); without items it has no `items`."""
    found, token = page(request, items)
    answer: Json = {"kind": kind, "id": link.partition("/v1/")[2], "selfLink": link}
    if found:
        answer["items"] = found
    if token is not None:
        answer["nextPageToken"] = token
    return answer


def aggregated(
    request: Request,
    kind: str,
    name: str,
    items: Iterable[Json],
    link: str,
    scopes: Iterable[str],
    *,
    unreachable: Collection[str] = (),
) -> Json:
    """Return the list of a kind over `scopes` (`zones/Z`); one without items has a warning instead of them.

    So have `unreachable` zones, whatever is in them: the list is partial.
    """
    items = [item for item in items if _scope(item).rpartition("/")[2] not in unreachable]
    found, token = page(request, items)
    by_scope: dict[str, Json] = {}
    for item in found:
        by_scope.setdefault(_scope(item), {name: []})[name].append(item)
    for scope in scopes:
        if scope not in by_scope:
            warning = {
                "code": "NO_RESULTS_ON_PAGE",
                "message": f"There are no results for scope '{scope}' on this page.",
            }
            by_scope[scope] = {"warning": {**warning, "data": [{"key": "scope", "value": scope}]}}
    for zone in unreachable:
        message = f"Zone '{zone}' could not be reached."
        by_scope[f"zones/{zone}"] = {"warning": {"code": "UNREACHABLE", "message": message}}
    answer: Json = {"kind": kind, "id": link.partition("/v1/")[2], "selfLink": link, "items": by_scope}
    if token is not None:
        answer["nextPageToken"] = token
    return answer


def _name(item: Json) -> str:
    return str(item.get("name", ""))


def _scope(item: Json) -> str:
    zone = item.get("zone")
    return "global" if zone is None else "/".join(str(zone).split("/")[-2:])
