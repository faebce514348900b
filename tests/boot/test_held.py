"""A guest that somebody has stopped has no time that passes."""

import pytest

from vmtests.boot.follow import Follower
from vmtests.boot.stages import Stage
from vmtests.machine.events import MachineEvent
from vmtests.testing import ManualClock

from .consoles import GOOD_BOOT, IN_INITRD


def _stop(follower: Follower, clock: ManualClock, status: str) -> None:
    follower.event(MachineEvent(name="STOP", detail={"status": status}, t=clock.now))


@pytest.mark.parametrize("status", ["paused", "debug"])
def test_no_budget_runs_out_while_a_debugger_has_it(follower: Follower, clock: ManualClock, status: str) -> None:
    """An hour with gdb, or while the machine is kept, is no second of the boot."""
    follower.feed(IN_INITRD)
    clock.advance(5.0)
    _stop(follower, clock, status)
    clock.advance(3600.0)
    assert (5.0, None) == (follower.pulse.t, follower.verdict)
    follower.event(MachineEvent(name="RESUME", t=clock.now))
    clock.advance(1.0)
    assert 6.0 == follower.pulse.t
    before = clock.now
    assert not follower.wait_verdict().ready
    assert clock.now - before < 60.0


def test_what_is_printed_shows_that_it_goes_on(follower: Follower, clock: ManualClock) -> None:
    """Where the word that it goes on came before the word that it stopped, its console tells."""
    follower.feed(IN_INITRD)
    _stop(follower, clock, "paused")
    clock.advance(100.0)
    follower.feed(GOOD_BOOT)
    clock.advance(1.0)
    assert 1.0 == follower.pulse.t
    assert follower.stage is Stage.READY


def test_machine_that_failed_is_not_held(follower: Follower, clock: ManualClock) -> None:
    """A machine that QEMU stopped for an error of its own is judged."""
    follower.feed(IN_INITRD)
    _stop(follower, clock, "internal-error")
    assert "internal error" in follower.wait_verdict().sentence


def test_next_boot_is_not_held(follower: Follower, clock: ManualClock) -> None:
    """Power that was cut while a debugger had the machine gives a boot with a clock of its own."""
    _stop(follower, clock, "debug")
    clock.advance(50.0)
    follower.new_boot("power-on")
    clock.advance(2.0)
    assert 2.0 == follower.pulse.t
