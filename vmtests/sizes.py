"""Sizes as people write them and as programs need them."""

import contextlib
import re
from typing import Any

from vmtests.errors import InputError
from vmtests.text import printable

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
_FACTORS = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": 1 << 40}
_SIZE = re.compile(r"([0-9]{1,20})([KMGT]?)(?:i?B)?", re.IGNORECASE)
_DIGITS = 18
_MOST = 1 << 63  # lseek(2)
_LONGEST = 1e9  # seconds; what waits takes no number whatever


def parse_size(text: str) -> int:
    """Return the bytes in `512M`, `2G`, `10GiB` or `4096`; factors are powers of 1024, as in systemd.

    Raises InputError when the text is no size, or one that no file can have.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or not 0 < (size := int(match[1]) * _FACTORS[match[2].upper()]) < _MOST:
        raise InputError(f"{printable(text)!r} is not a size", hint="write for example 512M or 2G")
    return size


def whole(text: str) -> int | None:
    """Return the number that up to 18 digits of ASCII are; None for any other text.

    int() takes the digits of other scripts too, and raises ValueError for superscripts and for thousands of digits.
    """
    return int(text) if len(text) <= _DIGITS and text.isascii() and text.isdigit() else None


def format_size(size: int) -> str:
    """Return `size` bytes for people, in the largest binary unit that leaves at least one: `1.5 GiB`."""
    value, unit = float(size), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if value == int(value) else f"{value:.1f} {unit}"


def round_up(value: int, step: int) -> int:
    """Return the least multiple of `step` that is not less than `value`."""
    return -(-value // step) * step


def parse_seconds(text: str) -> float:
    """Return a length of time in seconds; raises InputError when the text is none, or the time is none."""
    with contextlib.suppress(ValueError):
        if 0 < (value := float(text)) <= _LONGEST:
            return value
    raise InputError(f"{printable(text)!r} is not a time", hint="write a number of seconds, for example 300")


def told_seconds(value: Any) -> float:
    """Return a time that a file of results tells; raises TypeError, ArithmeticError or ValueError where it is none.

    JSON has NaN and infinity for Python, and any number of digits; sums of larger ones would be infinite.
    """
    if not abs(seconds := float(value)) <= _LONGEST:
        raise ValueError(f"{seconds} is no time")
    return seconds
