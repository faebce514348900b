"""Where a command is told to write: a place that cannot be is the asker's, a full disk the host's."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmtests import cli
from vmtests.errors import HostError, InputError
from vmtests.host import outputs
from vmtests.host.results import new_directory

PLACES = {
    "none/file": "there is no directory",
    ".": "it is a directory",
    "file/x": "is no directory",
    "loop": "Too many levels of symbolic links",
    "n" * 300: "File name too long",
}
COMMANDS = (
    ("report", "results", "--out"),
    ("report", "--history", "results", "--out"),
    ("diff", "a.raw", "b.raw", "--html"),
    ("contract", "a.raw", "--output"),
    ("build", "--out"),
    ("faults", "init-missing", "--out"),
    ("build", "--archive"),
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with a file, and with a link that leads to itself."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop/x")
    yield tmp_path
    assert ["file", "loop"] == sorted(path.name for path in tmp_path.iterdir())


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place[:9])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_place_that_cannot_be_is_refused_before_any_work(
    here: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...], place: str
) -> None:
    """A directory that is missing, a directory or a file in the way: a sentence, and a hint with the option's name."""
    assert cli.main([*command, place]) == 2
    told = capsys.readouterr().err.splitlines()
    assert f"vmtests: {place} cannot be written: " in told[0]
    assert PLACES[place] in told[0]
    assert f"hint: name another place with {command[-1]}" == told[1]


def test_directory_of_results_that_cannot_be_is_the_askers(here: Path) -> None:
    """`--results` below a file is bad input."""
    with pytest.raises(InputError, match="no directory for results can be made") as refused:
        new_directory(here / "file/results")
    assert refused.value.hint == "name a writable one with --vm-results"


def test_place_that_the_kernel_refuses_is_the_askers() -> None:
    """Where only the attempt tells, the error is the same: /proc takes no files."""
    with pytest.raises(InputError, match="/proc/x cannot be written"):
        outputs.write(Path("/proc/x"), "text", "--out")


def test_full_disk_is_the_hosts() -> None:
    """Another place does not have to be named where this one has no room."""
    with pytest.raises(HostError, match="/dev/full cannot be written: No space left") as refused:
        outputs.write(Path("/dev/full"), "text", "--out")
    assert str(refused.value.hint).startswith("free some space")


def test_device_is_written_to_and_stays_one(tmp_path: Path) -> None:
    """A pipe gets the text, and no file is renamed over it; a disk is not made there."""
    os.mkfifo(pipe := tmp_path / "pipe")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    outputs.write(pipe, "text", "--out")
    assert (b"text", True) == (os.read(reader, 99), pipe.is_fifo())
    os.close(reader)
    with pytest.raises(InputError, match="pipe is no place for a file"):
        outputs.check_disk(pipe, "--out")


def test_link_is_followed(tmp_path: Path) -> None:
    """What a link leads to is written, and the link stays."""
    (link := tmp_path / "link").symlink_to("real")
    outputs.check(link, "--out")
    outputs.write(link, "text", "--out")
    assert (link.is_symlink(), (tmp_path / "real").read_text()) == (True, "text")
    assert ["link", "real"] == sorted(path.name for path in tmp_path.iterdir())


def test_standard_output_on_a_full_disk_is_one_sentence() -> None:
    """The command says so and exits with 2, as for any other place."""
    command = [sys.executable, "-m", "vmtests.cli", "completion", "bash"]
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (2, "vmtests: standard output cannot be written: No space left on device\nhint: free some space\n") == (
        ended.returncode,
        ended.stderr,
    )
