"""Real consoles, recorded byte for byte, get the verdict that their boot deserved, and prove the patterns.

Beside each `NAME.log` in fixtures/consoles/ is `NAME.json`: the system that was booted, and verdict, stage, cause and
owner; `events` are those of the machine, each behind a number of bytes, and `inspection` what was found
in the image before, where the verdict needs it. `silence` is said of a prompt that nobody answers, which takes time
to know. `wounded` is a boot that got ready in spite of a failure that a
pattern names: it is no console of a good boot.
"""

import json
import re
from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest

from vmtests import contract
from vmtests.boot.explain import Knowledge
from vmtests.boot.follow import Follower
from vmtests.boot.replay import Replay
from vmtests.boot.stages import Stage
from vmtests.image.check import Check, Word, passed
from vmtests.image.inspect import Inspection
from vmtests.image.source import Format
from vmtests.resources import fixture
from vmtests.testing import ManualClock, recording, recordings
from vmtests.testing.consoles import READY_TOKEN, play

CONSOLES = fixture("consoles")
NAMES = recordings()
EXPECTED = {name: json.loads((CONSOLES / f"{name}.json").read_text()) for name in NAMES}
GOOD = [name for name, it in EXPECTED.items() if it["verdict"] == "ready" and not it.get("wounded")]
_SURVIVED = re.compile(rb" \[#1\] |soft lockup|kthread timer wakeup")
TOKEN = re.compile(rb"vmtests-ready-[0-9a-f]{16}(?= [a-z])")


def _knowledge(name: str) -> Knowledge | None:
    if "inspection" not in EXPECTED[name]:
        return None
    found = EXPECTED[name]["inspection"]
    root = (passed("ESP", Word.ROOT, found["root"]),) if found["root"] else ()
    inspection = Inspection(
        path=CONSOLES / name,
        format=Format.RAW,
        size=1 << 30,
        checks=(*root, *(_reworded(check) for check in msgspec.convert(found["checks"], tuple[Check, ...]))),
        labels=frozenset(found["labels"]),
    )
    return Knowledge(contract.default(), inspection)


def _reworded(check: Check) -> Check:
    """Return the check in other words: verdicts follow its cause and its part."""
    return replace(check, what="x", value="x", subject=f"x {check.subject}")


def _recorded(name: str) -> bytes:
    return (CONSOLES / f"{name}.log").read_bytes()


def _token(data: bytes) -> str:
    found = TOKEN.search(data)
    return found[0].decode() if found else "vmtests-ready-none"


@pytest.mark.parametrize("name", NAMES)
def test_recorded_console_gets_its_verdict(make: Callable[..., Follower], clock: ManualClock, name: str) -> None:
    """Verdict, stage, cause and owner are those of the boot, within two seconds of the evidence.

    An oops or a stall gets more time: most are survived, and what comes after it says whether this one was.
    """
    recorded = recording(name)
    follower = make(ready_token=READY_TOKEN, knowledge=_knowledge(name))
    play(follower, recorded, clock)
    silence = EXPECTED[name].get("silence", False)
    while follower.verdict is None and clock.now < (1060.0 if silence else 1010.0):
        clock.advance(0.25)
    verdict = follower.verdict
    assert verdict is not None
    got = verdict.to_json()
    keys = ("verdict", "stage", "cause", "owner")
    assert {key: EXPECTED[name][key] for key in keys} == {key: got[key] for key in keys}
    assert silence or verdict.evidence_to_verdict_s <= (5.0 if _SURVIVED.search(recorded.console) else 2.0)


@pytest.mark.parametrize("slice_size", [5, 4096])
def test_good_boot_is_ready_through_every_stage(make: Callable[..., Follower], slice_size: int) -> None:
    """The reference image's boot is ready by its own announcement, however its bytes were cut."""
    data = _recorded("reference-ready")
    follower = make(ready_token=_token(data))
    for start in range(0, len(data), slice_size):
        follower.feed(data[start : start + slice_size])
    verdict = follower.verdict
    assert verdict is not None
    assert (True, Stage.READY) == (verdict.ready, verdict.stage)
    assert verdict.sentence.endswith("systemd is running")
    assert list(Stage) == list(follower.timeline.starts)


@pytest.mark.parametrize("name", [name for name in NAMES if "events" not in EXPECTED[name]])
def test_explain_says_what_the_follower_says(name: str) -> None:
    """A recording that is explained gets the verdict that its boot got live."""
    replay = Replay(knowledge=_knowledge(name))
    replay.feed(_recorded(name))
    got = replay.finish().verdict.to_json()
    keys = ("verdict", "stage", "cause", "owner")
    assert {key: EXPECTED[name][key] for key in keys} == {key: got[key] for key in keys}


@pytest.mark.parametrize("name", [name for name in NAMES if "events" in EXPECTED[name]])
def test_what_only_the_machine_knows_is_not_made_up(name: str) -> None:
    """Where the machine's events decided live, its console alone tells the same cause, or nobody can tell."""
    replay = Replay(knowledge=_knowledge(name))
    replay.feed(_recorded(name))
    verdict = replay.finish().verdict
    assert verdict.unknown or verdict.cause == EXPECTED[name]["cause"]


def test_good_boot_without_its_announcement_is_ready_after_a_silence(
    make: Callable[..., Follower], clock: ManualClock
) -> None:
    """Of a guest that does not announce itself, a login prompt and a long silence say that it is ready."""
    follower = make()
    follower.feed(re.sub(rb"\r\nvmtests-ready-.*\r\n", b"", _recorded("reference-ready")))
    clock.advance(60.0)
    verdict = follower.verdict
    assert verdict is not None
    assert verdict.ready


def test_announcement_of_another_run_does_not_count(make: Callable[..., Follower]) -> None:
    """A line with another run's token is a line like any other."""
    follower = make(ready_token="vmtests-ready-0000000000000000")
    data = _recorded("reference-ready")
    follower.feed(data[: data.index(b"Reached target Basic System")])
    follower.feed(b"\r\nvmtests-ready-1111111111111111 running\r\n")
    assert follower.verdict is None


def test_nixos_names_its_initrd_in_colour() -> None:
    """Where the terminal has colours, systemd ends the initrd's name with one full stop: the stage begins there."""
    replay = Replay()
    replay.feed(_recorded("nixos-ready"))
    begins = next(line for line in replay.finish().lines if line.stage is Stage.INITRD)
    assert "Booting initrd of" in begins.text
