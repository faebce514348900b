"""The serial port is stitched without gap or overlap, and what is lost is measured."""

import json
import threading
import urllib.request
from collections.abc import Callable

import pytest

from vmtests.emulator import Emulator
from vmtests.emulator.fake import BOOT, FakeHypervisor
from vmtests.emulator.faults import Fault, FaultKind
from vmtests.emulator.serialport import LIMIT, Ring
from vmtests.gce import tokens
from vmtests.gce.errors import BusyError
from vmtests.gce.instance import Instance
from vmtests.gce.serialport import GAP, NOTICE, Chunk, SerialFollower, SerialReader
from vmtests.machine.events import MachineEvent


class Ear:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.data = b""
        self.events: list[MachineEvent] = []

    def feed(self, data: bytes, /) -> None:
        """Keep bytes."""
        self.data += data

    def event(self, event: MachineEvent, /) -> None:
        """Keep an event."""
        self.events.append(event)


def polls(number: int) -> Callable[[threading.Event, float], bool]:
    """Return a wait that is over at once, for so many polls, and then the end."""
    left = iter(range(number))
    return lambda _ended, _seconds: next(left, None) is None


def reader_of(ring: Ring) -> SerialReader:
    """Return a reader of a ring."""

    def fetch(start: int) -> Chunk:
        begin, data = ring.read(start)
        return Chunk(start=begin, next=begin + len(data), data=data)

    return SerialReader(fetch)


def test_pieces_are_the_whole() -> None:
    """What is read piece by piece is what was said, once."""
    ring = Ring(limit=64)
    reader = reader_of(ring)
    said = [b"one\n", b"", b"two\nthree", b"\nfour\n", b"caf\xc3\xa9\n"]
    heard = b""
    for piece in said:
        ring.feed(piece)
        lost, data = reader.read()
        assert 0 == lost
        heard += data
    assert b"".join(said) == heard


def test_gap_has_its_size() -> None:
    """Bytes that the ring dropped between two polls are counted, and those that are there come once."""
    ring = Ring(limit=10)
    reader = reader_of(ring)
    ring.feed(b"0123456789")
    assert (0, b"0123456789") == reader.read()
    ring.feed(b"abcdefghijklmno")
    assert (5, b"fghijklmno") == reader.read()
    assert (0, b"") == reader.read()


def test_overlap_is_cut() -> None:
    """An answer that begins before the position that was asked for is not told twice."""
    reader = SerialReader(lambda _: Chunk(start=0, next=6, data=b"abcdef"))
    assert (0, b"abcdef") == reader.read()
    assert (0, b"") == reader.read()
    reader.position = 4
    assert (0, b"ef") == reader.read()


def test_port_that_starts_anew_is_read_from_its_first_byte() -> None:
    """A port that is shorter than what was read of it is another boot's: it is read from the start."""
    rings = [Ring(), Ring()]
    rings[0].feed(b"the first boot\n")
    rings[1].feed(b"second\n")

    def fetch(start: int) -> Chunk:
        data = rings[0].read()[1]
        return Chunk(start=min(start, len(data)), next=len(data), data=data[start:])

    reader = SerialReader(fetch)
    assert (0, b"the first boot\n") == reader.read()
    rings.pop(0)
    assert (0, b"second\n") == reader.read()


def test_wrapped_ring_is_one_gap_and_no_line_is_doubled(
    emulator: Emulator, hypervisor: FakeHypervisor, instance: Instance
) -> None:
    """When the ring of an instance wraps, the gap is told with its size, and around it each line comes once."""
    ear = Ear()
    follower = SerialFollower(SerialReader(instance.serial), ear, lambda: None)
    follower.drain()
    assert BOOT == ear.data
    machine = hypervisor.machines[instance.thing.name]
    machine.host.serial(1, b"before\r\n")
    request = urllib.request.Request(
        f"{emulator.endpoint}/emulator/v1/instances/{instance.thing.name}/wrapSerial",
        method="POST",
        data=b"",
        headers=tokens.headers(emulator.endpoint),
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        json.load(answer)
    machine.host.serial(1, b"after\r\n")
    total = instance.serial(-1).next
    follower.drain()
    lost = total - LIMIT - len(BOOT)
    assert [(GAP, {"lost_bytes": lost})] == [(one.name, dict(one.detail)) for one in ear.events]
    assert ear.data.startswith(BOOT + NOTICE % lost)
    assert len(BOOT) + len(NOTICE % lost) + LIMIT == len(ear.data)
    assert (0, 1) == (ear.data.count(b"before"), ear.data.count(b"after\r\n"))


def test_instance_that_does_not_run_is_told_once(emulator: Emulator, instance: Instance) -> None:
    """When the port cannot be read since the instance is off, that is told once."""
    told: list[int] = []
    follower = SerialFollower(SerialReader(instance.serial), Ear(), lambda: told.append(1), wait=polls(10))
    instance.stop()
    with pytest.raises(BusyError):
        follower.drain()
    with follower:
        pass
    assert [1] == told


def test_api_that_fails_for_a_while_loses_nothing(
    emulator: Emulator, hypervisor: FakeHypervisor, instance: Instance
) -> None:
    """Polls that fail are made up for by the next one."""
    ear = Ear()
    emulator.faults.add(Fault(kind=FaultKind.UNAVAILABLE, path="/serialPort", count=3))
    hypervisor.machines[instance.thing.name].host.serial(1, b"said meanwhile\n")
    with SerialFollower(SerialReader(instance.serial), ear, lambda: None, wait=polls(4)):
        pass
    assert BOOT + b"said meanwhile\n" == ear.data
