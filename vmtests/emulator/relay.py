"""Lets clients on the host reach the ssh of a guest, on an address of its own."""

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from vmtests.emulator.server import listen
from vmtests.errors import HostError

_READ = 64 << 10


class Relay:
    """Listens on `address`:`port` and carries each connection to what `connect` returns; a context manager.

    `connect` raises OSError or HostError when nobody is there: then the client's connection is closed. Raises
    HostError when the address cannot be listened on.
    """

    def __init__(self, address: str, port: int, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        try:
            self._listening = listen(address, port)
        except OSError as error:
            raise HostError(f"{address}:{port} cannot be listened on: {error.strerror}") from error
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closed = False
        self._thread = threading.Thread(target=self._accept, name=f"relay-{address}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it, and every connection that it carries."""
        with self._lock:
            self._closed = True
            for one in self._open:
                _shut(one)
        # accept(2) returns with an error when its socket is shut down.
        _shut(self._listening)
        self._thread.join()
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(client,), name="relay", daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with client:
            try:
                guest = self._connect()
            except (OSError, HostError):
                return
            with guest:
                with self._lock:
                    if self._closed:
                        return
                    self._open |= {client, guest}
                try:
                    _pump(client, guest)
                finally:
                    with self._lock:
                        self._open -= {client, guest}


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


def _pump(client: socket.socket, guest: socket.socket) -> None:
    """Carry bytes both ways, each way to its own end."""
    with selectors.DefaultSelector() as selector, contextlib.suppress(OSError):
        for one, other in ((client, guest), (guest, client)):
            one.settimeout(None)
            selector.register(one, selectors.EVENT_READ, other)
        while selector.get_map():
            for key, _ in selector.select():
                source = key.fileobj
                assert isinstance(source, socket.socket)
                target: socket.socket = key.data
                if data := source.recv(_READ):
                    target.sendall(data)
                else:
                    selector.unregister(source)
                    target.shutdown(socket.SHUT_WR)
