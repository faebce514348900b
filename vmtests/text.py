"""Text that somebody else wrote, made safe for messages."""

SHORT = 200
"""Characters of a foreign text in a message, where nothing else is said."""


def printable(text: str, limit: int = SHORT) -> str:
    """Return at most `limit` characters of `text`, with everything escaped that is not printable.

    Names, labels and a guest's or tool's words may hold terminal sequences or bidirectional controls.
    """
    cut = text if len(text) <= limit else f"{text[:limit]}…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in cut)
