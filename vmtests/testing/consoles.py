"""Consoles of real boots, recorded byte for byte, and the verdict that a console gets."""

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from vmtests.boot.explain import Knowledge
from vmtests.boot.follow import Follower
from vmtests.boot.verdict import Verdict
from vmtests.errors import InputError
from vmtests.machine.events import MachineEvent
from vmtests.resources import fixture
from vmtests.testing.clock import ManualClock

READY_TOKEN = "vmtests-ready-0123456789abcdef"  # noqa: S105 - a line on a console
"""What a recorded guest says, wherever it was recorded, when it has no job left."""

_TOKEN = re.compile(rb"vmtests-ready-[0-9a-f]{16}(?= [a-z])")


Event = tuple[int, str, Mapping[str, str | int | bool]]
"""What a machine did: behind how many bytes of its console, the event's name in QMP, and what came with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A boot that took place.

    `console` is what its serial console had written, `events` what the machine did; `expected` is what is known of the
    boot (fixtures/consoles/README.md).
    """

    name: str
    console: bytes
    events: tuple[Event, ...] = ()
    expected: dict[str, Any]


def recordings() -> list[str]:
    """Return the names of all recorded boots, such as `reference-ready` and `fault-store-missing`."""
    return sorted(path.stem for path in fixture("consoles").glob("*.json"))


def recording(name: str = "reference-ready") -> Recording:
    """Return a recorded boot; raises InputError for a name that none has."""
    if name not in (known := recordings()):
        raise InputError(f"no boot is recorded as {name!r}", hint=f"recorded are: {', '.join(known)}")
    directory = fixture("consoles")
    expected = msgspec.json.decode((directory / f"{name}.json").read_bytes(), type=dict[str, Any])
    events = tuple((event["at"], event["name"], event["detail"]) for event in expected.get("events", ()))
    console = _TOKEN.sub(READY_TOKEN.encode(), (directory / f"{name}.log").read_bytes())
    return Recording(name=name, console=console, events=events, expected=expected)


def play(follower: Follower, recorded: Recording, clock: ManualClock) -> None:
    """Feed a recorded boot to a follower, at one time, with what the machine did in between."""
    fed = 0
    for at, name, detail in recorded.events:
        follower.feed(recorded.console[fed:at])
        follower.event(MachineEvent(name=name, detail=detail, t=clock.monotonic()))
        fed = at
    follower.feed(recorded.console[fed:])


def replay(
    console: bytes | Recording,
    *,
    knowledge: Knowledge | None = None,
    events: Sequence[Event] = (),
    results: Path | None = None,
) -> Verdict:
    """Return the verdict on a console that was recorded; where none comes of it, the guest's silence is judged.

    The logs go to `results`, or nowhere.
    """
    if isinstance(console, bytes):
        console = Recording(name="", console=console, events=tuple(events), expected={})
    with tempfile.TemporaryDirectory() as directory:
        clock = ManualClock()
        with Follower(
            results or Path(directory),
            clock=clock,
            power_on=clock.now,
            load=lambda: 1.0,
            ready_token=READY_TOKEN,
            knowledge=knowledge,
        ) as follower:
            play(follower, console, clock)
            return follower.wait_verdict()
