"""HTTP/1.1 on a listening socket, a thread for each connection; bodies are streamed in both directions."""

import contextlib
import hmac
import os
import re
import selectors
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from vmtests.emulator.http import ApiError, FilePart, Reply, Request
from vmtests.sizes import whole

_DRAIN = 64 << 20  # bytes of an unread body that are read away so that the connection can go on
_CHUNK = 256 << 10
_CHUNK_SIZE = re.compile(rb"[0-9a-fA-F]{1,15}")  # RFC 9112, 7.1; one that is negative would have no end
_IDLE_SECONDS = 120.0


class Connection(BaseHTTPRequestHandler):
    """A connection; `server.answer` is asked for each request."""

    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS
    # Header and body go out together, at once.
    wbufsize = 64 << 10
    disable_nagle_algorithm = True
    server: "Server"

    def _serve(self) -> None:
        body = _Body(self)
        try:
            self._refuse_pages()
            self._let_in()
            reply = self.server.answer(Request.of(self.command, self.path, self.headers, body))
        except ApiError as error:
            reply = error.reply()
        if reply.drop:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            return
        if not body.drain():
            self.close_connection = True
        self._send(reply)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 - http.server's names

    def _refuse_pages(self) -> None:
        """Raise ApiError for what a web page made a browser ask: programs name us by our address, and no origin.

        A page whose name leads here (DNS rebinding) is seen by its name in Host, every other by Origin and by
        Sec-Fetch-Site, which pages cannot leave out or change (Fetch standard, forbidden request-headers).
        """
        if (hosts := self.server.hosts) is None:
            return
        host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        site = self.headers.get("Sec-Fetch-Site", "none")
        if (host and host.lower() not in hosts) or "Origin" in self.headers or site != "none":
            raise ApiError(403, "forbidden", "The emulator serves programs of this host, and no web page.")

    def _let_in(self) -> None:
        """Raise ApiError for who does not know the token (RFC 6750, section 2.1)."""
        if (token := self.server.token) is None:
            return
        kind, _, given = self.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
            raise ApiError(401, "authError", "The emulator wants its token: `vmtests emulator` says where it is.")

    def _send(self, reply: Reply) -> None:
        length = reply.body.length if isinstance(reply.body, FilePart) else len(reply.body)
        self.send_response(reply.status)
        for name, value in {"Content-Length": str(length), **reply.headers}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "HEAD":
            return
        if isinstance(reply.body, FilePart):
            self.wfile.flush()
            with reply.body.path.open("rb") as file:
                sent = self.connection.sendfile(file, reply.body.offset, length) if length else 0
            if sent < length:
                self.close_connection = True
        else:
            self.wfile.write(reply.body)

    def handle_expect_100(self) -> bool:
        """Ask for the body: a client that waits for this sends nothing before it."""
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def version_string(self) -> str:
        """Return what goes into the Server header."""
        return self.server.software

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Say nothing: requests are kept by whoever answers them."""

    def handle(self) -> None:
        """Serve requests until the other side, or we, have had enough."""
        with contextlib.suppress(ConnectionError, TimeoutError):
            super().handle()


class _Body:
    """The body of a request, of known length or in chunks (RFC 9112, section 7.1)."""

    def __init__(self, connection: Connection) -> None:
        self._file = connection.rfile
        self._chunked = "chunked" in connection.headers.get("Transfer-Encoding", "").lower()
        text = connection.headers.get("Content-Length", "0")
        self._left = 0 if self._chunked else whole(text) or 0
        self._ended = not self._chunked and self._left == 0

    def read(self, limit: int = -1, /) -> bytes:
        parts: list[bytes] = []
        while not self._ended and limit != 0:
            if self._left == 0 and not self._next_chunk():
                break
            data = self._file.read(min(self._left, _CHUNK if limit < 0 else min(limit, _CHUNK)))
            if not data:
                raise ConnectionResetError("the body ended early")
            self._left -= len(data)
            if limit > 0:
                limit -= len(data)
            parts.append(data)
            if self._left == 0 and not self._chunked:
                self._ended = True
            elif self._left == 0:
                self._file.readline(8)
        return b"".join(parts)

    def _next_chunk(self) -> bool:
        line = self._file.readline(1 << 10).split(b";")[0].strip()
        if not _CHUNK_SIZE.fullmatch(line):
            raise ConnectionResetError("no size of a chunk")
        self._left = int(line, 16)
        if self._left == 0:
            while self._file.readline(1 << 14).strip():
                pass
            self._ended = True
        return not self._ended

    def drain(self) -> bool:
        """Read away what is left; return False when that is too much, and the connection has to be closed."""
        for _ in range(_DRAIN // _CHUNK):
            if not self.read(_CHUNK):
                return True
        return self._ended


class Server(ThreadingHTTPServer):
    """Serves a socket that listens already, in threads of its own; a context manager.

    Leaving it closes every connection, those in the middle of a reply too. Of more than `limit` connections at a time
    the newest are closed unanswered. With `hosts`, the names that a request may call us by, no web page is served;
    with `token` nobody who does not know it.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        listening: socket.socket,
        answer: Callable[[Request], Reply],
        *,
        software: str,
        limit: int = 512,
        hosts: frozenset[str] | None = None,
        token: str | None = None,
    ) -> None:
        address: tuple[str, int] = listening.getsockname()[:2]
        super().__init__(address, Connection, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.software = software
        self.answer = answer
        self.hosts = hosts
        self.token = token
        self._connections: set[socket.socket] = set()
        self._limit = limit
        self._lock = threading.Lock()
        self._stop_in, self._stop_out = os.pipe()
        self._thread = threading.Thread(target=self._accept, name=f"http-{address[1]}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._stop_in)
        self._thread.join()
        os.close(self._stop_out)
        self.server_close()
        with self._lock:
            open_now = list(self._connections)
        for connection in open_now:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        # socketserver's own loop looks twice a second whether it is to end; this one is told.
        with selectors.DefaultSelector() as selector:
            selector.register(self.socket, selectors.EVENT_READ)
            selector.register(self._stop_out, selectors.EVENT_READ)
            while not any(key.fileobj == self._stop_out for key, _ in selector.select()):
                self._handle_request_noblock()  # type: ignore[attr-defined]

    def process_request_thread(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # type: ignore[override]
        """Serve one connection."""
        with self._lock:
            if len(self._connections) >= self._limit:
                self.shutdown_request(request)
                return
            self._connections.add(request)
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._connections.discard(request)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an IPv4 address; raises OSError."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(128)
    except BaseException:
        listening.close()
        raise
    return listening
