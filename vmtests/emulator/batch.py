"""Batch requests: several requests of one API in one multipart body, as gcloud sends them.

The format is that of Google's "Batching requests": each part has the type `application/http`, and its reply the same
Content-ID with `response-` in front.
"""

import email.parser
import http
import io
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email.message import Message

from vmtests.emulator.http import ApiError, FilePart, Reply, Request

_LIMIT = 8 << 20  # bytes of a body
_PARTS = 1000  # what Google's services take at most


def answer(request: Request, handle: Callable[[Request], Reply]) -> Reply:
    """Answer every request of a batch by `handle`, all at once: some may wait for others. Raises ApiError."""
    body = request.body.read(_LIMIT + 1)
    kind = request.headers.get("Content-Type", "")
    try:
        message = email.parser.BytesParser().parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
    except RecursionError as error:
        raise ApiError(400, "badRequest", "A batch holds requests, and no batches.") from error
    parts = message.get_payload() if message.is_multipart() else []
    if len(body) > _LIMIT or not parts or len(parts) > _PARTS:
        raise ApiError(400, "badRequest", f"A batch is multipart/mixed, with 1 to {_PARTS} parts.")
    inner = [(str(part.get("Content-ID", "")), _request(part)) for part in parts if isinstance(part, Message)]
    with ThreadPoolExecutor(max_workers=len(inner), thread_name_prefix="batch") as pool:
        replies = list(pool.map(lambda pair: _safe(handle, pair[1]), inner))
    if any(reply.drop for reply in replies):
        return Reply(drop=True)
    boundary = f"batch_{secrets.token_hex(12)}"
    written = b"".join(
        b"--%s\r\n%s" % (boundary.encode(), _part(content_id, reply))
        for (content_id, _), reply in zip(inner, replies, strict=True)
    )
    return Reply(
        headers={"Content-Type": f"multipart/mixed; boundary={boundary}"},
        body=written + f"--{boundary}--\r\n".encode(),
    )


def _safe(handle: Callable[[Request], Reply], request: Request | ApiError) -> Reply:
    return request.reply() if isinstance(request, ApiError) else handle(request)


def _request(part: Message) -> Request | ApiError:
    payload = part.get_payload(decode=True)
    data = payload if isinstance(payload, bytes) else b""
    line, _, rest = data.lstrip().partition(b"\n")
    words = line.decode("latin-1").split()
    if len(words) < 2:
        return ApiError(400, "badRequest", "A part of the batch is no request.")
    head, _, body = rest.replace(b"\r\n", b"\n").partition(b"\n\n")
    headers = email.parser.Parser().parsestr(head.decode("latin-1"))
    return Request.of(words[0], words[1], headers, io.BytesIO(body))


def _part(content_id: str, reply: Reply) -> bytes:
    body = b"" if isinstance(reply.body, FilePart) else reply.body
    reference = content_id.strip("<>")
    lines = [
        "Content-Type: application/http",
        f"Content-ID: <response-{reference}>",
        "",
        f"HTTP/1.1 {reply.status} {http.HTTPStatus(reply.status).phrase}",
        *(f"{name}: {value}" for name, value in reply.headers.items()),
        f"Content-Length: {len(body)}",
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + body + b"\r\n"
