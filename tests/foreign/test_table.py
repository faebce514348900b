"""The table of images tells what was wrong."""

from pathlib import Path

import pytest

from tests.foreign.__main__ import Outcome, check_names, main, parsed, row
from tests.foreign.cases import OK, Case
from vmtests.errors import InputError


def _outcome(wrong: str) -> Outcome:
    case = Case(name="entry", there="systemd-boot", expected=OK, make=Path)
    return Outcome(case=case, said="a | b\nc", seconds=0.71, megabytes=52.4, wrong=wrong)


def test_row_is_one_line_with_what_was_wrong() -> None:
    """What an image says of itself cannot break the table."""
    assert "| entry | systemd-boot | a \\| b c |  | 0.7 s, 52 MB | **note, and not ok** |" == row(
        _outcome("note, and not ok")
    )
    assert row(_outcome("")).endswith("| right |")


def test_what_is_misspelt_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    """A group in the place of the directory, a file there, and a name that no image has."""
    with pytest.raises(InputError, match=r"disks is a group of images .*results/images disks"):
        main(Path("disks"), [], boot=False)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file cannot be made: File exists"):
        main(tmp_path / "file", [], boot=False)
    with pytest.raises(InputError, match=r"no image or group is called entri .*do you mean entry"):
        check_names(["entry", "entri"], ["entry", "disks"])


def test_images_are_booted_as_make_asks_for_it() -> None:
    """`make images BOOT=1 NAMES=...` puts the option between the directory and the names."""
    told = parsed(["results/images", "--boot", "entry", "disks"])
    assert (Path("results/images"), ["entry", "disks"], True) == (told.directory, told.name, told.boot)
