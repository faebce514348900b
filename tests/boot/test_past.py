"""A machine that goes on from where another was kept is followed as if it had been the same one."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from vmtests.boot.follow import Follower
from vmtests.boot.past import Past
from vmtests.boot.stages import Stage
from vmtests.machine.events import MachineEvent
from vmtests.testing import ManualClock

from .consoles import GOOD_BOOT


@pytest.fixture
def booted(make: Callable[..., Follower], clock: ManualClock) -> Past:
    """A boot that got ready after some seconds, and was followed to its end; its logs are there."""
    follower = make()
    clock.now += 7.0
    follower.feed(GOOD_BOOT)
    verdict = follower.wait_verdict()
    assert verdict.ready
    follower.close()
    return Past.of(verdict, follower.timeline, follower.lines)


def _entries(results: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (results / "console.jsonl").read_text().splitlines()]


def test_known_boot_goes_on_in_its_logs(make: Callable[..., Follower], booted: Past, tmp_path: Path) -> None:
    """Where the logs of the boot are, nothing is told twice, and what comes belongs to the same boot."""
    before = _entries(tmp_path / "results")
    follower = make(past=dataclasses.replace(booted, logged=True))
    follower.feed(b"after\n")
    after = _entries(tmp_path / "results")
    assert after[: len(before)] == before
    assert [entry["text"] for entry in after[len(before) :]] == ["boot 1: goes on from where it was kept", "after"]
    assert {entry["boot"] for entry in after} == {1}
    assert [line.text for line in follower.lines] == [*(line.text for line in booted.lines), "after"]


def test_boot_is_told_where_it_was_not_known(make: Callable[..., Follower], booted: Past, tmp_path: Path) -> None:
    """Where the logs are of other boots, the last lines of the boot are its beginning."""
    make(past=booted)
    told = [
        entry["text"]
        for entry in _entries(tmp_path / "results")
        if entry["source"] == "console" and entry["boot"] == 2
    ]
    assert told == [line.text for line in booted.lines]


def test_guest_kept_within_its_boot_has_the_time_of_then(booted: Past) -> None:
    """Its journal is read from when it was switched on, by its own clock; a guest that was ready was given ours."""
    assert booted.started is not None
    began = booted.started.timestamp()
    later = began + 3600.0
    assert later == booted.power_on(later)
    assert began == dataclasses.replace(booted, verdict=None).power_on(later)


def test_seconds_stand_still_while_it_is_kept(
    make: Callable[..., Follower], booted: Past, clock: ManualClock, tmp_path: Path
) -> None:
    """Verdict and stages are those of the boot, and its clock goes on from its end."""
    clock.now += 86_400.0
    follower = make(past=booted)
    assert follower.verdict == booted.verdict
    assert follower.stage is Stage.READY
    follower.feed(b"after\n")
    assert booted.ended == pytest.approx(follower.lines[-1].t)
    assert json.loads((tmp_path / "results/timeline-2.json").read_text())["start"]["ready"] == pytest.approx(
        booted.starts[Stage.READY], abs=0.001
    )


def test_failure_after_going_on_is_seen(make: Callable[..., Follower], booted: Past, clock: ManualClock) -> None:
    """A machine that goes on and then dies has failed after it was ready."""
    follower = make(past=booted)
    follower.event(MachineEvent(name="exit", detail={"returncode": 1}, t=clock.now))
    clock.now += 60.0
    failure = follower.failure_after_ready
    assert failure is not None
    assert not failure.ready
    assert follower.verdict == booted.verdict


def test_time_never_goes_back_in_the_logs(make: Callable[..., Follower], booted: Past, clock: ManualClock) -> None:
    """Lines that came after the verdict count: what the machine says next is later than they are."""
    late = dataclasses.replace(booted.lines[-1], t=booted.ended + 5.0)
    follower = make(past=dataclasses.replace(booted, lines=(*booted.lines, late)))
    clock.now += 1.0
    follower.feed(b"after\n")
    assert follower.lines[-1].t == pytest.approx(booted.ended + 6.0)


def test_boot_goes_on_from_its_middle(make: Callable[..., Follower], clock: ManualClock, tmp_path: Path) -> None:
    """A machine that was kept in the middle of its boot is judged by what it said before and says after that."""
    cut = GOOD_BOOT.index(b"\r\nWelcome to") + 2
    first = make()
    clock.now += 7.0
    first.feed(GOOD_BOOT[:cut])
    assert first.wait_stage(Stage.SWITCH_ROOT)
    first.close()
    follower = make(past=dataclasses.replace(Past.of(None, first.timeline, first.lines), logged=True))
    assert (None, Stage.SWITCH_ROOT) == (follower.verdict, follower.stage)
    clock.now += 3.0
    follower.feed(GOOD_BOOT[cut:])
    verdict = follower.wait_verdict()
    starts = {stage: round(second) for stage, second in follower.timeline.starts.items()}
    assert verdict.ready
    assert (7, 10) == (starts[Stage.INITRD], starts[Stage.USERSPACE])


def test_failure_before_the_middle_counts(make: Callable[..., Follower], clock: ManualClock) -> None:
    """What failed before a machine was kept is known to who goes on: the verdict comes without another word."""
    first = make()
    first.feed(GOOD_BOOT[: GOOD_BOOT.index(b"Booting initrd")] + b"[   1.0] Kernel panic - not syncing: No init\r\n")
    past = Past.of(None, first.timeline, first.lines)
    follower = make(past=past)
    clock.now += 60.0
    assert not follower.wait_verdict().ready


def test_stage_that_is_never_reached_ends_the_wait(make: Callable[..., Follower], clock: ManualClock) -> None:
    """Whoever waits for a stage is told when the boot has failed before it."""
    follower = make()
    follower.feed(
        GOOD_BOOT[: GOOD_BOOT.index(b"Booting initrd")] + b"[   1.0] Kernel panic - not syncing: No init\r\n"
    )
    clock.now += 60.0
    assert not follower.wait_stage(Stage.SWITCH_ROOT)
