"""Lets clients on the host reach the ssh of a guest, on an address of its own."""

import contextlib
import selectors
import socket
from collections.abc import Callable

from vmtests.emulator.acceptor import Acceptor
from vmtests.emulator.server import listen
from vmtests.errors import HostError, VmtestsError

_READ = 64 << 10


class Relay(Acceptor):
    """Listens on `address`:`port` and carries each connection to what `connect` returns; a context manager.

    `connect` raises OSError or HostError when nobody is there: then the client's connection is closed. Raises
    HostError when the address cannot be listened on.
    """

    def __init__(self, address: str, port: int, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        try:
            listening = listen(address, port)
        except OSError as error:
            raise HostError(f"{address}:{port} cannot be listened on: {error.strerror}") from error
        super().__init__(listening, self._carry, f"relay-{address}")

    def _carry(self, client: socket.socket) -> None:
        try:
            guest = self._connect()
        except (OSError, VmtestsError):
            return
        with self.holding(guest):
            _pump(client, guest)


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
