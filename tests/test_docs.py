"""docs/api.md has what is public, and the examples in the docstrings are true."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", ["vmtests", "vmtests.testing"])
def test_api_page_has_every_public_name(name: str) -> None:
    """The page has a section for each public name; `make lint` compares all of it with the docstrings."""
    page = (ROOT / "docs/api.md").read_text()
    for public in importlib.import_module(name).__all__:
        assert f"\n### `{public}`\n" in page, "make docs"


@pytest.mark.parametrize("name", ["vmtests", "vmtests.testing"])
def test_examples_are_true(name: str) -> None:
    """What the examples of a public module say comes out of it."""
    assert doctest.testmod(importlib.import_module(name)).failed == 0
    assert doctest.testmod(importlib.import_module(name)).attempted > 1
