"""Text that somebody else wrote, made safe for messages."""

import re
from urllib.parse import SplitResult, urlsplit

SHORT = 200
"""Characters of a foreign text in a message, where nothing else is said."""


def printable(text: str, limit: int = SHORT) -> str:
    """Return at most `limit` characters of `text`, with everything escaped that is not printable.

    Names, labels and a guest's or tool's words may hold terminal sequences or bidirectional controls.
    """
    cut = text if len(text) <= limit else f"{text[:limit]}…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in cut)


# What runners take for orders in the log of a job: Azure Pipelines, and GitHub Actions in its older form, anywhere in
# a line, TeamCity and GitHub Actions (actions/runner, ActionCommand.cs) where one begins, also one that was wrapped.
_ORDERS = re.compile(r"##(?=\[|vso\[|teamcity\[)|(?<!\S)::(?=[\w-]+(?: .*?)?::)", re.IGNORECASE)


def inert(text: str) -> str:
    """Return `text` without what a CI runner would take for an order to itself, were it printed.

    A guest that prints `##vso[task.complete result=Succeeded]` has not succeeded.
    """
    return _ORDERS.sub(lambda found: " ".join(found[0]), text)


def inert_quoted(text: str) -> str:
    """Return JSON, or a string of TOML, that means the same and has nothing that `inert` would change."""
    return text.replace("##", "#\\u0023")


TEXT_LIMIT = 300
"""Characters of a guest's or tool's line in evidence and sentences."""

# They take no room on a terminal; UARTs send NUL at power-on.
_INVISIBLE = str.maketrans({"\0": None, "\a": None, "\t": " "})


def decode(data: bytes) -> str:
    """Decode UTF-8 with errors, and then all that is not printable, replaced; odd blanks become spaces."""
    text = data.decode("utf-8", "replace").translate(_INVISIBLE)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() and c > "\x7f" else "\ufffd" for c in text)


def clean(text: str) -> str:
    """Return `text` with what is not printable replaced, and at most TEXT_LIMIT characters long."""
    return decode(text.encode("utf-8", "replace"))[:TEXT_LIMIT].strip()


def split_url(url: str) -> SplitResult:
    """Return the parts of a URL that somebody else wrote; without any where it is none."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")
