"""Holds the emulator against a recording of the cloud: the same requests are made, and the answers' shapes compared.

What an answer says changes from run to run; which fields it has, and of which types, does not. Fields that come and go
with time (an operation's `endTime`) are no difference: all answers of a method are taken together.
"""

import contextlib
import json
import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from email.message import Message
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from vmtests import progress
from vmtests.emulator.emulator import Emulator
from vmtests.emulator.http import ApiError, Request
from vmtests.errors import InputError
from vmtests.gce.record import Exchange
from vmtests.image import archive
from vmtests.sizes import GIB
from vmtests.text import printable, split_url

_BUCKET = "held-against-a-recording"
_STAND_INS = {"PROJECT": "emulated", "BUCKET": _BUCKET}
_STAND_IN = re.compile(r"(?<![\w-])(?:PROJECT|BUCKET)(?![\w-])")
_UPLOAD = re.compile(r"upload_id=(UPLOAD-\d+)")
_NAME = re.compile(r"[A-Za-z0-9_.-]{6,200}")
_PART = 256 << 10  # bytes of which the parts of an upload have to be a multiple
_TOLD = ("content-type", "x-upload-content-type")
_BUSY = frozenset((0, 408, 429))
_WAIT_SECONDS, _LOOK_SECONDS = 60.0, 0.05
# What is known by its name, or by a zone's, and not by what fields there are.
_MAPS = re.compile(r"\.(?:labels|metadata|items)$")

Shape = dict[str, set[str]]


