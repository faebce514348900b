"""What a check tells of itself."""

import ast
from collections.abc import Iterator
from pathlib import Path

import vmtests.image
from vmtests.causes import Cause
from vmtests.image.check import breach


def _breaches() -> Iterator[tuple[str, ast.Call]]:
    for path in Path(vmtests.image.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "breach":
                yield f"{path.name}:{node.lineno}", node


def test_breach_says_what_to_do() -> None:
    """Every breach has a hint, of its own or of its cause."""
    alone, found = [], 0
    for where, call in _breaches():
        found += 1
        given = {word.arg: word.value for word in call.keywords}
        cause = given.get("cause")
        if isinstance(cause, ast.Attribute):
            told = breach("", "", "", "", cause=Cause[cause.attr]).advice is not None
        else:  # a variable holds one of several
            told = cause is not None
        if len(call.args) < 5 and "hint" not in given and not told:
            alone.append(where)
    assert alone == []
    assert found > 100
