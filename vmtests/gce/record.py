"""Writes down what a run asks of Compute Engine and what it answers, without what is nobody else's business.

A recording is text: an object of JSON a line, the first about the recording, then an exchange each in the order of the
answers. An emulator can be held against it (`vmtests emulator --hold`).
"""

import contextlib
import ipaddress
import json
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated, Any
from urllib.parse import parse_qsl, urlencode

import msgspec

from vmtests import progress
from vmtests.errors import InputError, at_named
from vmtests.gce.settings import Settings
from vmtests.gce.things import OWNER_LABEL
from vmtests.resources import read_named
from vmtests.text import split_url

VERSION = 1

_HOSTS = re.compile(r"(?:[a-z-]+\.)?(?:compute|storage|orgpolicy)(?:\.[a-z0-9-]+)*\.googleapis\.com")
_HEADERS = frozenset(
    ("content-type", "content-range", "range", "location", "retry-after", "x-upload-content-type")
)  # fmt: skip
_HINT = "name a file that `vmtests gce record` wrote"
_BODY_LIMIT = 4 << 20  # bytes of JSON

# What is taken out of every text, and what stands in its place.
_PATTERNS = tuple(
    (re.compile(pattern), instead)
    for pattern, instead in (
        (r"-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]*(?:-----END [A-Z ]*PRIVATE KEY-----)?", "(key)"),
        (r"(?i)\bbearer\s+[\w.~+/-]+=*", "(token)"),
        (r"\bya29\.[\w.-]+|\bAIza[\w-]{35}|\beyJ[\w-]+\.[\w-]+(?:\.[\w-]*)?", "(token)"),
        (r"(?i)\b(x-goog-signature|x-goog-credential|access_token|key)=[^&\s\"]+", r"\1=(token)"),
        (r"\b(?:ssh-[a-z0-9]+|ecdsa-sha2-[a-z0-9]+) AAAA[\w+/=]+(?: [^\s\"]+)?", "(public key)"),
        (r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+", "somebody@example.com"),
        (r"(?i)\b(project_number|projectNumber|project number|project|consumer)(\W{1,3})\d{4,}", r"\1\g<2>0"),
        (r"\bproject-(owners|editors|viewers)-\d{4,}", r"project-\1-0"),
        (r"\b(organizations|folders|billingAccounts|accessPolicies|customers)/[\w-]+", r"\1/0"),
        (r"\bprincipal(?:Set)?://[^\s\"']+", "(principal)"),
    )
)
_PROJECT = re.compile(r"\bprojects/((?:[a-z0-9.-]+:)?[a-z0-9-]+)")
_PUBLIC = re.compile(r"[a-z0-9]+-cloud|googcloud|emulated")
_ADDRESS = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.])")
_ADDRESS_6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f:]{3,39}(?![\w:])")
_INNER = re.compile(r"10\.|127\.|169\.254\.|192\.168\.|172\.(?:1[6-9]|2\d|3[01])\.|0\.|255\.|192\.0\.2\.")
# Of these nothing but the length is kept: metadata (keys, scripts), guest attributes, consoles, screens.
_CONTENT = frozenset(("value", "contents", "variableValue", "signature", "privateKeyData", "token", "password"))
_NUMBERS = frozenset(("projectNumber", "clientId"))
_SECRET_QUERY = frozenset(("key", "access_token", "oauth_token"))


# What a recording may have an emulator be asked: requests to its APIs, and nothing that another host would get.
_Method = Annotated[str, msgspec.Meta(pattern="^(?:GET|POST|PUT|PATCH|DELETE)$")]
_Path = Annotated[str, msgspec.Meta(pattern="^/(?:batch|compute|download|resumable|storage|upload|v2)/[!-~]*$")]


