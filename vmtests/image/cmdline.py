"""Kernel command lines (kernel/params.c of Linux)."""

import re

LINE_LIMIT = 4096
"""Characters of one that are kept; a kernel takes 2048 (COMMAND_LINE_SIZE)."""


def words(options: str) -> list[str]:
    """Split a kernel command line at spaces outside double quotes (kernel/params.c, next_arg())."""
    return re.findall(r'(?:[^\s"]|"[^"]*"?)+', options)


def values(options: str, key: str) -> list[str]:
    """Return the values of a parameter of a kernel command line, in order."""
    return [word.partition("=")[2].strip('"') for word in words(options) if word.startswith(f"{key}=")]
