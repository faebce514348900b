"""What a guest with a shell, however poor, still tells after its boot has failed."""

import time
from pathlib import Path

import pytest

from vmtests.errors import GuestError
from vmtests.guest.diagnosis import ITEMS, PlainShell, gather
from vmtests.guest.result import Result

from .conftest import MakeGuest


class Scripted:
    """A shell whose answers are known: by the first word of a command, else nothing."""

    def __init__(self, **answers: bytes) -> None:
        self.answers = answers

    def run(self, command: str, /, timeout: float = 60.0, *, limit: int = 1 << 20) -> Result:
        """Answer; `journalctl` does not end."""
        if command.startswith("journalctl"):
            raise GuestError("the guest's shell does not answer")
        return Result.of(
            command,
            stdout=self.answers.get(command.split()[0], b""),
            stderr=b"sh: not found\n",
            exit_code=0,
            duration=0.1,
        )


def test_each_answer_is_a_file_and_each_failure_a_sentence(tmp_path: Path) -> None:
    """What the guest tells is written as it came; what it does not tell is said, and stops nothing."""
    found = dict(gather(Scripted(dmesg=b"[    0.0] Linux\n"), tmp_path, time.monotonic() + 60))
    assert [item.file for item in ITEMS] == list(found)
    assert b"[    0.0] Linux\n" == (tmp_path / "dmesg.txt").read_bytes()
    assert "16 bytes" == found["dmesg.txt"]
    assert "empty: sh: not found" == found["jobs.txt"]
    assert "the guest's shell does not answer" == found["journal.export"]
    assert ["dmesg.txt"] == [path.name for path in tmp_path.iterdir()]


def test_no_question_is_asked_after_the_time_is_up(tmp_path: Path) -> None:
    """The time for a diagnosis is bounded, whatever the guest does."""
    found = dict(gather(Scripted(dmesg=b"x\n"), tmp_path, time.monotonic() - 1))
    assert {"the time was up"} == set(found.values())


def test_plain_shell_takes_output_as_the_line_carries_it(make_guest: MakeGuest) -> None:
    """A shell without any tool to encode still gives both outputs and the exit code of a command."""
    shell = PlainShell(make_guest("dash", "-i").connection)
    result = shell.run("echo one; echo two >&2; false", 20.0)
    assert ["one", "two"] == [line.strip() for line in result.lines if line.strip()]
    assert 1 == result.exit_code


def test_plain_shell_gives_up_in_time(make_guest: MakeGuest) -> None:
    """A command that does not end is an error, and not a wait."""
    shell = PlainShell(make_guest("dash", "-i").connection)
    with pytest.raises(GuestError, match="did not come"):
        shell.run("cat", 0.3)
