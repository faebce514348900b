"""What becomes of what a command says is never taken for the image's fault, and costs nobody the exit status."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.signals import block, heed
from vmtests import cli

COMMAND = [sys.executable, "-m", "vmtests.cli"]


def _closed() -> int:
    """Return the end of a pipe that nobody reads."""
    read, write = os.pipe()
    os.close(read)
    return write


@pytest.mark.parametrize("nobody", ["pipe", "/dev/full"])
def test_standard_error_that_takes_nothing_keeps_the_status(tmp_path: Path, nobody: str) -> None:
    """Where nothing can be said on standard error, the status says it all the same, and standard output stays."""
    sink = _closed() if nobody == "pipe" else os.open(nobody, os.O_WRONLY)
    command = [*COMMAND, "inspect", "none.raw", "--json"]
    ended = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=sink, text=True, check=False)
    os.close(sink)
    assert (ended.returncode, '"error": "none.raw does not exist"' in ended.stdout) == (2, True)


@pytest.mark.parametrize(
    "arguments",
    [("faults", "--list"), ("inspect", "none.raw", "--json"), ("boot", "--help"), ("completion", "zsh")],
)
def test_reader_that_has_gone_is_no_fault_of_an_image(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """As `| head -0` has it: status 2, and nothing is said of a pipe."""
    sink = _closed()
    ended = subprocess.run(
        [*COMMAND, *arguments], cwd=tmp_path, stdout=sink, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(sink)
    assert ended.returncode == 2
    assert "ipe" not in ended.stderr
    assert "Traceback" not in ended.stderr


def test_error_that_finds_no_room_is_told_on_standard_error(tmp_path: Path) -> None:
    """An error that cannot be printed as JSON is told, and so is that."""
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        command = [*COMMAND, "inspect", "none.raw", "--json"]
        ended = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 2
    assert "none.raw does not exist" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("before", [heed, block])
def test_end_of_a_terminal_ends_a_command_as_ctrl_c_does(tmp_path: Path, before: Callable[[], None]) -> None:
    """SIGHUP ends it tidily, also where its starter blocks that: what it has started may cost money."""
    os.mkfifo(tmp_path / "spec.json")
    command = [*COMMAND, "build", "--spec", "spec.json", "--out", "x"]
    with (
        subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=before) as process,
        (tmp_path / "spec.json").open("w"),
    ):
        process.send_signal(signal.SIGHUP)
        try:
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, said.partition("\n")[0]) == (2, "vmtests: interrupted")


def test_end_of_a_terminal_is_not_heeded_where_it_was_ignored(tmp_path: Path) -> None:
    """nohup(1) has been asked so."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert cli.main(["inspect", str(tmp_path / "none.raw")]) == 2
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
