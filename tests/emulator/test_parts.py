"""The small parts: the ring of a serial port, timers, the relay of ssh, scratch directories."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from vmtests.emulator import scratch
from vmtests.emulator.relay import Relay
from vmtests.emulator.serialport import Ring
from vmtests.emulator.timers import Timers
from vmtests.errors import HostError


@given(st.lists(st.binary(max_size=12)), st.integers(min_value=-20, max_value=40))
def test_ring_is_the_end_of_what_was_said(parts: list[bytes], start: int) -> None:
    """A ring gives what the port said from a position on, as far as it has it, and says where that is."""
    ring, said = Ring(limit=16), b"".join(parts)
    for part in parts:
        ring.feed(part)
    oldest = max(0, len(said) - 16)
    wanted = max(oldest, len(said) + start if start < 0 else start)
    assert (wanted, said[wanted:]) == ring.read(start)


def test_timers_follow_the_clock() -> None:
    """An action is called when its time has come on the clock, in order, unless it was cancelled."""
    called: list[str] = []
    done = threading.Event()
    with Timers() as timers:
        timers.after(3600, done.set)
        timers.after(1800, lambda: called.append("b"))
        timers.after(900, lambda: called.append("a"))
        timers.cancel(timers.after(10, lambda: called.append("cancelled")))
        timers.advance(3599)
        assert not done.is_set()
        timers.advance(2)
        assert done.wait(10)
    assert ["a", "b"] == called


def test_relay_carries_both_ways() -> None:
    """A connection is carried to the other side, each way to its end; when nobody is there it is closed."""
    ours, theirs = socket.socketpair()
    guests = [theirs]

    def connect() -> socket.socket:
        if not guests:
            raise ConnectionRefusedError
        return guests.pop()

    with ours, _relay(connect) as address:
        with socket.create_connection(address, timeout=10) as client:
            client.sendall(b"ping")
            client.shutdown(socket.SHUT_WR)
            assert (b"ping", b"") == (ours.recv(10), ours.recv(10))
            ours.sendall(b"pong")
            ours.shutdown(socket.SHUT_WR)
            assert (b"pong", b"") == (client.recv(10), client.recv(10))
        with socket.create_connection(address, timeout=10) as client:
            assert b"" == client.recv(10)


@contextlib.contextmanager
def _relay(connect: Callable[[], socket.socket]) -> Iterator[tuple[str, int]]:
    """Give the address of a relay on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address: tuple[str, int] = free.getsockname()
    with Relay(address[0], address[1], connect):
        yield address


def test_relay_ends_its_connections() -> None:
    """A relay that is closed closes what it carries."""
    ours, theirs = socket.socketpair()
    with ours, contextlib.ExitStack() as stack:
        with _relay(lambda: theirs) as address:
            client = stack.enter_context(socket.create_connection(address, timeout=10))
            client.sendall(b"x")
            assert b"x" == ours.recv(1)
        assert b"" == client.recv(1)


def test_taken_address_is_the_hosts_fault() -> None:
    """An address that somebody listens on already is an error of the host."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(HostError):
        Relay("127.0.0.1", taken.getsockname()[1], socket.socket)


def test_left_directory_is_removed_by_the_next(tmp_path: Path) -> None:
    """A directory ends with its block; one that a killed process left is removed, one in use is not."""
    (tmp_path / "left").mkdir()
    (tmp_path / "left.lock").touch()
    (tmp_path / "used").mkdir()
    with FileLock(tmp_path / "used.lock"), scratch.directory(tmp_path) as made:
        assert made.is_dir()
        assert {"used", "used.lock", made.name, f"{made.name}.lock"} == {path.name for path in tmp_path.iterdir()}
    assert "left" not in {path.name for path in tmp_path.iterdir()}
    assert not made.exists()
