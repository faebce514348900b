"""What a person at a terminal sees of a boot."""

import io
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from vmtests.boot.console import Line
from vmtests.boot.follow import Follower
from vmtests.boot.past import Past
from vmtests.boot.stages import Stage
from vmtests.boot.timeline import Timeline
from vmtests.cli.screen import Lines


def test_console_ends_with_the_boot(tmp_path: Path) -> None:
    """What was said to a kept machine after it got ready is not shown with its boot, and no line is shown twice."""
    timeline = Timeline(started=datetime(2026, 1, 1, tzinfo=UTC), starts={Stage.KERNEL: 0.0, Stage.READY: 2.0})
    lines = (
        Line(t=1.0, text="hello", stage=Stage.KERNEL),
        Line(t=1.1, text="hello", stage=Stage.KERNEL),
        Line(t=1.5, text="[bold]x[/bold]", stage=Stage.USERSPACE),
        Line(t=2.5, text="vm4e61bee914:6:1.", stage=Stage.READY),
    )
    out = io.StringIO()
    shown = Lines(Console(file=out, width=80))
    with Follower(tmp_path, past=Past.of(None, timeline, lines)) as follower:
        shown(follower)
        shown(follower)
    assert [line.split(maxsplit=2)[1:] for line in out.getvalue().splitlines()] == [
        ["kernel", "hello"],
        ["userspace", "[bold]x[/bold]"],
    ]
