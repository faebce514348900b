"""Uploads to Cloud Storage: simple, multipart and resumable, as its JSON API describes them; all are streamed."""

import json
import re
import secrets
import threading
from dataclasses import dataclass
from email.message import Message

from vmtests.emulator.content import Content, parse_hash_header
from vmtests.emulator.http import ApiError, Body, Json, Reply, Request
from vmtests.emulator.objects import Objects

_CHUNK = 1 << 20
_METADATA = 1 << 20  # bytes; an object's own metadata has 8 KiB at most
_CONTENT_RANGE = re.compile(r"bytes (?:(?P<first>[0-9]{1,18})-(?P<last>[0-9]{1,18})|\*)/(?P<total>[0-9]{1,18}|\*)")
_CANCELLED = 499  # what Cloud Storage answers to the cancellation of an upload


@dataclass(slots=True, kw_only=True)
class _Session:
    """A resumable upload; requests on it take turns."""

    request: Request
    bucket: str
    name: object
    given: Json
    content: Content
    turn: threading.Lock
    done: Json | None = None


class Uploads:
    """Takes uploads into `objects`; `endpoint` is the address that sessions are given out under."""

    def __init__(self, objects: Objects, endpoint: str) -> None:
        self._objects = objects
        self._endpoint = endpoint
        self._sessions: dict[str, _Session] = {}

    def post(self, request: Request) -> Json | Reply:
        """Take a whole object, or begin a resumable upload (`storage.objects.insert`)."""
        kind = request.query.get("uploadType")
        if kind == "media":
            given = {"contentType": request.headers.get("Content-Type", "application/octet-stream")}
            return self._whole(request, given, request.body)
        if kind == "multipart":
            given, media = _parts(request)
            return self._whole(request, given, media)
        if kind == "resumable":
            return self._begin(request)
        raise ApiError(400, "invalid", f"Invalid upload type: {kind}")

    def put(self, request: Request) -> Json | Reply:
        """Take a chunk of a resumable upload, or say how much has come."""
        session = self._session(request)
        with session.turn:
            if session.done is not None:
                return session.done
            first, total = _content_range(request)
            received = session.content.size
            if "Content-Range" not in request.headers:
                session.content.take(request.body)
                total = session.content.size
            elif first is not None:
                if first > received:
                    message = f"Invalid request: {received} bytes have come, and the chunk begins at {first}."
                    raise ApiError(400, "invalid", message)
                # What was sent before is sent again after a lost answer.
                _skip(request.body, received - first)
                session.content.take(request.body)
            if total is None or session.content.size < total:
                size = session.content.size
                return Reply(status=308, headers={"Range": f"bytes=0-{size - 1}"} if size else {})
            return self._finish(session, request, total)

    def delete(self, request: Request) -> Reply:
        """Cancel a resumable upload."""
        session = self._session(request)
        with session.turn:
            if session.done is None:
                session.content.discard()
            self._sessions.pop(request.query["upload_id"], None)
        return Reply(status=_CANCELLED)

    def close(self) -> None:
        """Forget the uploads that were not finished, as Cloud Storage does after a week."""
        for session in self._sessions.values():
            if session.done is None:
                session.content.discard()
        self._sessions.clear()

    def _whole(self, request: Request, given: Json, media: Body) -> Json:
        content = self._objects.new_content()
        try:
            content.take(media)
            content.check({**given, **parse_hash_header(request.headers.get("X-Goog-Hash", ""))})
            name = request.query.get("name") or given.get("name")
            return self._objects.put(request, request.params["bucket"], name, given, content)
        except BaseException:
            content.discard()
            raise

    def _begin(self, request: Request) -> Reply:
        given = request.json()
        if kind := request.headers.get("X-Upload-Content-Type"):
            given.setdefault("contentType", kind)
        bucket = request.params["bucket"]
        # A bucket that is not there is told at once, not after a gigabyte.
        self._objects.get_bucket(request)
        upload_id = secrets.token_urlsafe(48)
        self._sessions[upload_id] = _Session(
            request=request,
            bucket=bucket,
            name=request.query.get("name") or given.get("name"),
            given=given,
            content=self._objects.new_content(),
            turn=threading.Lock(),
        )
        location = f"{self._endpoint}{request.path}?uploadType=resumable&upload_id={upload_id}"
        return Reply(headers={"Location": location, "X-GUploader-UploadID": upload_id})

    def _session(self, request: Request) -> _Session:
        session = self._sessions.get(request.query.get("upload_id", ""))
        if session is None:
            raise ApiError(404, "notFound", "Not Found: no such upload")
        return session

    def _finish(self, session: _Session, request: Request, total: int) -> Json:
        content = session.content
        if content.size != total:
            raise ApiError(400, "invalid", f"{content.size} bytes have come for an object of {total}.")
        try:
            content.check({**session.given, **parse_hash_header(request.headers.get("X-Goog-Hash", ""))})
            session.done = self._objects.put(session.request, session.bucket, session.name, session.given, content)
        except ApiError:
            content.discard()
            self._sessions.pop(request.query["upload_id"], None)
            raise
        return session.done


