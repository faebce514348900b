"""What a rule of `patterns` is: a line of the console or an event of the machine, and what it means for the boot."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from vmtests.boot.stages import Stage, between
from vmtests.boot.verdict import Cause
from vmtests.errors import Owner


class Weight(StrEnum):
    """What a finding means for the verdict."""

    CLUE = "clue"
    """Harmless alone; the first clue is the root cause when something that has none of its own ends the
    boot.
    """
    SYMPTOM = "symptom"
    """Ends the boot; a clue or an earlier symptom says more about why."""
    CAUSE = "cause"
    """Ends the boot and says why."""


EARLY = between(Stage.FIRMWARE, Stage.KERNEL)
LOADING = between(Stage.FIRMWARE, Stage.BOOTLOADER)
STAGE1 = between(Stage.KERNEL, Stage.SWITCH_ROOT)
SYSTEMD = between(Stage.INITRD, Stage.USERSPACE)
BOOTING = between(Stage.KERNEL, Stage.USERSPACE)
RUNNING = between(Stage.KERNEL, Stage.READY)

PANIC_HINT = "the lines before the panic say what the kernel was doing; boot with --vm-module=debug for more"
STORE_HINT = "write the store's erofs again, and keep the partition as large as it is: vmtests inspect IMAGE"
OVERLAY_HINT = "compare the overlay's mount options with the contract: lowerdir, upperdir and workdir"


@dataclass(frozen=True, slots=True, kw_only=True)
class LineRule:
    """A line that tells of a failure.

    `grace` is for how many seconds the console is read on before the verdict, so that what the guest still
    says about it becomes evidence. `kernel` lines count only with the kernel's time stamp, if this kernel
    stamps its lines. `prompt` lines count without their newline too.
    """

    cause: Cause
    pattern: re.Pattern[str]
    sentence: str
    hint: str
    stages: frozenset[Stage]
    owner: Owner = Owner.IMAGE
    grace: float = 0.5
    weight: Weight = Weight.CAUSE
    kernel: bool = False
    prompt: bool = False


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
    ending: bool = True
    when: Mapping[str, re.Pattern[str]] = field(default_factory=dict)
