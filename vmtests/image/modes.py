"""Modes of what an image is made of: the same whoever makes it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def usual_modes() -> Iterator[None]:
    """Have new files and directories readable by everybody while the block runs, or the function that it decorates.

    A person's umask(2) is 002 on Fedora and Ubuntu, 077 where others are not trusted, and no business of a guest's. It
    is one for the whole process.
    """
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)
