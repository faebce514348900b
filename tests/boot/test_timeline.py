"""Timelines."""

import json
from pathlib import Path

import pytest

from vmtests.boot.stages import Stage
from vmtests.boot.timeline import Timeline
from vmtests.errors import InputError
from vmtests.testing.clock import EPOCH


class TestTimeline:
    """Starts and durations."""

    def test_it_begins_with_firmware(self) -> None:
        """Power-on is the start of the firmware."""
        assert (Timeline().stage, Timeline().starts) == (Stage.FIRMWARE, {Stage.FIRMWARE: 0.0})

    def test_durations(self) -> None:
        """A stage lasts until the next begins, the last until the boot was last looked at."""
        timeline = Timeline()
        timeline.enter(Stage.BOOTLOADER, 2.0)
        timeline.enter(Stage.KERNEL, 2.5)
        timeline.end(4.0)
        assert timeline.seconds == {Stage.FIRMWARE: 2.0, Stage.BOOTLOADER: 0.5, Stage.KERNEL: 1.5}

    def test_a_stage_that_was_not_seen_is_filled_in(self) -> None:
        """A timeline is total: a skipped stage begins with the next one and lasts no time."""
        timeline = Timeline()
        timeline.enter(Stage.INITRD, 3.0)
        assert timeline.seconds == {"firmware": 3.0, "bootloader": 0.0, "kernel": 0.0, "initrd": 0.0}

    @pytest.mark.parametrize("stage", [Stage.FIRMWARE, Stage.KERNEL])
    def test_no_way_back(self, stage: Stage) -> None:
        """A stage is entered only from an earlier one."""
        timeline = Timeline()
        timeline.enter(Stage.KERNEL, 1.0)
        with pytest.raises(ValueError, match="cannot follow"):
            timeline.enter(stage, 2.0)

    def test_time_never_runs_back(self) -> None:
        """A stage does not begin before the one before it."""
        timeline = Timeline()
        timeline.enter(Stage.KERNEL, 5.0)
        timeline.enter(Stage.INITRD, 4.0)
        assert timeline.starts[Stage.INITRD] == 5.0

    def test_file(self, tmp_path: Path) -> None:
        """timeline.json has the boot's number, its date, start and duration of each stage, and the units."""
        timeline = Timeline(boot=2, started=EPOCH)
        timeline.enter(Stage.BOOTLOADER, 1.5)
        timeline.write(tmp_path / "timeline.json")
        assert json.loads((tmp_path / "timeline.json").read_text()) == {
            "boot": 2,
            "started": "2025-01-01T00:00:00+00:00",
            "start": {"firmware": 0.0, "bootloader": 1.5},
            "seconds": {"firmware": 1.5, "bootloader": 0.0},
            "units": [],
        }

    def test_a_file_that_cannot_be_written(self, tmp_path: Path) -> None:
        """A place that cannot be is not the host's fault, and the hint names the option."""
        with pytest.raises(InputError, match="cannot be written"):
            Timeline().write(tmp_path / "none" / "timeline.json")
