"""What a static check of an image found, as facts that are safe to print."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from vmtests.causes import Cause
from vmtests.text import printable

TEXT_LIMIT = 400
"""Characters of a value or sentence that are kept; an image can hold names of any length."""

Version = tuple[int, ...]
"""A version of Linux by its numbers, major and minor at least."""


class Word(StrEnum):
    """What is looked at, where others look for that check."""

    CONSOLE = "console"
    INIT = "init"
    INITRD = "initrd"
    KERNEL_RELEASE = "kernel release"
    PROTECTIVE_MBR = "protective MBR"
    ROOT = "root"
    SIZE = "size"
    STATE = "state"


class Status(StrEnum):
    """How a check came out: a note is worth a sentence, a breach makes the image fail."""

    OK = "ok"
    NOTE = "note"
    BREACH = "breach"


class Readable(Protocol):
    """Bytes that can be read anywhere: a disk, or a partition of one."""

    @property
    def size(self) -> int:
        """The number of bytes."""

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`, fewer where the end comes first."""


def clean(text: str) -> str:
    """Return a name or label out of the image, printable."""
    return printable(text, TEXT_LIMIT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at; `sentence` is empty where there is nothing to say. Text is escaped.

    `cause` is why a boot would fail for it, in the words of `vmtests.causes`; None where it would not. `part` is the
    contract's name of the partition that was looked at, empty for the disk as a whole. Verdicts are joined to checks
    by these two, so that every other word may be changed.
    """

    subject: str
    what: str
    value: str
    status: Status = Status.OK
    sentence: str = ""
    hint: str | None = None
    cause: Cause | None = None
    part: str = ""

    def __str__(self) -> str:
        return self.sentence or f"{self.subject}: {self.what} {self.value}"

    @property
    def ok(self) -> bool:
        """Whether the image may be booted for all that this check knows."""
        return self.status is not Status.BREACH

    def to_json(self) -> dict[str, str | bool | None]:
        """Return the check as JSON data."""
        return {
            "subject": self.subject,
            "what": self.what,
            "value": self.value,
            "ok": self.ok,
            "status": self.status.value,
            "sentence": self.sentence,
            "hint": self.hint,
            "cause": None if self.cause is None else self.cause.value,
            "part": self.part,
        }


def passed(subject: str, what: str, value: object) -> Check:
    """Return a check that found what it should."""
    return Check(subject=clean(subject), what=what, value=clean(str(value)))


def note(subject: str, what: str, value: object, sentence: str, *, cause: Cause | None = None) -> Check:
    """Return a check that found something worth a sentence, but no fault."""
    return Check(
        subject=clean(subject),
        what=what,
        value=clean(str(value)),
        status=Status.NOTE,
        sentence=clean(sentence),
        cause=cause,
    )


def breach(
    subject: str, what: str, value: object, sentence: str, hint: str | None = None, *, cause: Cause | None = None
) -> Check:
    """Return a check that found a fault; `sentence` names it without help of the other fields."""
    return Check(
        subject=clean(subject),
        what=what,
        value=clean(str(value)),
        status=Status.BREACH,
        sentence=clean(sentence),
        hint=None if hint is None else clean(hint),
        cause=cause,
    )


class Slice:
    """A range of a disk, in bytes, as something to read; it ends where the disk ends."""

    def __init__(self, disk: Readable, offset: int, size: int) -> None:
        self._disk = disk
        self.offset = offset
        self.size = max(0, min(size, disk.size - offset))

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset` of the range, fewer where the end comes first."""
        return self._disk.read(self.offset + offset, max(0, min(length, self.size - offset)))
