"""The thread that reads a machine's wires."""

import os
import socket
import threading
from collections.abc import Callable

import pytest

from vmtests.errors import HostError
from vmtests.machine import wires
from vmtests.machine.wires import Wires

LIMIT = 64 << 20
Pair = tuple[socket.socket, socket.socket]


class Reader:
    """Wires with one serial port, and what came through it."""

    def __init__(self, ours: socket.socket) -> None:
        self.data = bytearray()
        self.dead = threading.Event()
        self._changed = threading.Condition()
        self.wires = Wires(name="test", on_dead=self.dead.set)
        self.wires.add_port(ours, self._feed)
        self.wires.start()

    def _feed(self, data: bytes) -> None:
        with self._changed:
            self.data += data
            self._changed.notify_all()

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds; fail after ten seconds."""
        with self._changed:
            assert self._changed.wait_for(condition, 10)

    def settle(self) -> None:
        """Wait until all that was asked of the reader is done."""
        done = threading.Event()
        assert self.wires.post(done.set)
        assert done.wait(10)


@pytest.fixture
def guest(pair: Pair) -> socket.socket:
    """The guest's end of the serial port."""
    return pair[1]


@pytest.fixture
def reader(pair: Pair) -> Reader:
    """A running reader, which ends when the guest's end is closed."""
    return Reader(pair[0])


def type_all(reader: Reader, tap: socket.socket) -> int:
    """Send through a tap until it takes no more; return how many bytes it took."""
    sent = 0
    while sent < LIMIT:
        try:
            sent += tap.send(b"y" * 65536)
        except BlockingIOError:
            break
        reader.settle()
    return sent


def finish(reader: Reader, guest: socket.socket) -> None:
    """End the guest and the reader."""
    guest.close()
    reader.wires.join()


def test_every_byte(reader: Reader, guest: socket.socket) -> None:
    """Every byte arrives, in order, and the reader ends when the guest has."""
    sent = bytes(range(256)) * 4096
    guest.sendall(sent)
    finish(reader, guest)
    assert sent == bytes(reader.data)
    assert reader.dead.is_set()


def test_tap_from_now_on(reader: Reader, guest: socket.socket) -> None:
    """A tap gets what comes after it was made, and end of file with the guest."""
    guest.sendall(b"before")
    reader.wait(lambda: b"before" in reader.data)
    with reader.wires.tap(0) as tap:
        tap.settimeout(10)
        reader.settle()
        guest.sendall(b"after")
        assert tap.recv(100) == b"after"
        finish(reader, guest)
        assert tap.recv(100) == b""


def test_tap_types(reader: Reader, guest: socket.socket) -> None:
    """What a tap sends reaches the guest."""
    with reader.wires.tap(0) as tap:
        tap.sendall(b"id\n")
        assert guest.recv(100) == b"id\n"
        finish(reader, guest)


def test_closed_tap(reader: Reader, guest: socket.socket) -> None:
    """A tap that is closed takes nothing else with it."""
    reader.wires.tap(0).close()
    reader.settle()
    guest.sendall(b"still here")
    reader.wait(lambda: b"still here" in reader.data)
    finish(reader, guest)


def test_tap_that_nobody_reads(reader: Reader, guest: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tap that is not read is dropped; the guest does not wait and nothing else is lost."""
    monkeypatch.setattr(wires, "TAP_LIMIT", 1 << 16)
    with reader.wires.tap(0) as tap:
        tap.settimeout(10)
        reader.settle()
        guest.sendall(b"x" * (4 << 20))
        reader.wait(lambda: len(reader.data) == 4 << 20)
        taken = 0
        while data := tap.recv(1 << 20):
            taken += len(data)
        assert taken < 4 << 20
        finish(reader, guest)


def test_guest_that_does_not_read(reader: Reader, guest: socket.socket) -> None:
    """A guest that takes no input holds up the typist only: what it writes is read all the same."""
    with reader.wires.tap(0) as tap:
        tap.setblocking(False)
        typed = sent = type_all(reader, tap)
        assert sent < LIMIT
        guest.sendall(b"alive")
        reader.wait(lambda: b"alive" in reader.data)
        while typed:
            typed -= len(guest.recv(1 << 20))
        finish(reader, guest)


def test_after_the_end(reader: Reader, guest: socket.socket) -> None:
    """After the end a tap reads end of file at once, and nothing can be typed."""
    finish(reader, guest)
    with reader.wires.tap(0) as tap:
        assert tap.recv(1) == b""
    with pytest.raises(HostError, match="has ended"):
        reader.wires.send(0, b"x")


def test_letter_after_its_bytes(reader: Reader, guest: socket.socket) -> None:
    """An action runs after the bytes that were written before it was posted."""
    seen: list[bytes] = []
    guest.sendall(b"written before")
    reader.wires.post(lambda: seen.append(bytes(reader.data)))
    finish(reader, guest)
    assert seen == [b"written before"]


def test_pipe_to_its_end() -> None:
    """A descriptor is read to its end, which ends the reader when it is the last."""
    said = bytearray()
    read_end, write_end = os.pipe()
    dead = threading.Event()
    reading = Wires(name="test", on_dead=dead.set)
    reading.add_reader(read_end, said.extend)
    reading.start()
    os.write(write_end, b"warning")
    os.close(write_end)
    reading.join()
    assert (bytes(said), dead.is_set()) == (b"warning", True)
