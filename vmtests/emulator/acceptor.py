"""Connections that are accepted on a socket, each served in a thread of its own."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self


class Acceptor:
    """Accepts on `listening`, which it owns, and has `serve` called with each connection; a context manager.

    Leaving it shuts every connection down: whoever reads one finds its end.
    """

    def __init__(self, listening: socket.socket, serve: Callable[[socket.socket], None], name: str) -> None:
        self._listening = listening
        self._serve = serve
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closed = False
        self._thread = threading.Thread(target=self._accept, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._closed = True
            # accept(2) returns with an error when its socket is shut down.
            for one in (self._listening, *self._open):
                _shut(one)
        self._thread.join()
        self._listening.close()

    @contextlib.contextmanager
    def holding(self, connection: socket.socket) -> Iterator[None]:
        """Shut `connection` down too, when this is left meanwhile; close it in the end."""
        with connection:
            with self._lock:
                self._open.add(connection)
                if self._closed:
                    _shut(connection)
            try:
                yield
            finally:
                with self._lock:
                    self._open.discard(connection)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._run, args=(client,), name=self._thread.name, daemon=True).start()

    def _run(self, client: socket.socket) -> None:
        with self.holding(client):
            self._serve(client)


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