class Exchange(msgspec.Struct, kw_only=True):
    """A request and what came of it.

    `path` is with its query; a body is a value of JSON, or the number of its bytes. `status` 0 means that no answer
    came, and `error` what did. `t` is in seconds from the recording's begin, `seconds` what it took.
    """

    method: _Method
    path: _Path
    sent: dict[str, str] = msgspec.field(default_factory=dict)
    body: Any = None
    status: int = 0
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    answer: Any = None
    error: str = ""
    t: float = 0.0
    seconds: float = 0.0


@dataclass(slots=True)
class Scrubber:
    """Takes out of requests and answers whatever leads to somebody: names become the same stand-ins everywhere."""

    settings: Settings
    _names: dict[str, str] = field(default_factory=dict)
    _uploads: dict[str, str] = field(default_factory=dict)

    def text(self, text: str) -> str:
        """Return a text without them."""
        for pattern, instead in _PATTERNS:
            text = pattern.sub(instead, text)
        ours = self.settings
        for name, instead in (
            (ours.bucket, "BUCKET"),
            (ours.project, "PROJECT"),
            (ours.network.rpartition("/")[2], "NETWORK"),
            (ours.subnetwork.rpartition("/")[2], "SUBNETWORK"),
        ):
            if name:
                text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", instead, text)
        text = _PROJECT.sub(lambda match: f"projects/{self._project(match[1])}", text)
        text = _ADDRESS.sub(lambda match: match[0] if _INNER.match(match[0]) else "192.0.2.1", text)
        return _ADDRESS_6.sub(lambda match: "2001:db8::1" if _outer(match[0]) else match[0], text)

    def _project(self, name: str) -> str:
        if name == "PROJECT" or _PUBLIC.fullmatch(name):
            return name
        return self._names.setdefault(name, "PROJECT" if name.isdecimal() else f"PROJECT-{len(self._names) + 2}")

    def url(self, url: str) -> str:
        """Return the path and query of a URL."""
        parts = split_url(url)
        query = [(key, self._parameter(key, value)) for key, value in parse_qsl(parts.query, keep_blank_values=True)]
        path = self.text(parts.path)
        return f"{path}?{urlencode(query)}" if query else path

    def _parameter(self, key: str, value: str) -> str:
        if key == "upload_id":
            return self._uploads.setdefault(value, f"UPLOAD-{len(self._uploads) + 1}")
        return "(token)" if key in _SECRET_QUERY else self.text(value)

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return the headers that say how something is sent, and no other."""
        kept = {name.lower(): value for name, value in headers.items() if name.lower() in _HEADERS}
        return {
            name: self.url(value) if name == "location" else self.text(value) for name, value in sorted(kept.items())
        }

    def json(self, value: Any, key: str = "") -> Any:
        """Return a value of JSON."""
        match value:
            case dict():
                return {self.text(name): self.json(inner, name) for name, inner in value.items()}
            case list():
                return [self.json(inner, key) for inner in value]
            case str() if key == OWNER_LABEL:
                return "somebody"
            case str() if key in _CONTENT:
                return f"({len(value)} characters)"
            case str() | int() if key in _NUMBERS:
                return "0" if isinstance(value, str) else 0
            case str():
                return self.text(value)
        return value

    def body(self, data: bytes | str | None, length: str | None) -> Any:
        """Return what a body is known by: its JSON, or the number of its bytes."""
        raw = data.encode() if isinstance(data, str) else data
        if isinstance(raw, bytes) and len(raw) <= _BODY_LIMIT:
            with contextlib.suppress(ValueError, RecursionError):
                return self.json(json.loads(raw or b"null"))
        return len(raw) if isinstance(raw, bytes) else int(length or 0)


def _outer(text: str) -> bool:
    """Whether a text is an IPv6 address that is somebody's."""
    try:
        return ipaddress.IPv6Address(text).is_global
    except ValueError:
        return False


