"""A picture in the terminal itself, where that speaks kitty's graphics protocol.

https://sw.kovidgoyal.net/kitty/graphics-protocol: a PNG file in base64, in pieces.
"""

import base64
import os
from collections.abc import Mapping
from pathlib import Path

_CHUNK = 4096  # bytes of base64 in one sequence, at most
_COLUMNS = 80
_LIMIT = 16 << 20  # bytes of a picture


def speaks(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the terminal says that it is one which shows pictures."""
    return (
        "KITTY_WINDOW_ID" in environment
        or environment.get("TERM") in {"xterm-kitty", "xterm-ghostty"}
        or environment.get("TERM_PROGRAM") in {"ghostty", "WezTerm"}
    )


def sequences(picture: Path) -> bytes:
    """Return what shows a PNG file; empty where it cannot be read, or is too large."""
    try:
        with picture.open("rb") as file:
            data = file.read(_LIMIT + 1)
    except OSError:
        return b""
    if len(data) > _LIMIT:
        return b""
    text = base64.b64encode(data)
    parts = [text[start : start + _CHUNK] for start in range(0, len(text), _CHUNK)]
    first = f"a=T,f=100,c={_COLUMNS},".encode()
    return b"".join(
        b"\x1b_G%sm=%d;%s\x1b\\" % (b"" if number else first, number < len(parts) - 1, part)
        for number, part in enumerate(parts)
    )