def _content_range(request: Request) -> tuple[int | None, int | None]:
    """Return where the chunk begins (None when there is none) and the size of the whole, when it is known."""
    text = request.headers.get("Content-Range", "bytes */*")
    match = _CONTENT_RANGE.fullmatch(text)
    if match is None:
        raise ApiError(400, "invalid", f"Invalid value for header 'Content-Range': '{text}'.")
    total = None if match["total"] == "*" else int(match["total"])
    return None if match["first"] is None else int(match["first"]), total


def _skip(body: Body, count: int) -> None:
    while count > 0 and (data := body.read(min(count, _CHUNK))):
        count -= len(data)


def _parts(request: Request) -> tuple[Json, "_Media"]:
    """Read the first part of a multipart/related body, which describes the object, and return it and the second."""
    message = Message()
    message["Content-Type"] = request.headers.get("Content-Type", "")
    boundary = message.get_param("boundary")
    if message.get_content_type() != "multipart/related" or not isinstance(boundary, str):
        raise ApiError(400, "badContent", "A multipart/related body with a boundary is needed.")
    # gcloud puts the boundary in single quotes and ends lines with LF alone, both against RFC 2046.
    delimiter = b"--" + boundary.strip("'").encode()
    reader = _Reader(request.body)
    reader.until(delimiter)
    line_end = b"\r\n" if reader.until(b"\n").endswith(b"\r") else b"\n"
    reader.until(line_end * 2)
    try:
        given = json.loads(reader.until(line_end + delimiter))
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "parseError", f"Parse Error: {error}") from error
    if not isinstance(given, dict):
        raise ApiError(400, "parseError", "Parse Error: the metadata is not a JSON object")
    headers = reader.until(line_end * 2).decode("latin-1")
    for line in headers.splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-type":
            given.setdefault("contentType", value.strip())
    return given, _Media(reader, line_end + delimiter + b"--")


class _Reader:
    """Reads a body up to marks that stand near its beginning."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._buffer = b""

    def until(self, mark: bytes) -> bytes:
        """Return what stands before the next `mark`, and go on behind it."""
        while (at := self._buffer.find(mark)) < 0:
            data = self._body.read(_CHUNK)
            if not data or len(self._buffer) > _METADATA:
                raise ApiError(400, "badContent", "The multipart body is malformed.")
            self._buffer += data
        head, self._buffer = self._buffer[:at], self._buffer[at + len(mark) :]
        return head

    def read(self, limit: int) -> bytes:
        """Return bytes behind the last mark, nothing at the end."""
        if self._buffer:
            data, self._buffer = self._buffer[:limit], self._buffer[limit:]
            return data
        return self._body.read(limit)


class _Media:
    """The last part of a multipart body, without the delimiter at its end; read in pieces."""

    def __init__(self, reader: _Reader, end: bytes) -> None:
        self._reader = reader
        self._end = end
        self._tail = b""
        self._ended = False

    def read(self, limit: int = -1, /) -> bytes:
        """Return the next piece; what could be the delimiter is held back until it is known."""
        del limit
        while not self._ended:
            data = self._reader.read(_CHUNK)
            self._tail += data
            if not data:
                self._ended = True
                # Behind the delimiter at most a line end may stand; in front of it, anything.
                at = self._tail.rfind(self._end)
                if at < 0:
                    raise ApiError(400, "badContent", "The multipart body has no end.")
                return self._tail[:at]
            if ready := self._tail[: -len(self._end) - 4]:
                self._tail = self._tail[-len(self._end) - 4 :]
                return ready
        return b""