class _Recorder:
    def __init__(self, file: IO[bytes], settings: Settings) -> None:
        self._file = file
        self._scrub = Scrubber(settings)
        self._endpoint = settings.endpoint or ""
        self._begun = time.monotonic()
        self._lock = threading.Lock()
        self._full = False
        self._write({"vmtests": "a recording of Compute Engine", "version": VERSION})

    def wants(self, url: str) -> bool:
        """Whether it is a request to one of the APIs; not one for a token, and none to the emulator's own API."""
        if self._endpoint:
            return url.startswith(f"{self._endpoint}/") and "/emulator/v1/" not in url
        return _HOSTS.fullmatch(split_url(url).hostname or "") is not None

    def add(self, request: Any, begun: float, answer: Any, error: str, *, streamed: bool) -> None:
        """Write an exchange down."""
        with self._lock:
            scrub = self._scrub
            data = request.body if isinstance(request.body, bytes | str | None) else b""
            length = request.headers.get("Content-Length")
            done = Exchange(
                method=request.method,
                path=scrub.url(request.url),
                sent=scrub.headers(request.headers),
                body=scrub.body(data, length) if data or request.body is None else int(length or 0),
                error=error,
                t=round(begun - self._begun, 3),
                seconds=round(time.monotonic() - begun, 3),
            )
            if answer is not None:
                done.status = answer.status_code
                done.headers = scrub.headers(answer.headers)
                # What is read as it comes is left to who reads it.
                done.answer = scrub.body(None if streamed else answer.content, answer.headers.get("Content-Length"))
            self._write(msgspec.to_builtins(done))

    def _write(self, value: Any) -> None:
        """Write a line. On a full disk the recording ends, and what is recorded goes on."""
        if self._full:
            return
        rest = json.dumps(value, separators=(",", ":")).encode() + b"\n"
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._full = True
            progress.stderr().print(f"vmtests: the recording ends here: {error.strerror}")


@contextlib.contextmanager
def recording(path: Path, settings: Settings) -> Iterator[None]:
    """Record what is asked of the APIs while the block runs, in a new file that nobody else may read.

    The clients make their sessions themselves and offer no hook, so that requests' own is replaced meanwhile.
    Raises InputError where there is a file already, or none can be made.
    """
    import requests

    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise InputError(f"{path} is there already", hint="name another file with --to") from None
    except OSError as error:
        raise at_named(f"{path} cannot be written", error, "name another file with --to") from error
    # Without a buffer: what a full disk did not take would be written when it is closed.
    with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123 - it is a descriptor
        recorder, real = _Recorder(file, settings), requests.Session.send

        def send(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
            if not recorder.wants(request.url or ""):
                return real(session, request, **options)
            begun, streamed = time.monotonic(), bool(options.get("stream"))
            try:
                answer = real(session, request, **options)
            except requests.RequestException as error:
                recorder.add(request, begun, None, type(error).__name__, streamed=streamed)
                raise
            recorder.add(request, begun, answer, "", streamed=streamed)
            return answer

        requests.Session.send = send  # type: ignore[assignment,method-assign]
        try:
            yield
        finally:
            requests.Session.send = real  # type: ignore[method-assign]


def read(path: Path) -> list[Exchange]:
    """Return the exchanges of a recording, up to a line that was not written whole; raises InputError."""
    head: Any = None
    lines = read_named(path, hint=_HINT).splitlines()
    with contextlib.suppress(ValueError, IndexError, RecursionError):
        head = json.loads(lines[0])
    if not isinstance(head, dict) or "vmtests" not in head:
        raise InputError(f"{path} is no recording", hint=_HINT)
    if head.get("version") != VERSION:
        raise InputError(f"{path} is a recording of another version of vmtests", hint="record it again")
    found = []
    for number, line in enumerate(lines[1:], start=2):
        try:
            found.append(msgspec.json.decode(line, type=Exchange))
        except (msgspec.MsgspecError, RecursionError) as error:
            if number == len(lines):
                break  # whoever wrote it was killed
            raise InputError(f"{path}:{number} is no exchange: {error}") from error
    return found
