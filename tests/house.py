"""Draws the house: which room imports which, into docs/architecture.md. `make house` runs it.

The floors themselves are a contract in pyproject.toml, which import-linter holds as part of `make lint`.
"""

import sys
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/architecture.md"
BEGIN, END = "<!-- make house: begin -->\n", "<!-- make house: end -->\n"


def room(module: str) -> str:
    """Return the room, or the module of the ground floor, that a module belongs to."""
    return module.split(".")[1] if "." in module else module


def imports() -> dict[str, set[str]]:
    """Return the rooms that each room imports; what is imported for types only counts too."""
    graph = grimp.build_graph("vmtests", exclude_type_checking_imports=False, cache_dir=None)
    rooms = {room(module) for module in graph.modules} - {"vmtests"}
    found: dict[str, set[str]] = {name: set() for name in rooms}
    for module in graph.modules:
        if (importer := room(module)) != "vmtests":
            found[importer] |= {room(other) for other in graph.find_modules_directly_imported_by(module)} - {importer}
    return found


def folders() -> set[str]:
    """Return the names of the rooms that are folders; the rest is the ground."""
    return {path.parent.name for path in (ROOT / "vmtests").glob("*/__init__.py")}


def drawing() -> str:
    """Return the drawing: an arrow for each import that is not implied by others; the ground is not drawn."""
    kept = folders()
    graph = {name: others & kept for name, others in imports().items() if name in kept}

    def reached(name: str) -> set[str]:
        return graph[name].union(*(reached(other) for other in graph[name]))

    lines = ["```mermaid", "flowchart RL"]
    for name in sorted(graph):
        implied = set().union(*(reached(other) for other in graph[name])) if graph[name] else set()
        lines += [f"  {name} --> {other}" for other in sorted(graph[name] - implied)]
    return "\n".join([*lines, "```", ""])


def main() -> int:
    """Write the drawing where it belongs."""
    before, rest = PAGE.read_text().split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(before + BEGIN + drawing() + END + after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
