"""Writes docs/api.md from the docstrings of what is public (`make docs`); `make lint` says when it is out of date."""

import ast
import enum
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

MODULES = ("vmtests", "vmtests.testing")
PAGE = Path(__file__).parent / "api.md"

_HEAD = """# API

Made of the docstrings by `make docs`. What is not here is private and may change. Sizes are in bytes and times in
seconds unless a name says otherwise (`memory_mib`).
"""


def page() -> str:
    """Return the page."""
    parts = [_HEAD]
    for name in MODULES:
        module = importlib.import_module(name)
        parts.append(f"\n## `{name}`\n\n{_prose(module.__doc__)}\n")
        names = sorted(module.__all__, key=str.lower)
        parts += ["\n".join(_section(public, getattr(module, public))) for public in names]
    return "\n".join(parts)


def _section(name: str, found: object) -> Iterator[str]:
    yield f"\n### `{name}`\n"
    if not isinstance(found, type):
        if inspect.isroutine(found):
            yield f"`{name}{_signature(found)}`\n"
            yield _prose(found.__doc__)
        else:
            yield f"`{_short(str(found))}`"
        return
    bases = [base.__name__ for base in found.__bases__ if base is not object and base.__name__ != "Protocol"]
    if bases:
        yield f"A subclass of {', '.join(f'`{base}`' for base in bases)}.\n"
    if not issubclass(found, enum.Enum | BaseException) and "__call__" not in vars(found):
        yield f"`{name}{_signature(found)}`\n"
    yield _prose(found.__doc__)
    members = list(_members(found))
    if members:
        yield "\n" + "\n".join(members)


def _members(found: type) -> Iterator[str]:
    """Return a line for each public attribute, property and method that is not that of a builtin."""
    told: set[str] = set()
    for owner in found.__mro__:
        if not owner.__module__.startswith("vmtests"):
            continue
        fields = _attributes(owner)
        yield from (line for name, line in fields.items() if name not in told)
        for name, value in vars(owner).items():
            if (name.startswith("_") and name != "__call__") or name in told | fields.keys():
                continue
            function = getattr(value, "func", getattr(value, "__func__", value))
            if isinstance(value, property) or hasattr(value, "func"):
                yield f"* `{name}`: {_first(value.__doc__)}"
            elif inspect.isroutine(function):
                yield f"* `{name}{_signature(function)}`: {_first(function.__doc__)}"
        told |= vars(owner).keys() | fields.keys()


def _attributes(owner: type) -> dict[str, str]:
    """Return a line for each field or member of a class, with what is said below it."""
    try:
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    except (OSError, TypeError):
        return {}
    assert isinstance(node, ast.ClassDef)
    found: dict[str, str] = {}
    for statement, after in zip(node.body, [*node.body[1:], None], strict=True):
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                pass
            case _:
                continue
        if name.startswith("_"):
            continue
        declared = ast.unparse(statement)
        shown = _short(declared if len(declared) < 100 else declared.partition(" = ")[0])
        match after:
            case ast.Expr(value=ast.Constant(value=str(said))):
                found[name] = f"* `{shown}`: {_first(said)}"
            case _:
                found[name] = f"* `{shown}`"
    return found


def _signature(function: object) -> str:
    try:
        signature = inspect.signature(function)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return "(…)"
    kept = [parameter for parameter in signature.parameters.values() if parameter.name != "self"]
    return _short(str(signature.replace(parameters=kept)))


def _short(text: str) -> str:
    """Return a signature with the names of types alone, and without what differs from run to run."""
    text = re.sub(r"\b(?:[a-z_][a-z_0-9]*\.)+([A-Z]\w*)", r"\1", text)
    text = re.sub(r"<(\w+)\.(\w+): [^>]*>", r"\1.\2", text)
    # Types that are written as text, and no defaults.
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", re.sub(r"<[^>]*>", "…", text))


def _prose(doc: str | None) -> str:
    """Return a docstring with its examples as code."""
    blocks = []
    for block in inspect.cleandoc(doc or "").split("\n\n"):
        code = block.startswith((">>>", "with ", "from "))
        blocks.append(f"```python\n{block}\n```" if code else block)
    return "\n\n".join(blocks)


def _first(doc: str | None) -> str:
    return " ".join(inspect.cleandoc(doc or "").split())


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        if PAGE.read_text() != page():
            sys.exit(f"{PAGE} is not what the docstrings say: make docs")
    else:
        PAGE.write_text(page())
