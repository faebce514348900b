"""What came of a boot, in a form for people and for programs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from vmtests.boot.stages import Stage
from vmtests.errors import Owner


class Cause(StrEnum):
    """Why a boot failed."""

    ACCELERATOR_BROKEN = "accelerator-broken"
    BOOT_LOOP = "boot-loop"
    BOOTLOADER_ERROR = "bootloader-error"
    DEPENDENCY_FAILED = "dependency-failed"
    DEVICE_TIMEOUT = "device-timeout"
    DISK_STALLED = "disk-stalled"
    EMERGENCY_SHELL = "emergency-shell"
    FIRMWARE_CRASH = "firmware-crash"
    FIRMWARE_NO_BOOT_DEVICE = "firmware-no-boot-device"
    INIT_MISSING = "init-missing"
    KERNEL_OOPS = "kernel-oops"
    KERNEL_PANIC = "kernel-panic"
    MOUNT_FAILED = "mount-failed"
    NO_PROGRESS = "no-progress"
    OUT_OF_MEMORY = "out-of-memory"
    POWERED_OFF = "powered-off"
    QEMU_EXITED = "qemu-exited"
    QEMU_STOPPED = "qemu-stopped"
    SCREEN_ONLY = "screen-only"
    UNEXPECTED_RESET = "unexpected-reset"
    UNIT_FAILED = "unit-failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A line that led to the verdict: seconds since power-on, where it was seen, printable text."""

    t: float
    source: str
    text: str

    def to_json(self) -> dict[str, object]:
        """Return the fields by name, the time in milliseconds' precision."""
        return {"t": round(self.t, 3), "source": self.source, "text": self.text}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Ready, or failed and why.

    `stage` is where the boot was, `sentence` says what happened, `hint` what can be done, `owner` who has to
    act (None when ready). `evidence_to_verdict_s` is the time in seconds from the line or event that decided
    to the verdict; `seconds` the time in each stage.
    """

    ready: bool
    stage: Stage
    cause: Cause | None
    sentence: str
    evidence: tuple[Evidence, ...]
    hint: str
    owner: Owner | None
    evidence_to_verdict_s: float
    seconds: Mapping[Stage, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Return the verdict as `vmtests boot --json` prints it."""
        return {
            "verdict": "ready" if self.ready else "failed",
            "stage": str(self.stage),
            "cause": None if self.cause is None else str(self.cause),
            "sentence": self.sentence,
            "evidence": [evidence.to_json() for evidence in self.evidence],
            "hint": self.hint,
            "owner": None if self.owner is None else str(self.owner),
            "seconds": {str(stage): seconds for stage, seconds in self.seconds.items()},
            "evidence_to_verdict_s": round(self.evidence_to_verdict_s, 3),
        }
