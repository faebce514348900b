"""What a person at a terminal sees of a boot."""

import io
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from vmtests.boot.console import Line
from vmtests.boot.follow import Follower
from vmtests.boot.past import Past
from vmtests.boot.stages import Stage
from vmtests.boot.timeline import Timeline
from vmtests.boot.verdict import Cause, Verdict
from vmtests.cli.screen import Lines, show
from vmtests.errors import Owner


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


def test_verdict_stays_on_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sentence is not broken where no terminal is: a log is searched."""
    verdict = Verdict(
        ready=False,
        stage=Stage.INITRD,
        cause=Cause.MOUNT_FAILED,
        sentence="a sentence that is longer than the eighty columns of " + "a terminal that is not there " * 3,
        evidence=(),
        hint="a hint that is longer than them too, " * 3,
        owner=Owner.IMAGE,
        evidence_to_verdict_s=0.1,
    )
    show(verdict, tmp_path)
    said = capsys.readouterr().out.splitlines()
    assert f"failed in initrd: {verdict.sentence}" in said
    assert f"hint: {verdict.hint}" in said
