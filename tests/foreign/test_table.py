"""The table of images tells what was wrong."""

from pathlib import Path

from tests.foreign.__main__ import Outcome, row
from tests.foreign.cases import OK, Case


def _outcome(wrong: str) -> Outcome:
    case = Case(name="entry", there="systemd-boot", expected=OK, make=Path)
    return Outcome(case=case, said="a | b\nc", seconds=0.71, megabytes=52.4, wrong=wrong)


def test_row_is_one_line_with_what_was_wrong() -> None:
    """What an image says of itself cannot break the table."""
    assert "| entry | systemd-boot | a \\| b c |  | 0.7 s, 52 MB | **note, and not ok** |" == row(
        _outcome("note, and not ok")
    )
    assert row(_outcome("")).endswith("| right |")
