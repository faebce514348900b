"""How a boot fails in the machine's events, and what the silence of a stage most likely means."""

import re
from dataclasses import dataclass

from vmtests.boot.rules import PANIC_HINT, EventRule, Weight
from vmtests.boot.stages import Stage
from vmtests.boot.verdict import Cause
from vmtests.errors import Owner

_KVM = re.compile(r"KVM internal error|failed to initialize kvm|Could not access KVM kernel module", re.IGNORECASE)
_ACCEL_HINT = "run with --vm-accel=tcg, or on a host whose KVM works; vmtests doctor tells"

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
    EventRule(
        cause=Cause.BOOT_LOOP,
        name="BOOT_LOOP",
        sentence="the guest restarted {count} times without getting ready",
        hint="the lines before each restart in console.log say why",
    ),
    EventRule(
        cause=Cause.POWERED_OFF,
        name="CLOUD_END",
        sentence="the cloud took the machine away: {reason}",
        hint="run again, in another zone maybe; nothing in the image can change that",
        owner=Owner.CLOUD,
    ),
    EventRule(
        cause=Cause.QEMU_EXITED,
        name="exit",
        sentence="QEMU {how}{last}",
        hint="qemu.argv has the command line",
        owner=Owner.HOST,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """What it most likely means when a stage makes no progress."""

    hint: str
    owner: Owner = Owner.IMAGE


SILENCES = {
    Stage.FIRMWARE: Silence(
        hint="the firmware did not come to an end; check accelerator and firmware with vmtests doctor",
        owner=Owner.HOST,
    ),
    Stage.BOOTLOADER: Silence(hint="the boot loader waits; its timeout must be 0 and its entry must be on the ESP"),
    Stage.KERNEL: Silence(hint="the kernel may print to another console: the command line needs console=ttyS0"),
    Stage.INITRD: Silence(hint="boot with --vm-module=debug to see what the initrd waits for"),
    Stage.SWITCH_ROOT: Silence(hint="init= must name a program that is in the store partition"),
    Stage.USERSPACE: Silence(hint="boot with --vm-module=debug to see which job hangs"),
}
"""By stage."""
