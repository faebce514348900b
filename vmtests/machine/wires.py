"""The thread that reads everything a machine writes, and never waits for anyone.

Serial ports, the firmware's debug port and standard error are read as they come. A person or a program can
tap a serial port; a tap that is not read is dropped, because a guest whose console nobody drains stands
still.
"""

import contextlib
import os
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from vmtests.errors import HostError

TAP_LIMIT = 4 << 20
"""Bytes that may wait for the consumer of a tap, besides what its socket holds, before it is dropped."""

_TYPED_LIMIT = 64 << 10  # bytes for the guest that wait for its UART; a tap is not read while there are more
_READ = 64 << 10


@dataclass(slots=True, eq=False)
class _Port:
    """Our end of a serial port."""

    end: socket.socket
    on_data: Callable[[bytes], None] | None
    typed: bytearray = field(default_factory=bytearray)
    taps: "list[_Tap]" = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Tap:
    """Our end of a tap, and the bytes that its consumer has not taken yet."""

    end: socket.socket
    port: _Port
    pending: bytearray = field(default_factory=bytearray)


class Wires:
    """Reads a machine's outputs in one thread until all of them have ended.

    Every callback is called in that thread. `on_dead` is called when it ends, for whatever reason.
    """

    def __init__(self, *, name: str, on_dead: Callable[[], None]) -> None:
        self._selector = selectors.DefaultSelector()
        self._ports: list[_Port] = []
        self._sources = 0
        self._inbox: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()
        self._ended = False
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._selector.register(self._wake_out, selectors.EVENT_READ, self._woken)
        self._has_mail = False
        self._on_dead = on_dead
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def add_port(self, end: socket.socket, on_data: Callable[[bytes], None] | None) -> None:
        """Read a serial port; ports are numbered as they are added. Before `start` only."""
        end.setblocking(False)
        port = _Port(end=end, on_data=on_data)
        self._ports.append(port)
        self._sources += 1
        self._selector.register(end, selectors.EVENT_READ, lambda mask: self._port_ready(port, mask))

    def add_reader(self, end: int, on_data: Callable[[bytes], None]) -> None:
        """Read a descriptor to its end and close it. Before `start` only."""
        os.set_blocking(end, False)
        self._sources += 1
        self._selector.register(end, selectors.EVENT_READ, lambda _: self._reader_ready(end, on_data))

    def start(self) -> None:
        """Start reading."""
        self._thread.start()

    def join(self) -> None:
        """Wait until everything has been read; without `start`, close everything unread.

        Everybody who writes must have ended.
        """
        if self._thread.ident is not None:
            self._thread.join()
        else:
            self._close_all()

    def post(self, action: Callable[[], None]) -> bool:
        """Have `action` called in the reader's thread, after the bytes that came before it.

        Return False, and call nothing, when the reader has ended.
        """
        with self._lock:
            if self._ended:
                return False
            self._inbox.append(action)
            # A full wake socket wakes too.
            with contextlib.suppress(BlockingIOError):
                self._wake_in.send(b"\0")
        return True

    def tap(self, number: int) -> socket.socket:
        """Return a socket that gets a copy of all bytes of a port from now on; what it sends is typed.

        It reads end of file when the machine has ended. Closing it detaches it.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        tap = _Tap(end=ours, port=self._ports[number])
        if not self.post(lambda: self._attach(tap)):
            ours.close()
        return theirs

    def send(self, number: int, data: bytes) -> None:
        """Send bytes to the guest through a port; raises HostError when the machine has ended."""
        port = self._ports[number]
        if not self.post(lambda: self._type(port, data)):
            raise HostError("nothing can be sent to the guest: the machine has ended")

    def _run(self) -> None:
        try:
            while self._sources:
                self._handle(None)
                if self._has_mail:
                    # What was written before the letter was posted is in the sockets by now.
                    self._handle(0)
                    self._read_mail()
        finally:
            self._close_all()
            self._on_dead()

    def _handle(self, timeout: float | None) -> None:
        for key, mask in self._selector.select(timeout):
            # An earlier callback of this round may have closed this one.
            if key.fd in self._selector.get_map():
                key.data(mask)

    def _woken(self, _mask: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake_out.recv(_READ):
                pass
        self._has_mail = True

    def _read_mail(self) -> None:
        self._has_mail = False
        while self._inbox:
            self._inbox.popleft()()

    def _reader_ready(self, end: int, on_data: Callable[[bytes], None]) -> None:
        if data := os.read(end, _READ):
            on_data(data)
            return
        self._selector.unregister(end)
        os.close(end)
        self._sources -= 1

    def _port_ready(self, port: _Port, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            self._flush_typed(port)
        if not mask & selectors.EVENT_READ:
            return
        try:
            data = port.end.recv(_READ)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self._end_port(port)
            return
        for tap in list(port.taps):
            self._copy(tap, data)
        if port.on_data is not None:
            port.on_data(data)

    def _end_port(self, port: _Port) -> None:
        for tap in list(port.taps):
            self._detach(tap)
        self._selector.unregister(port.end)
        port.end.close()
        self._sources -= 1

    def _attach(self, tap: _Tap) -> None:
        if tap.port.end.fileno() < 0:
            tap.end.close()
            return
        tap.port.taps.append(tap)
        self._watch_tap(tap)

    def _detach(self, tap: _Tap) -> None:
        if tap in tap.port.taps:
            tap.port.taps.remove(tap)
            if tap.end in self._selector.get_map():
                self._selector.unregister(tap.end)
            tap.end.close()

    def _tap_ready(self, tap: _Tap, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            self._push(tap)
        if mask & selectors.EVENT_READ and tap in tap.port.taps:
            try:
                data = tap.end.recv(_READ)
            except BlockingIOError:
                return
            except ConnectionError:
                data = b""
            if data:
                self._type(tap.port, data)
            else:
                self._detach(tap)

    def _copy(self, tap: _Tap, data: bytes) -> None:
        if len(tap.pending) + len(data) > TAP_LIMIT:
            self._detach(tap)
            return
        tap.pending += data
        self._push(tap)

    def _push(self, tap: _Tap) -> None:
        try:
            del tap.pending[: tap.end.send(tap.pending)]
        except BlockingIOError:
            pass
        except ConnectionError:
            self._detach(tap)
            return
        self._watch_tap(tap)

    def _watch_tap(self, tap: _Tap) -> None:
        mask = selectors.EVENT_WRITE if tap.pending else 0
        if len(tap.port.typed) < _TYPED_LIMIT:
            mask |= selectors.EVENT_READ
        known = tap.end in self._selector.get_map()
        if known and mask:
            self._selector.modify(tap.end, mask, lambda ready: self._tap_ready(tap, ready))
        elif mask:
            self._selector.register(tap.end, mask, lambda ready: self._tap_ready(tap, ready))
        elif known:
            self._selector.unregister(tap.end)

    def _type(self, port: _Port, data: bytes) -> None:
        if port.end.fileno() >= 0:
            port.typed += data
            self._flush_typed(port)

    def _flush_typed(self, port: _Port) -> None:
        try:
            while port.typed:
                del port.typed[: port.end.send(port.typed)]
        except BlockingIOError:
            pass
        except ConnectionError:
            # The end of the port is seen by reading it, where its last bytes are.
            port.typed.clear()
        mask = selectors.EVENT_READ | (selectors.EVENT_WRITE if port.typed else 0)
        self._selector.modify(port.end, mask, self._selector.get_key(port.end).data)
        for tap in port.taps:
            self._watch_tap(tap)

    def _close_all(self) -> None:
        with self._lock:
            self._ended = True
        self._read_mail()
        for port in self._ports:
            if port.end.fileno() >= 0:
                self._end_port(port)
        for key in list(self._selector.get_map().values()):
            self._selector.unregister(key.fileobj)
            if isinstance(key.fileobj, int):
                os.close(key.fileobj)
            elif isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()
        self._wake_in.close()
