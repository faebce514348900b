"""The standard streams of a command: that nobody reads them, or that they have no room, is no fault of an image's."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TextIO, cast

from vmtests.errors import at_named


class ReaderGoneError(Exception):
    """Whoever read standard output has gone. It is no OSError: those that work with files would take it for theirs."""


class _Stream:
    """A stream; the first time that it cannot be written to, what is left goes to /dev/null, and the error is told."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write to the stream."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._refused(error)
            return len(text)

    def flush(self) -> None:
        """Write what is kept."""
        try:
            self._stream.flush()
        except OSError as error:
            self._refused(error)

    def _refused(self, error: OSError) -> None:
        # Python keeps what it could not write, tries once more when it ends, and says so by the exit status.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)
        self.tell(error)

    def tell(self, error: OSError) -> None:
        """Say that it could not be written to."""

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


class _Output(_Stream):
    def tell(self, error: OSError) -> None:
        if isinstance(error, BrokenPipeError):
            raise ReaderGoneError from error
        raise at_named("standard output cannot be written", error, None) from error


@contextlib.contextmanager
def patient() -> Iterator[None]:
    """Lose no exit status for what cannot be said on standard error."""
    with contextlib.redirect_stderr(cast(TextIO, _Stream(sys.stderr))):
        yield


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Have all that is printed where it goes.

    Raises HostError when standard output cannot be written, ReaderGoneError when nobody reads it.
    """
    output = _Output(sys.stdout)
    try:
        with contextlib.redirect_stdout(cast(TextIO, output)):
            yield
    finally:
        output.flush()
