"""The metadata server, as a guest sees it at 169.254.169.254 (Compute Engine's "VM metadata" pages)."""

import hashlib
import json
import re
import threading
from collections.abc import Callable

from vmtests.emulator.http import Json, Reply, Request
from vmtests.sizes import whole

ADDRESS = "169.254.169.254"
"""Where a guest finds it, on port 80."""

_FLAVOR = {"Metadata-Flavor": "Google"}
_ROOT = "/computeMetadata/v1/"
_ATTRIBUTES = ("attributes", "guestAttributes")
_GUEST_LIMIT = 1 << 20  # bytes, of all that a guest may say
_ATTRIBUTE = re.compile(r"[A-Za-z0-9._-]{1,128}")
_TIMEOUT = 3600

GuestAttributes = dict[str, dict[str, str]]
"""What a guest has said, by namespace and key."""


class Metadata:
    """Answers the guest of one instance.

    `tree` returns all that there is to say, as the recursive JSON of the server; it is called with `changed` held,
    which is notified when it may say something else. `guest_attributes` is None when the guest may not write any.
    """

    def __init__(
        self,
        changed: threading.Condition,
        tree: Callable[[], Json],
        guest_attributes: Callable[[], GuestAttributes | None],
        closing: threading.Event,
    ) -> None:
        self._changed = changed
        self._tree = tree
        self._guest_attributes = guest_attributes
        self._closing = closing

    def answer(self, request: Request) -> Reply:
        """Answer a request of the guest."""
        if "X-Forwarded-For" in request.headers:
            return _text(403, "Requests with X-Forwarded-For are refused.\n")
        if request.path in {"", "/"}:
            return _text(200, "computeMetadata/\n")
        if request.path.rstrip("/") == "/computeMetadata":
            return _text(200, "v1/\n")
        if request.headers.get("Metadata-Flavor") != "Google":
            return _text(403, "Missing required header: Metadata-Flavor: Google\n")
        if not f"{request.path}/".startswith(_ROOT):
            return _text(404, "Not found\n")
        path = [part for part in request.path.removeprefix(_ROOT.rstrip("/")).split("/") if part]
        if path[:2] == ["instance", "guest-attributes"] and (request.method != "GET" or len(path) > 2):
            return self._guest_attribute(request, path[2:])
        if request.method != "GET":
            return _text(405, "Method not allowed\n")
        return self._get(request, path)

    def _get(self, request: Request, path: list[str]) -> Reply:
        if request.flag("wait_for_change"):
            return self._wait(request, path)
        with self._changed:
            return self._look(request, path)

    def _wait(self, request: Request, path: list[str]) -> Reply:
        timeout = min(request.number("timeout_sec", _TIMEOUT), _TIMEOUT)
        with self._changed:
            reply = self._look(request, path)
            seen = request.query.get("last_etag", reply.headers.get("ETag"))

            def news() -> bool:
                nonlocal reply
                reply = self._look(request, path)
                return self._closing.is_set() or reply.headers.get("ETag") != seen

            self._changed.wait_for(news, timeout)
            return reply

    def _look(self, request: Request, path: list[str]) -> Reply:
        value: object = self._tree()
        under = ""
        for part in path:
            name = part if under in _ATTRIBUTES else _camel(part)
            if isinstance(value, dict) and name in value:
                value = value[name]
            elif isinstance(value, list) and (place := whole(part)) is not None and place < len(value):
                value = value[place]
            else:
                return _text(404, "Not found\n")
            under = name
        recursive = request.flag("recursive")
        if _is_directory(value) and not request.path.endswith("/") and not recursive:
            return Reply(status=301, headers={**_FLAVOR, "Location": f"{request.path}/"})
        alt = request.query.get("alt", "json" if recursive else "text")
        if alt == "json":
            kind, text = "application/json", json.dumps(value)
        elif recursive:
            kind, text = "application/text", "".join(f"{line}\n" for line in _lines(value, "", under))
        else:
            kind, text = "application/text", _listing(value, under)
        etag = hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
        return Reply(headers={**_FLAVOR, "Content-Type": kind, "ETag": etag}, body=text.encode())

    def _guest_attribute(self, request: Request, path: list[str]) -> Reply:
        # Before the lock is taken: a guest whose body comes slowly, or never, holds up nobody else.
        data = request.body.read(_GUEST_LIMIT + 1) if request.method == "PUT" else b""
        with self._changed:
            attributes = self._guest_attributes()
            if attributes is None:
                return _text(403, "Guest attributes endpoint access is disabled.\n")
            if len(path) != 2 or not all(_ATTRIBUTE.fullmatch(part) for part in path):
                return self._guest_directory(request, attributes, path)
            namespace, key = path
            if request.method == "PUT":
                kept = sum(len(key) + len(value) for values in attributes.values() for key, value in values.items())
                if len(data) + len(key) + kept > _GUEST_LIMIT:
                    return _text(413, "There are too many guest attributes.\n")
                attributes.setdefault(namespace, {})[key] = data.decode(errors="replace")
                self._changed.notify_all()
                return _text(200, "")
            known = attributes.get(namespace, {})
            if key not in known:
                return _text(404, "Not found\n")
            if request.method == "DELETE":
                del known[key]
                return _text(200, "")
            return _text(200, known[key])

    def _guest_directory(self, request: Request, attributes: GuestAttributes, path: list[str]) -> Reply:
        if request.method != "GET" or len(path) != 1 or path[0] not in attributes:
            return _text(404, "Not found\n")
        return _text(200, "".join(f"{key}\n" for key in sorted(attributes[path[0]])))


def _text(status: int, text: str) -> Reply:
    return Reply(status=status, headers={**_FLAVOR, "Content-Type": "application/text"}, body=text.encode())


def _camel(name: str) -> str:
    return re.sub(r"-([a-z])", lambda match: match[1].upper(), name)


def _kebab(name: str) -> str:
    return re.sub(r"[A-Z]", lambda match: f"-{match[0].lower()}", name)


def _is_directory(value: object) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(item, dict) for item in value))


def _entries(value: object, under: str) -> list[tuple[str, str, object]]:
    """Return the entries of a directory: name as the guest writes it, name in JSON, value."""
    if isinstance(value, dict):
        return [(name if under in _ATTRIBUTES else _kebab(name), name, inner) for name, inner in value.items()]
    assert isinstance(value, list)
    return [(str(index), under, inner) for index, inner in enumerate(value)]


def _leaf(value: object) -> str:
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _listing(value: object, under: str) -> str:
    if not _is_directory(value):
        return _leaf(value)
    return "".join(
        f"{shown}/\n" if _is_directory(inner) else f"{shown}\n" for shown, _, inner in _entries(value, under)
    )


def _lines(value: object, prefix: str, under: str) -> list[str]:
    if not _is_directory(value):
        return [f"{prefix} {_leaf(value)}"]
    return [
        line
        for shown, name, inner in _entries(value, under)
        for line in _lines(inner, f"{prefix}/{shown}" if prefix else shown, name)
    ]
