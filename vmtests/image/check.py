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

    COMMAND_LINE = "command line"
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


_ADVICE = {
    Cause.BOOTLOADER_ERROR: "what the boot loader is told to look for has to be on the disk: mend its configuration",
    Cause.BOOTLOADER_INVALID: "install the boot loader again, the one for this architecture",
    Cause.BOOTLOADER_MISSING: "install the boot loader again: bootctl install, or grub-install --removable",
    Cause.ENTRY_MISSING: "a boot entry is a file in /loader/entries, or a unified kernel image in /EFI/Linux",
    Cause.EROFS_FEATURE: "mkfs.erofs -E and -z say what it uses: leave out what the guest's kernel does not know",
    Cause.ESP_MISSING: "repart.d: Type=esp, and a file system of Format=vfat",
    Cause.ESP_UNREADABLE: "make the ESP again, with mkfs.vfat -F32 on a partition of 260 MiB or so",
    Cause.EXT4_DAMAGED: "make the file system again, as large as its partition: resize2fs, or mkfs.ext4",
    Cause.EXT4_FEATURE: "mkfs.ext4 -b 4096, and -O without what the guest's kernel does not know",
    Cause.EXT4_SUPERBLOCK: "make the file system again with mkfs.ext4, or restore it: e2fsck -b 32768",
    Cause.GPT_DESTROYED: "write the table again: systemd-repart, or sfdisk --label gpt",
    Cause.INIT_MISSING: "init= has to name a program that is in the image, by its path after switch-root",
    Cause.INITRD_INVALID: "make the initrd again: a cpio archive (newc), compressed or not, and whole",
    Cause.INITRD_MISSING: "copy the initrd there, or mend the path: it is relative to the partition's own root",
    Cause.KERNEL_INVALID: "copy the kernel again: a whole bzImage or UKI for this architecture, with an EFI stub",
    Cause.KERNEL_MISSING: "copy the kernel there, or mend the path: it is relative to the partition's own root",
    Cause.MOUNT_FAILED: "give the boot an initrd, or root= a file system that the kernel has built in",
    Cause.PARTITION_MISSING: "what is named has to be on the disk: mend the name, or make the partition",
    Cause.ROOT_READ_ONLY: "tune2fs -O ^read-only, or make the file system again",
    Cause.VERITY_FAILED: "the command line has to have the roothash= or usrhash= that veritysetup format printed",
}


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
    def advice(self) -> str | None:
        """What to do about a breach: its own hint, else what mends its cause."""
        return self.hint or (_ADVICE.get(self.cause) if self.cause and not self.ok else None)

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
            "hint": self.advice,
            "cause": None if self.cause is None else self.cause.value,
            "part": self.part,
        }


def passed(subject: str, what: str, value: object, *, limit: int = TEXT_LIMIT) -> Check:
    """Return a check that found what it should; `limit` is how many characters of the value are kept."""
    return Check(subject=clean(subject), what=what, value=printable(str(value), limit))


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
