"""Budgets and load."""

import os
from pathlib import Path

import pytest

from vmtests.boot.budgets import Budgets, load_factor
from vmtests.boot.clock import SystemClock
from vmtests.boot.stages import Stage


def host(proc: Path, pressure: str | None = None, load: float | None = None) -> Path:
    """Make a `/proc` with this pressure and load."""
    (proc / "pressure").mkdir()
    if pressure is not None:
        (proc / "pressure" / "cpu").write_text(f"some avg10={pressure} avg60=0.00 avg300=0.00 total=1\n")
    if load is not None:
        (proc / "loadavg").write_text(f"{load:.2f} 0.10 0.10 1/100 4242\n")
    return proc


class TestLoadFactor:
    """The measured load."""

    def test_an_idle_host(self, tmp_path: Path) -> None:
        """On an idle host nothing takes longer."""
        assert load_factor(host(tmp_path, "0.00", 0.1)) == 1.0

    def test_waiting_for_a_processor(self, tmp_path: Path) -> None:
        """Who waits half of the time takes twice as long."""
        assert pytest.approx(2.0) == load_factor(host(tmp_path, "50.00"))

    def test_a_long_queue(self, tmp_path: Path) -> None:
        """Three times as many runnable tasks as processors take three times as long."""
        assert pytest.approx(3.0, abs=0.01) == load_factor(host(tmp_path, "0.00", 3.0 * (os.cpu_count() or 1)))

    @pytest.mark.parametrize("pressure", ["90.00", "100.00"])
    def test_the_most(self, tmp_path: Path, pressure: str) -> None:
        """However loaded a host is, the factor is at most four."""
        assert load_factor(host(tmp_path, pressure, 10000.0)) == 4.0

    def test_a_kernel_that_does_not_say(self, tmp_path: Path) -> None:
        """What cannot be read counts as idle."""
        (tmp_path / "loadavg").write_text("nonsense")
        assert load_factor(tmp_path) == 1.0

    def test_this_host(self) -> None:
        """The real files can be read."""
        assert 1.0 <= load_factor() <= 4.0


class TestBudgets:
    """Seconds per stage."""

    def test_every_stage_has_one(self) -> None:
        """No stage may be silent for ever."""
        assert all(0 < Budgets().seconds(stage) < 60 for stage in Stage)

    def test_they_scale(self) -> None:
        """Without KVM everything takes longer, also settling."""
        slow = Budgets(scale=4.0)
        assert 4 * Budgets().seconds(Stage.INITRD) == slow.seconds(Stage.INITRD)
        assert slow.settle_seconds == 8.0


class TestSystemClock:
    """The host's clock."""

    def test_it_goes_on(self) -> None:
        """The monotonic clock does not go back, and the wall clock knows its zone."""
        clock = SystemClock()
        assert clock.monotonic() <= clock.monotonic()
        assert clock.wall().tzinfo is not None
