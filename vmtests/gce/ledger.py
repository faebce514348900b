"""What a run may have made, on disk before the cloud is asked for it.

A ledger is a file of JSON lines: the brand of the run, then each thing that is about to be made (`will`), was made
(`made`) and is gone (`gone`). Its owner holds a lock on it while it lives; who dies leaves the lock free, and the
ledger to `vmtests gce gc`.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from rich.text import Text

from vmtests import progress
from vmtests.errors import HostError, from_os
from vmtests.gce.things import Brand, Thing
from vmtests.resources import cache_dir
from vmtests.text import printable

SUFFIX = ".jsonl"


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The first line: whose ledger it is, and where the cloud is (`endpoint` None for the real one)."""

    brand: Brand
    endpoint: str | None


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """A further line: what became of a thing."""

    what: str
    thing: Thing


def directory() -> Path:
    """Return the directory of all ledgers, made if need be; raises HostError."""
    path = cache_dir() / "gce"
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise from_os("no ledger can be made", error) from error
    return path


class Ledger:
    """A ledger that is written to, or settled; a context manager. An empty one is removed when it is left.

    Its methods may be called from any thread. They raise HostError when it cannot be written: then nothing may be
    made.
    """

    def __init__(self, path: Path, head: Head, things: dict[Thing, bool], descriptor: int) -> None:
        self.path = path
        self.head = head
        self._things = things
        self._descriptor = descriptor
        self._cut = False

    @classmethod
    def new(cls, head: Head) -> Self:
        """Make the ledger of a run."""
        path = directory() / f"{head.brand.run}{SUFFIX}"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise from_os(f"the ledger {path} cannot be made", error) from error
        # The lock comes first: a ledger without one is dead, and whoever finds it so removes it.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if not path.exists():
            os.close(descriptor)
            return cls.new(head)
        made = cls(path, head, {}, descriptor)
        made._write(head)
        return made

    @classmethod
    def dead(cls) -> Iterator[Self]:
        """Yield the ledgers whose owners have died, one after the other, each locked while it is looked at.

        One that cannot be read (damaged, another user's, of another version) is told, and stays: it may name things.
        """
        for path in sorted(directory().glob(f"*{SUFFIX}")):
            with contextlib.ExitStack() as stack:
                try:
                    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
                    stack.callback(os.close, descriptor)
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    found = _read(path)
                except (FileNotFoundError, BlockingIOError):
                    continue
                except (OSError, HostError) as error:
                    progress.stderr().print(Text(f"vmtests: {path} is left alone: {printable(str(error))}"))
                    continue
                if found is None:
                    path.unlink(missing_ok=True)  # its owner died before it could have made anything
                    continue
                stack.pop_all()
                with cls(path, *found, descriptor) as ledger:
                    yield ledger

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._things:
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)

    @property
    def things(self) -> list[Thing]:
        """What may be there, in the order in which it was to be made."""
        return list(self._things)

    def unsure(self, thing: Thing) -> bool:
        """Whether nobody heard that the thing was made: it may still come."""
        return not self._things[thing]

    def named_by_others(self) -> set[Thing]:
        """Return what is named by other ledgers whose owners live."""
        named: set[Thing] = set()
        for path in directory().glob(f"*{SUFFIX}"):
            if path == self.path:
                continue
            with contextlib.suppress(OSError, HostError), path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    found = _read(path)
                    named.update(found[1] if found else ())
        return named

    def will(self, thing: Thing) -> None:
        """Note what is about to be made; it is on disk when this returns."""
        self._write(Note(what="will", thing=thing))
        self._things[thing] = False

    def made(self, thing: Thing) -> None:
        """Note that it was made."""
        self._write(Note(what="made", thing=thing))
        self._things[thing] = True

    def gone(self, thing: Thing) -> None:
        """Note that it is not there, and will not come."""
        self._write(Note(what="gone", thing=thing))
        self._things.pop(thing, None)

    def _write(self, line: Head | Note) -> None:
        try:
            # A line that a full disk has cut does not take the next with it.
            rest = b"\n" * self._cut + msgspec.json.encode(line) + b"\n"
            self._cut = True
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            self._cut = False
            os.fsync(self._descriptor)
        except OSError as error:
            raise from_os(f"the ledger {self.path} cannot be written", error) from error


def _read(path: Path) -> tuple[Head, dict[Thing, bool]] | None:
    """Return a ledger's head and what may be there; None where not even the head was written whole.

    Raises HostError for a head that cannot be read.
    """
    first, *rest = path.read_bytes().split(b"\n")
    if not rest:
        return None
    try:
        head = msgspec.json.decode(first, type=Head)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise HostError(f"it is no ledger of this version of vmtests: {error}") from error
    things: dict[Thing, bool] = {}
    for line in rest:
        try:
            note = msgspec.json.decode(line, type=Note)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue  # the end of a ledger whose owner died while writing: the call was not made
        if note.what == "gone":
            things.pop(note.thing, None)
        else:
            things[note.thing] = note.what == "made"
    return head, things
