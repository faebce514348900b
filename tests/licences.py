"""Lists what vmtests needs to run, with versions and licences: `python -m tests.licences`."""

import re
from collections.abc import Iterator
from importlib import metadata

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def needed(name: str = "vmtests") -> dict[str, metadata.Distribution]:
    """Return what `name` needs, and what these need, without extras; what is not for this host is left out."""
    found: dict[str, metadata.Distribution] = {}
    todo = [name]
    while todo:
        distribution = metadata.distribution(todo.pop())
        for requirement in distribution.requires or []:
            match = _NAME.match(requirement)
            if match is None or "extra ==" in requirement or match[0].lower() in found:
                continue
            try:
                found[match[0].lower()] = metadata.distribution(match[0])
            except metadata.PackageNotFoundError:
                continue  # for another system, or another Python
            todo.append(match[0])
    return dict(sorted(found.items()))


def licence(distribution: metadata.Distribution) -> str:
    """Return the licence that a distribution names (core metadata: License-Expression, classifiers, License)."""
    told = distribution.metadata

    def field(name: str) -> list[str]:
        return [str(value) for value in told.get_all(name) or []]

    classified = [value.rpartition(" :: ")[2] for value in field("Classifier") if value.startswith("License :: ")]
    first = "".join(field("License")).strip().partition("\n")[0]
    return "".join(field("License-Expression")) or ", ".join(classified) or first or "unknown"


def rows() -> Iterator[str]:
    """Yield a line for each."""
    for name, distribution in needed().items():
        yield f"{name}\t{distribution.version}\t{licence(distribution)}"


if __name__ == "__main__":
    for row in rows():
        print(row)