class Holder:
    """Asks an emulator what a recording has asked; `differences` says how its answers differ."""

    def __init__(self, emulator: Emulator) -> None:
        import requests

        self._emulator = emulator
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {emulator.token}"
        self._names: dict[str, str] = {}
        self._uploads: dict[str, _Upload] = {}
        self._recorded: dict[tuple[str, int], Shape] = {}
        self._given: dict[tuple[str, int], Shape] = {}
        self._statuses: list[str] = []
        self.asked = self.left_out = 0

    def hold(self, exchanges: list[Exchange]) -> list[str]:
        """Make all the requests, and return the differences, one a line."""
        parts = Counter(match[1] for one in exchanges if one.method == "PUT" and (match := _UPLOAD.search(one.path)))
        self._uploads = {name: _Upload(count) for name, count in parts.items()}
        self._prepare(exchanges)
        with progress.step("holding the emulator against the recording") as running, contextlib.ExitStack() as stack:
            stack.callback(self._session.close)
            for number, exchange in enumerate(exchanges, start=1):
                running.note(f"{number} of {len(exchanges)}")
                if exchange.status in _BUSY or exchange.status >= 500:
                    self.left_out += 1
                else:
                    self.asked += 1
                    self._ask(number, exchange)
        return [*self._statuses, *self._differences()]

    def _prepare(self, exchanges: list[Exchange]) -> None:
        """Make the bucket, where it was there before the recording began."""
        first = next((one for one in exchanges if one.path.startswith("/storage/v1/b/BUCKET")), None)
        if first is not None and first.status == 200:
            self._send("POST", "/storage/v1/b?project=PROJECT", {}, json.dumps({"name": _BUCKET}).encode())

    def _ask(self, number: int, exchange: Exchange) -> None:
        headers = {name: value for name, value in exchange.sent.items() if name in _TOLD}
        if isinstance(exchange.body, dict) and "storage" in exchange.path:
            exchange.body = {key: value for key, value in exchange.body.items() if key not in ("crc32c", "md5Hash")}
        body = None if exchange.body is None else json.dumps(exchange.body).encode()
        upload = self._uploads.get(match[1]) if (match := _UPLOAD.search(exchange.path)) else None
        if upload is not None and exchange.method == "PUT":
            headers, body = upload.part(exchange)
        answer = self._send(exchange.method, exchange.path, headers, body)
        given = _json(answer.content)
        if upload is not None and answer.status_code < 400:
            upload.went(body)
        if exchange.status == 200 and (location := exchange.headers.get("location", "")):
            self._learn_upload(location, answer.headers.get("Location", ""))
        method = self._method(exchange)
        if answer.status_code != exchange.status:
            said = given.get("error", {}).get("message", "") if isinstance(given, dict) else ""
            because = f" ({said})" if said else ""
            self._statuses.append(
                f"request {number}, {method}: {exchange.status} was recorded, "
                f"and the emulator answers with {answer.status_code}{because}"
            )
            return
        if isinstance(exchange.answer, dict) and isinstance(given, dict):
            given = self._wait(exchange.answer, given)
            if "generation" in exchange.answer and "generation" in given:  # an object is deleted by that
                self._learn(str(exchange.answer["generation"]), str(given["generation"]))
        for known, value in ((self._recorded, exchange.answer), (self._given, given)):
            if isinstance(value, dict | list):
                _note(known.setdefault((method, exchange.status), {}), "", value)

    def _learn_upload(self, recorded: str, given: str) -> None:
        names = [parse_qs(split_url(url).query).get("upload_id") for url in (recorded, given)]
        if names[0] and names[1]:
            self._learn(names[0][0], names[1][0])

    def _learn(self, recorded: str, name: str) -> None:
        if _NAME.fullmatch(recorded):
            self._names[recorded] = name

    def _wait(self, recorded: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
        """Learn an operation's name here, and wait for its end where that was seen there."""
        if "operation" not in str(recorded.get("kind", "")) or "name" not in given or "name" not in recorded:
            return given
        self._learn(str(recorded["name"]), str(given["name"]))
        deadline = time.monotonic() + _WAIT_SECONDS
        while recorded.get("status") == "DONE" and given.get("status") != "DONE" and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
            link = split_url(str(given.get("selfLink", "")))
            given = _json(self._send("GET", link.path, {}, None).content) or given
        return given

    def _send(self, method: str, path: str, headers: dict[str, str], body: bytes | None) -> Any:
        path = self._here(path)
        data = None if body is None else self._here(body.decode()).encode() if _is_text(headers) else body
        import requests

        try:
            return self._request(method, path, headers, data)
        except requests.RequestException as error:
            raise InputError(
                f"{method} {printable(path, 200)} of the recording cannot be asked: {printable(str(error), 200)}"
            ) from error

    def _request(self, method: str, path: str, headers: dict[str, str], data: bytes | None) -> Any:
        return self._session.request(
            method,
            f"{self._emulator.endpoint}{path}",
            headers=headers,
            data=data,
            timeout=_WAIT_SECONDS,
            allow_redirects=False,
        )

    def _here(self, text: str) -> str:
        """Return a text with the names that there are here."""
        if self._names:
            # In one go: what was put in is not looked at again.
            known = re.compile("|".join(re.escape(name) for name in sorted(self._names, key=len, reverse=True)))
            text = known.sub(lambda match: self._names[match[0]], text)
        return _STAND_IN.sub(lambda match: _STAND_INS[match[0]], text)

    def _method(self, exchange: Exchange) -> str:
        with contextlib.suppress(ApiError):
            request = Request.of(exchange.method, exchange.path, Message(), BytesIO())
            for router in self._emulator.api.routers:
                if found := router.find(request):
                    return found[0].id
        return f"{exchange.method} {exchange.path.partition('?')[0]}"

    def _differences(self) -> Iterator[str]:
        for key, recorded in self._recorded.items():
            method, status = key
            name = method if status < 300 else f"{method} ({status})"
            given = self._given.get(key, {})
            for path in _tops(recorded.keys() - given.keys()):
                yield f"{name}: the emulator's answer has no {path} ({_types(recorded[path])})"
            for path in _tops(given.keys() - recorded.keys()):
                yield f"{name}: the emulator's answer has {path} ({_types(given[path])}), which was not recorded"
            for path in sorted(recorded.keys() & given.keys()):
                if recorded[path] != given[path]:
                    yield f"{name}: {path} is {_types(given[path])}, and was recorded as {_types(recorded[path])}"


class _Upload:
    """A resumable upload of a disk of our own, in as many parts as the recorded one had."""

    def __init__(self, parts: int) -> None:
        with tempfile.TemporaryDirectory() as directory, progress.step("a disk to upload") as running:
            disk = Path(directory) / "disk.raw"
            with disk.open("wb") as file:
                # It packs badly, so that there is something for each part.
                file.write(os.urandom(parts * _PART))
                file.truncate(GIB)
            packed = BytesIO()
            archive.write(disk, packed, running)
        self._data = packed.getvalue()
        self._sent = 0

    def part(self, exchange: Exchange) -> tuple[dict[str, str], bytes]:
        """Return the headers and the body that stand for a recorded part."""
        said, total = exchange.sent.get("content-range", ""), len(self._data)
        if said.startswith("bytes */"):
            return {"Content-Range": f"bytes */{total}"}, b""
        data = self._data[self._sent :] if exchange.status != 308 else self._data[self._sent :][:_PART]
        size = "*" if exchange.status == 308 else str(total)
        return {"Content-Range": f"bytes {self._sent}-{self._sent + len(data) - 1}/{size}"}, data

    def went(self, body: bytes | None) -> None:
        """Go on behind a part that has arrived."""
        self._sent += len(body or b"")


def _is_text(headers: dict[str, str]) -> bool:
    return "Content-Range" not in headers


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _note(shape: Shape, path: str, value: Any) -> None:
    """Add the fields of a value, and their types."""
    kinds = {dict: "object", list: "list", str: "text", bool: "boolean", int: "number", float: "number"}
    if path:
        shape.setdefault(path, set()).add(kinds.get(type(value), "null"))
    if isinstance(value, dict):
        for name, inner in value.items():
            _note(shape, f"{path}.*" if _MAPS.search(path) else f"{path}.{name}", inner)
    elif isinstance(value, list):
        for inner in value:
            _note(shape, f"{path}[]", inner)


def _tops(paths: set[str]) -> list[str]:
    """Return the paths that are in no other one."""
    return sorted(path for path in paths if not any(path.startswith((f"{one}.", f"{one}[")) for one in paths))


def _types(types: set[str]) -> str:
    return " or ".join(sorted(types))
