"""The page of causes."""

from pathlib import Path

from vmtests.boot.table import render


def test_the_page_of_causes_is_current() -> None:
    """docs/causes.md says what the tables say: `make causes` writes it."""
    assert render() == (Path(__file__).parents[2] / "docs" / "causes.md").read_text()
