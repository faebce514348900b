"""The console on disk: raw bytes, and time-stamped lines as JSON."""

import errno
import json
import os
from collections import deque
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

from vmtests.boot.stages import Stage
from vmtests.errors import at_named
from vmtests.sizes import GIB

LOG_LIMIT = 2 * GIB
"""Bytes of each log that are kept: what floods a console must not fill the host's disk."""

KEPT_LINES = 500
"""Lines that are kept in memory; all of them are in the file."""

_ANOTHER = "name another directory with --vm-results"
_TAIL = 256 * 1024  # bytes; holds the longest JSON line there can be


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line: seconds since power-on, printable text, the stage the boot was in, and where it was seen.

    `source` is `console`, `firmware` (the debug port) or `event`.
    """

    t: float
    text: str
    stage: Stage
    source: str = "console"


class _Log:
    """A file that is appended to until the disk is full or the file has `limit` bytes; then its error is kept, and
    no more is written.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        self._room = limit
        self.error: OSError | None = None
        self.told = False
        try:
            self._file = FileIO(os.fspath(path), "ab")
        except OSError as error:
            raise at_named(f"{path} cannot be written", error, _ANOTHER) from error

    def write(self, data: bytes) -> None:
        if self.error is not None or self._file.closed:
            return
        self._room -= len(data)
        if self._room < 0:
            self.error = OSError(errno.EFBIG, "a flood is not kept")
            return
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) or 0 :]
        except OSError as error:
            self.error = error

    def close(self) -> None:
        self._file.close()


class ConsoleLog:
    """Appends to `console.log` (raw), `console.jsonl` and `firmware.log` in a directory, which is made.

    Each object in `console.jsonl` is `{"boot", "t", "stage", "source", "text"}`. A log that exists is
    continued, and `next_boot` is one more than its last boot. `name` is put before the files' names when
    several machines share the directory. Neither a full disk nor a log with `limit` bytes is an error: see
    `take_error`. Raises InputError or HostError when a file cannot be opened.
    """

    def __init__(self, directory: Path, name: str = "", *, limit: int = LOG_LIMIT) -> None:
        prefix = f"{name}." if name else ""
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise at_named(f"{directory} cannot be made", error, _ANOTHER) from error
        tail = _tail(directory / f"{prefix}console.jsonl")
        self.next_boot = _last_boot(tail) + 1
        self._lines: deque[Line] = deque(maxlen=KEPT_LINES)
        with ExitStack() as stack:
            self._raw, self._json, self._firmware = (
                _opened(stack, directory / f"{prefix}{file}", limit)
                for file in ("console.log", "console.jsonl", "firmware.log")
            )
            self._stack = stack.pop_all()
        if not tail.endswith(b"\n") and tail:
            self._json.write(b"\n")  # the last run was killed in the middle of a line

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; what comes later is dropped."""
        self._stack.close()

    @property
    def lines(self) -> tuple[Line, ...]:
        """The last lines, at most KEPT_LINES."""
        return tuple(self._lines)

    def remember(self, lines: Iterable[Line]) -> None:
        """Take lines for the last ones that are in the file already."""
        self._lines.extend(lines)

    @property
    def last(self) -> Line | None:
        """The last line."""
        return self._lines[-1] if self._lines else None

    def raw(self, data: bytes) -> None:
        """Append bytes of the console as they came."""
        self._raw.write(data)

    def firmware(self, data: bytes) -> None:
        """Append bytes of the firmware's debug port as they came."""
        self._firmware.write(data)

    def add(self, lines: Iterable[Line], boot: int) -> None:
        """Append the lines of one read; only those of the console are kept in memory."""
        encoded = []
        for line in lines:
            if line.source == "console":
                self._lines.append(line)
            fields = {"boot": boot, "t": round(line.t, 3), "stage": str(line.stage), "source": line.source}
            encoded.append(json.dumps({**fields, "text": line.text}) + "\n")
        if encoded:
            self._json.write("".join(encoded).encode())

    def take_error(self) -> str | None:
        """Return a sentence about a log that could not be written, once for each; None when all is told."""
        for log in (self._raw, self._json, self._firmware):
            if log.error is not None and not log.told:
                log.told = True
                return f"{log.path} is cut short: {log.error.strerror}"
        return None


def _opened(stack: ExitStack, path: Path, limit: int) -> _Log:
    log = _Log(path, limit)
    stack.callback(log.close)
    return log


def _tail(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - _TAIL, 0))
            return file.read()
    except OSError:
        return b""


def _last_boot(tail: bytes) -> int:
    for line in reversed(tail.splitlines()):
        try:
            boot = json.loads(line)["boot"]
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # half a line
        if isinstance(boot, int):
            return boot
    return 0
