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
    BOOT_MENU = "boot-menu"
    BOOTLOADER_ERROR = "bootloader-error"
    BOOTLOADER_INVALID = "bootloader-invalid"
    BOOTLOADER_MISSING = "bootloader-missing"
    DEFAULT_TARGET_MISSING = "default-target-missing"
    DEPENDENCY_FAILED = "dependency-failed"
    DEVICE_TIMEOUT = "device-timeout"
    DISK_READ_ERROR = "disk-read-error"
    DISK_STALLED = "disk-stalled"
    EMERGENCY_SHELL = "emergency-shell"
    ENTRY_MISSING = "entry-missing"
    EROFS_DAMAGED = "erofs-damaged"
    EROFS_FEATURE = "erofs-feature"
    EROFS_SUPERBLOCK = "erofs-superblock"
    ESP_MISSING = "esp-missing"
    ESP_UNREADABLE = "esp-unreadable"
    EXT4_DAMAGED = "ext4-damaged"
    EXT4_FEATURE = "ext4-feature"
    EXT4_SUPERBLOCK = "ext4-superblock"
    FIRMWARE_CRASH = "firmware-crash"
    FIRMWARE_NO_BOOT_DEVICE = "firmware-no-boot-device"
    FSCK_FAILED = "fsck-failed"
    GPT_DESTROYED = "gpt-destroyed"
    HOST_DISK_FULL = "host-disk-full"
    INIT_EXITED = "init-exited"
    INIT_FROZE = "init-froze"
    INIT_MISSING = "init-missing"
    INITRD_INVALID = "initrd-invalid"
    INITRD_MISSING = "initrd-missing"
    KERNEL_HANG = "kernel-hang"
    KERNEL_INVALID = "kernel-invalid"
    KERNEL_MISSING = "kernel-missing"
    KERNEL_OOPS = "kernel-oops"
    KERNEL_PANIC = "kernel-panic"
    MODULE_MISSING = "module-missing"
    MOUNT_FAILED = "mount-failed"
    NO_PROGRESS = "no-progress"
    OUT_OF_MEMORY = "out-of-memory"
    OVERLAY_UPPERDIR = "overlay-upperdir"
    OVERLAY_WORKDIR = "overlay-workdir"
    PARTITION_MISSING = "partition-missing"
    POWERED_OFF = "powered-off"
    PROGRAM_DAMAGED = "program-damaged"
    QEMU_EXITED = "qemu-exited"
    QEMU_SILENT = "qemu-silent"
    QEMU_STOPPED = "qemu-stopped"
    ROOT_FULL = "root-full"
    ROOT_READ_ONLY = "root-read-only"
    SCREEN_ONLY = "screen-only"
    SECURE_BOOT_REFUSED = "secure-boot-refused"
    STORE_TRUNCATED = "store-truncated"
    SWITCH_ROOT_FAILED = "switch-root-failed"
    TIMER_STALLED = "timer-stalled"
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

    @property
    def exit_status(self) -> int:
        """What a command exits with: 0 when ready, 1 when the image is at fault, 2 when something else is."""
        return 0 if self.ready else 1 if self.owner is Owner.IMAGE else 2

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
