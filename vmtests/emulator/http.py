"""Requests, replies and routes of the emulated APIs, without a socket.

A route carries the id that the method has in Google's discovery documents, so that a test can hold each against them.
"""

import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from email.message import Message
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

Json = dict[str, Any]
"""A JSON object, as the APIs send and take them."""

_JSON_LIMIT = 4 << 20  # bytes; metadata may have 512 KB, and nothing else comes near


class Body(Protocol):
    """The body of a request, read once from its beginning."""

    def read(self, limit: int = -1, /) -> bytes:
        """Return at most `limit` bytes, all that are left without a limit, and nothing at the end."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request: `path` is as it was sent, percent-encoded; `params` are the parts of it that a route names."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Message = field(default_factory=Message)
    body: Body
    params: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, method: str, target: str, headers: Message, body: Body) -> "Request":
        """Return the request for a target with a query string; of a parameter given twice the last one counts.

        Raises ApiError.
        """
        try:
            parts = urlsplit(target)
        except ValueError as error:
            raise ApiError(400, "badRequest", f"Bad Request: {error}") from error
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        return cls(method=method, path=parts.path, query=query, headers=headers, body=body)

    def read(self) -> "Request":
        """Return the request with its body in memory; raises ApiError when that is larger than any JSON is here."""
        data = self.body.read(_JSON_LIMIT + 1)
        if len(data) > _JSON_LIMIT:
            raise ApiError(413, "uploadTooLarge", f"The request has more than {_JSON_LIMIT} bytes.")
        return replace(self, body=io.BytesIO(data))

    def json(self) -> Json:
        """Return the body as an object; an empty body is an empty object. Raises ApiError."""
        data = self.read().body.read()
        try:
            value = json.loads(data or b"{}")
        except (ValueError, RecursionError) as error:
            raise ApiError(400, "parseError", f"Parse Error: {error}") from error
        if not isinstance(value, dict):
            raise ApiError(400, "parseError", "Parse Error: the body is not a JSON object")
        return value

    def flag(self, name: str) -> bool:
        """Return a boolean query parameter, false where it is not given."""
        return self.query.get(name, "false").lower() == "true"

    def number(self, name: str, default: int) -> int:
        """Return a whole number of the query; raises ApiError when it is none."""
        text = self.query.get(name)
        try:
            return default if text is None else int(text)
        except ValueError as error:
            raise invalid(name, text, "it is not a number") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePart:
    """`length` bytes of a file from `offset`, sent without being read into memory."""

    path: Path
    offset: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A reply; `drop` closes the connection instead of sending it."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | FilePart = b""
    drop: bool = False

    @classmethod
    def of(cls, value: Json, status: int = 200, headers: Mapping[str, str] | None = None) -> "Reply":
        """Return the reply that carries a JSON object."""
        body = json.dumps(value, indent=2).encode() + b"\n"
        return cls(
            status=status, headers={"Content-Type": "application/json; charset=UTF-8", **(headers or {})}, body=body
        )


class ApiError(Exception):
    """An error as the APIs report it: HTTP status, Google's reason, a sentence, and details (google.rpc types)."""

    def __init__(self, status: int, reason: str, message: str, *, details: Iterable[Json] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.details = list(details)

    def reply(self) -> Reply:
        """Return the reply that says it."""
        item = {"message": self.message, "domain": "global", "reason": self.reason}
        error: Json = {"code": self.status, "message": self.message, "errors": [item]}
        if self.details:
            error["details"] = self.details
        headers = {"WWW-Authenticate": 'Bearer realm="https://accounts.google.com/"'} if self.status == 401 else {}
        return Reply.of({"error": error}, self.status, headers)


def invalid(name: str, value: object, why: str) -> ApiError:
    """Return the error for a field or parameter with a value that cannot be."""
    return ApiError(400, "invalid", f"Invalid value for field '{name}': '{value}'. {why[:1].upper()}{why[1:]}.")


def not_found(what: str) -> ApiError:
    """Return the error for a resource that is not there; `what` is its name from `projects/` on."""
    return ApiError(404, "notFound", f"The resource '{what}' was not found")


Handler = Callable[[Request], Json | Reply]


@dataclass(frozen=True, slots=True)
class Route:
    """A method of an API: its id in the discovery document, how it is called, and what answers."""

    id: str
    method: str
    template: str
    handler: Handler


class Router:
    """Finds the route of a request; a template is a path with parameters in braces."""

    def __init__(self, prefixes: Iterable[str], routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._prefixes = tuple(prefixes)
        self._by_shape: dict[tuple[str, int], list[tuple[list[str], Route]]] = {}
        for route in self.routes:
            parts = route.template.split("/")
            self._by_shape.setdefault((route.method, len(parts)), []).append((parts, route))

    def find(self, request: Request) -> tuple[Route, Request] | None:
        """Return the route and the request with its parameters; None when the path is nobody's here."""
        for prefix in self._prefixes:
            if request.path.startswith(prefix):
                segments = request.path.removeprefix(prefix).split("/")
                break
        else:
            return None
        for parts, route in self._by_shape.get((request.method, len(segments)), []):
            if all(part.startswith("{") or part == segment for part, segment in zip(parts, segments, strict=True)):
                params = {
                    part[1:-1]: unquote(segment)
                    for part, segment in zip(parts, segments, strict=True)
                    if part.startswith("{")
                }
                return route, replace(request, params=params)
        return None
