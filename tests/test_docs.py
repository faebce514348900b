"""docs/api.md is what the docstrings say, and the examples in them are true."""

import doctest
import importlib
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_api_page_is_current() -> None:
    """The page is that of the docstrings: `make docs` writes it anew."""
    spec = importlib.util.spec_from_file_location("make_api", ROOT / "docs/make_api.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.page() == (ROOT / "docs/api.md").read_text(), "run `make docs`"


@pytest.mark.parametrize("name", ["vmtests", "vmtests.testing"])
def test_examples_are_true(name: str) -> None:
    """What the examples of a public module say comes out of it."""
    assert doctest.testmod(importlib.import_module(name)).failed == 0
    assert doctest.testmod(importlib.import_module(name)).attempted > 1
