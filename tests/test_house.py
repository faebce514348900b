"""The house: its floors, its drawing, and the size of its parts."""

from pathlib import Path

from tests.house import BEGIN, END, PAGE, ROOT, drawing

TOP_FLOOR = 8
"""Python files that stand on the top floor at most: the public face and the ground."""

LINES = 500


def test_top_floor_has_the_face_and_the_ground_only() -> None:
    """Whoever looks into vmtests/ for the first time sees eight files, and rooms."""
    assert TOP_FLOOR >= len(list((ROOT / "vmtests").glob("*.py")))


def test_no_file_is_long() -> None:
    """A file has at most 500 lines."""
    python = [path for part in ("vmtests", "tests", "bench", "docs") for path in (ROOT / part).rglob("*.py")]
    assert [] == [path.name for path in python if len(path.read_text().splitlines()) > LINES]


def test_drawing_is_that_of_the_imports() -> None:
    """What docs/architecture.md draws is what is imported; `make house` draws it anew."""
    assert drawing() == PAGE.read_text().split(BEGIN)[1].split(END)[0]


def test_files_that_contributing_names_are_there() -> None:
    """Each of the ten changes is made in files that exist, or whose neighbours do."""
    text = (ROOT / "CONTRIBUTING.md").read_text().split("## Where a change goes")[1]
    rows = [line for line in text.splitlines() if line.startswith("| ") and "`" in line]
    assert 10 == len(rows)
    named = [name for row in rows for name in row.split("`")[1::2] if "/" in name]
    assert [] == [name for name in named if not (ROOT / Path(name)).exists()]
