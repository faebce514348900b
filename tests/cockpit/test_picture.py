"""Pictures in the terminal."""

import base64
import re
from pathlib import Path

import pytest

from vmtests.cockpit.picture import sequences, speaks


@pytest.mark.parametrize("size", [0, 10, 3072, 3073, 10000])
def test_picture_comes_whole(tmp_path: Path, size: int) -> None:
    """A file of any size comes over in pieces of 4096 bytes at most, of which the last says that it is."""
    (path := tmp_path / "screen.png").write_bytes(data := bytes(range(256)) * 40)
    path.write_bytes(data := data[:size])
    pieces = re.findall(rb"\x1b_G([^;]*);([^\x1b]*)\x1b", sequences(path))
    assert data == base64.b64decode(b"".join(text for _, text in pieces))
    assert all(len(text) <= 4096 for _, text in pieces)
    assert [b"m=1"] * (len(pieces) - 1) + [b"m=0"] * bool(pieces) == [keys[-3:] for keys, _ in pieces]
    assert all(b"a=T,f=100" in keys for keys, _ in pieces[:1])


def test_picture_that_is_gone_is_not_shown(tmp_path: Path) -> None:
    """Then its path is all that is said."""
    assert b"" == sequences(tmp_path / "none.png")


@pytest.mark.parametrize(
    ("environment", "does"),
    [({"TERM": "xterm-kitty"}, True), ({"TERM_PROGRAM": "WezTerm"}, True), ({"TERM": "xterm-256color"}, False)],
)
def test_terminal_is_asked_by_its_name(environment: dict[str, str], does: bool) -> None:
    """Nothing is written to a terminal that does not say that it shows pictures."""
    assert does is speaks(environment)
