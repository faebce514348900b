"""What a speaker's rows are: a line of the console, or an event of the machine, and what it means for the boot."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from vmtests.boot.stages import Stage, between
from vmtests.causes import Cause
from vmtests.errors import Owner


class Weight(StrEnum):
    """What a finding means for the verdict."""

    CLUE = "clue"
    """Something went wrong. It is the cause when the boot ends, or falls silent, for nothing that says more."""
    WAIT = "wait"
    """A prompt at which the boot stands until somebody answers; whatever is said after it takes it back."""
    SYMPTOM = "symptom"
    """Ends the boot; a clue or an earlier symptom says more about why."""
    CAUSE = "cause"
    """Ends the boot and says why."""


class Layer(IntEnum):
    """How near to the cause a clue is: a reason explains an object that fails, and that a unit, and that others."""

    REASON = 0
    """Why: the words of the kernel or of a program about a thing."""
    OBJECT = 1
    """What was needed: a device, a mount, a file system that is checked."""
    UNIT = 2
    """What failed."""
    RESULT = 3
    """What failed because something else had."""
    NOTE = 4
    """What is said of boots that go well, too; worth a word where nothing else is known."""


EARLY = between(Stage.FIRMWARE, Stage.KERNEL)
LOADING = between(Stage.FIRMWARE, Stage.BOOTLOADER)
STAGE1 = between(Stage.KERNEL, Stage.SWITCH_ROOT)
SYSTEMD = between(Stage.INITRD, Stage.USERSPACE)
BOOTING = between(Stage.KERNEL, Stage.USERSPACE)
RUNNING = between(Stage.KERNEL, Stage.READY)

WAIT_SECONDS = 30.0
"""Seconds of silence behind a prompt after which nobody will answer it; unlocking over the network may take some."""

PANIC_HINT = "the lines before the panic say what the kernel was doing"
MORE_HINT = "systemd.log_level=debug systemd.log_target=console on the kernel's command line shows what was done"
DEVICE_HINT = "the device is named by root=, fstab or the initrd: compare that with `blkid` of the disk, and see that \
the initrd has the driver of the machine's disk controller"
STORE_HINT = "write the file system again, and keep its partition as large as it is"
OVERLAY_HINT = (
    "compare the overlay's mount options lowerdir, upperdir and workdir with what is there when it is mounted"
)
ESP_HINT = "the ESP needs a boot loader where this firmware looks for one: a boot entry, or \\EFI\\BOOT for the \
machine's architecture, on a FAT file system with 512-byte sectors"
EFI_STATUS = (
    r"(?:Load Error|Invalid Parameter|Unsupported|Bad Buffer Size|Buffer Too Small|Not Ready|Device Error"
    r"|Write Protected|Out of Resources|Volume (?:Corrupt|Full)|No Media|Media [Cc]hanged|Not Found|Access Denied"
    r"|No [Rr]esponse|No [Mm]apping|Time ?out|Not started|Already started|Aborted|Protocol Error|Incompatible Version"
    r"|Security Violation|CRC Error|End of (?:Media|File))"
)
"""What `%r` makes of an EFI_STATUS: MdePkg/Library/BasePrintLib, gnu-efi lib/error.c."""
ASKED_HINT = "take it off the kernel's command line, unless a shell is what is wanted"
MEMORY_HINT = "give the machine more memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """A line of a speaker that is no failure: it begins `stage`, if the boot is in `since` or later, and
    not beyond `until`.

    `restart` says that the machine is about to restart and means to; `ready` that nothing more is to come;
    `forgives` what failed before it and is no matter any more.
    `example` is a line that a real program prints.
    """

    stage: Stage
    pattern: re.Pattern[str]
    example: str
    since: Stage = Stage.FIRMWARE
    until: Stage = Stage.READY
    restart: bool = False
    ready: bool = False
    forgives: frozenset[Cause] = frozenset()


def sign(
    stage: Stage,
    pattern: str,
    example: str,
    *,
    since: Stage = Stage.FIRMWARE,
    until: Stage = Stage.READY,
    restart: bool = False,
    ready: bool = False,
    forgives: frozenset[Cause] = frozenset(),
) -> Sign:
    """Return a sign."""
    return Sign(
        stage=stage,
        pattern=re.compile(pattern),
        example=example,
        since=since,
        until=until,
        restart=restart,
        ready=ready,
        forgives=forgives,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LineRule:
    """A line that tells of a failure.

    `grace` is for how many seconds the console is read on before the verdict, so that what the guest still
    says about it becomes evidence. `kernel` lines count only with the kernel's time stamp, if this kernel
    stamps its lines. `prompt` lines count without their newline too. `fatal` says whether a boot that says no
    more has failed by it. `asked` lines say that somebody wants the shell in which the boot will wait. `place` is
    the stage that is blamed, where the boot seemed to have come further. `patience` is the grace where nothing was
    heard that may be why, for what goes on by itself. `rescue` lines count where an initrd means to hand over, or
    something failed: elsewhere that is the system. `survived` says that it is no end where the boot goes on. `example`
    is a line that a real program prints.
    """

    cause: Cause
    pattern: re.Pattern[str]
    sentence: str
    hint: str
    example: str
    stages: frozenset[Stage]
    owner: Owner = Owner.IMAGE
    grace: float = 0.5
    weight: Weight = Weight.CAUSE
    layer: Layer = Layer.REASON
    kernel: bool = False
    prompt: bool = False
    fatal: bool = True
    place: Stage | None = None
    asked: bool = False
    patience: float | None = None
    rescue: bool = False
    survived: bool = False

    @property
    def general_words(self) -> bool:
        """Whether anything that speaks could say it, so that it tells nothing of where the boot is."""
        return self.weight is Weight.CLUE and self.layer is not Layer.OBJECT and not self.kernel


def rule(
    cause: Cause,
    pattern: str,
    sentence: str,
    hint: str,
    example: str,
    *,
    stages: frozenset[Stage] = BOOTING,
    weight: Weight = Weight.CLUE,
    layer: Layer = Layer.REASON,
    owner: Owner = Owner.IMAGE,
    grace: float | None = None,
    kernel: bool = False,
    prompt: bool = False,
    fatal: bool | None = None,
    place: Stage | None = None,
    asked: bool = False,
    patience: float | None = None,
    rescue: bool = False,
    survived: bool = False,
    flags: int = 0,
) -> LineRule:
    """Return a rule: a clue, unless `weight` says that its line ends the boot."""
    if grace is None:
        grace = WAIT_SECONDS if weight is Weight.WAIT else 0.5
    return LineRule(
        cause=cause,
        pattern=re.compile(pattern, flags),
        sentence=sentence,
        hint=hint,
        example=example,
        stages=stages,
        owner=owner,
        grace=grace,
        weight=weight,
        layer=layer,
        kernel=kernel,
        prompt=prompt or weight is Weight.WAIT,
        fatal=layer <= Layer.OBJECT if fatal is None else fatal,
        place=place,
        asked=asked,
        patience=patience,
        rescue=rescue,
        survived=survived,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    """A program that speaks on a console during a boot.

    `stage` is where it speaks, `source` where its words are found. The rows of a `general` speaker stand behind those
    of others, whose lines they may match too. A `foreign` one is no part of a boot of Linux.
    """

    name: str
    stage: Stage
    source: str
    signs: tuple[Sign, ...] = ()
    failures: tuple[LineRule, ...] = ()
    general: bool = False
    foreign: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRule:
    """An event of the machine that tells of a failure.

    `when` has a pattern for each detail that must fit. `ending` is true when no more can come from this
    boot: a finding that waits for its grace is decided then.
    """

    cause: Cause
    name: str
    sentence: str
    hint: str
    owner: Owner = Owner.IMAGE
    grace: float = 0.25
    weight: Weight = Weight.SYMPTOM
    layer: Layer = Layer.REASON
    fatal: bool = True
    ending: bool = True
    when: Mapping[str, re.Pattern[str]] = field(default_factory=dict)
