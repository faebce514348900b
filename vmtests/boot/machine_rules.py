"""How a boot fails in the machine's events, and what the silence of a stage most likely means."""

import re
from dataclasses import dataclass

from vmtests.boot.rules import DEVICE_HINT, PANIC_HINT, STAGE1, SYSTEMD, EventRule, LineRule, Weight, rule
from vmtests.boot.stages import Stage
from vmtests.causes import Cause
from vmtests.errors import Owner
from vmtests.host.architecture import GUEST

_KVM = re.compile(r"KVM internal error|failed to initialize kvm|Could not access KVM kernel module", re.IGNORECASE)
_ACCEL_HINT = "run with --vm-accel=tcg, or on a host whose KVM works; vmtests doctor tells"

CLOUD_END = EventRule(
    cause=Cause.POWERED_OFF,
    name="CLOUD_END",
    sentence="the cloud took the machine away: {reason}",
    hint="run again, in another zone maybe; nothing in the image can change that",
    owner=Owner.CLOUD,
)
"""What the guest says of it is the same as when it powers itself off."""

LOOP_RESETS = 2
"""Restarts without getting ready that make a boot loop. One alone is no failure before the kernel: shim's fallback and
systemd-boot's enrolment of keys end in one (shim fallback.c, systemd src/boot/secure-boot.c)."""

PLANS = 3
"""Restarts that a good boot may plan, one after the other: an installation and an update do."""

BOOT_LOOP = EventRule(
    cause=Cause.BOOT_LOOP,
    name="BOOT_LOOP",
    sentence="the guest restarted {count} times without getting ready",
    hint="the lines before each restart in console.log say why",
)
"""Found by who follows a console, and counts the restarts."""

# Names and details as in QEMU's QMP reference manual (run-state); `exit` is the end of the process.
RULES = (
    EventRule(
        cause=Cause.ACCELERATOR_BROKEN,
        name="STOP",
        when={"status": re.compile(r"internal-error$")},
        sentence="the accelerator gave up: QEMU stopped the guest with an internal error",
        hint=_ACCEL_HINT,
        owner=Owner.HOST,
        weight=Weight.CAUSE,
    ),
    EventRule(
        cause=Cause.ACCELERATOR_BROKEN,
        name="exit",
        when={"stderr": _KVM},
        sentence="the accelerator does not work, and QEMU {how}",
        hint=_ACCEL_HINT,
        owner=Owner.HOST,
        weight=Weight.CAUSE,
    ),
    # qapi/block-core.json: what QEMU met on the host when the guest used its disk.
    EventRule(
        cause=Cause.HOST_DISK_FULL,
        name="BLOCK_IO_ERROR",
        when={"action": re.compile("stop$"), "nospace": re.compile("True$")},
        sentence="the host's disk is full, and QEMU stopped the guest that wanted to write",
        hint="free some space where the results are",
        owner=Owner.HOST,
        weight=Weight.CAUSE,
    ),
    EventRule(
        cause=Cause.DISK_READ_ERROR,
        name="BLOCK_IO_ERROR",
        when={"operation": re.compile("read$")},
        sentence="the host could not read the machine's disk ({reason})",
        hint="the host's disk or the image file is damaged; nothing in the image can mend that",
        owner=Owner.HOST,
        weight=Weight.CLUE,
        ending=False,
    ),
    EventRule(
        cause=Cause.KERNEL_PANIC,
        name="GUEST_PANICKED",
        sentence="the guest's kernel reported a panic",
        hint=PANIC_HINT,
        grace=1.0,
        ending=False,
    ),
    EventRule(
        cause=Cause.KERNEL_PANIC,
        name="SHUTDOWN",
        when={"reason": re.compile(r"guest-panic$")},
        sentence="the guest's kernel reported a panic",
        hint=PANIC_HINT,
    ),
    EventRule(
        cause=Cause.UNEXPECTED_RESET,
        name="SHUTDOWN",
        when={"reason": re.compile(r"guest-reset$")},
        sentence="the guest restarted by itself",
        hint="the last lines of console.log say why; a panic that is not on the console restarts too",
    ),
    EventRule(
        cause=Cause.POWERED_OFF,
        name="SHUTDOWN",
        when={"reason": re.compile(r"guest-shutdown$")},
        sentence="the guest powered itself off",
        hint="the last lines of console.log say what asked for it",
    ),
    EventRule(
        cause=Cause.POWERED_OFF,
        name="SHUTDOWN",
        sentence="the machine was switched off from outside ({reason})",
        hint="something on the host ended QEMU",
        owner=Owner.HOST,
    ),
    EventRule(
        cause=Cause.UNEXPECTED_RESET,
        name="RESET",
        sentence="the guest restarted by itself",
        hint="the last lines of console.log say why; a panic that is not on the console restarts too",
    ),
    BOOT_LOOP,
    CLOUD_END,
    EventRule(
        cause=Cause.QEMU_EXITED,
        name="exit",
        sentence="QEMU {how}{last}",
        hint="qemu.argv has the command line",
        owner=Owner.HOST,
    ),
)


ABSENT_DEVICE: LineRule = rule(
    Cause.PARTITION_MISSING,
    "A start job is running for ",
    "the boot waits for {device}, and the disk has no such partition",
    DEVICE_HINT,
    "[ ***  ] A start job is running for /dev/disk/by-partlabel/nix-store (6s / 45s)",
    stages=SYSTEMD,
    weight=Weight.CAUSE,
)
"""Found by `waits.Waits`, which knows the disk."""


INITRD_SHELL: LineRule = rule(
    Cause.EMERGENCY_SHELL,
    "",
    "the boot stands in a shell of the initrd",
    "a longer recording, or rd.debug or debug on the kernel's command line, would tell what it was started for",
    "/ # ",
    stages=STAGE1,
    weight=Weight.WAIT,
    grace=10.0,
)
"""Found by `course.Course`, which knows whether an initrd means to hand over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """What it most likely means when a stage makes no progress."""

    hint: str
    owner: Owner = Owner.IMAGE


FIRMWARE_SPOKE = "the firmware is the last that is heard: it still looks for something to start, or what it started \
prints elsewhere"
SILENCES = {
    Stage.FIRMWARE: Silence(
        hint="nothing of a boot was recognised: see that this is the console of the machine, from its start",
        owner=Owner.HOST,
    ),
    Stage.BOOTLOADER: Silence(
        hint="the boot loader waits, or the kernel that it started talks to another console: its timeout must not be "
        "endless, and the kernel's command line needs the serial console"
    ),
    Stage.KERNEL: Silence(
        hint=f"the kernel may print to another console: the command line needs console={GUEST.console}"
    ),
    Stage.INITRD: Silence(
        hint="rd.systemd.log_level=debug systemd.log_target=console, rd.debug or debug on the kernel's command "
        "line show "
        "what the initrd waits for"
    ),
    Stage.SWITCH_ROOT: Silence(hint="init= must name a program that is in root, with all that it stands on"),
    Stage.USERSPACE: Silence(
        hint="a longer recording, the login prompt of a getty on this console, or systemd.log_target=console would "
        "tell more"
    ),
}
"""By stage."""
