"""What is public: typed, imported when it is used, and enough for a stranger's tests."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vmtests


def test_type_checkers_see_what_is_there() -> None:
    """What a type checker is told of the package is what its names lead to."""
    tree = ast.parse(Path(vmtests.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    told = {
        alias.asname: f"{node.module}:{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert told == {
        name: place if ":" in place else f"{place}:{name}"
        for name, place in vmtests._PUBLIC.items()
    }  # fmt: skip
    assert told.keys() == set(vmtests.__all__)


@pytest.mark.parametrize("name", vmtests.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    """A public name leads to something with a docstring of its own."""
    found = getattr(vmtests, name)
    assert name in dir(vmtests)
    assert isinstance(found, type) is (name != "Watch")
    assert not isinstance(found, type) or found.__doc__


def test_unknown_name_is_an_attribute_error() -> None:
    """A name that is not public is none."""
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        vmtests.Nothing  # noqa: B018


def test_package_imports_nothing() -> None:
    """`import vmtests` imports no other module of the project, and errors need none either."""
    code = "import sys, vmtests; vmtests.InputError; print(*[m for m in sys.modules if m.startswith('vmtests')])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.split() == ["vmtests", "vmtests.errors"]
