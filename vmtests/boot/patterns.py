"""How failing boots look: lines of the console and events of the machine, as tables.

A new cause is a new row. Regular expressions are matched at the start of a normalised line
(`stages.normalise`), have no nested repetition, and give their named groups to the sentence.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from vmtests.boot.stages import FIRMWARE_MENUS, Stage, between
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
ANY = between(Stage.FIRMWARE, Stage.READY)


@dataclass(frozen=True, slots=True, kw_only=True)
class LineRule:
    """A line that tells of a failure.

    `grace` is for how many seconds the console is read on before the verdict, so that what the guest still
    says about it becomes evidence. `kernel` lines count only with the kernel's time stamp, if this kernel
    stamps its lines. `prompt` lines count without their newline too. `source` is `console` or `firmware`
    (the debug port). Where several rules match, the first in the table does.
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
    source: str = "console"


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


# `systemd.status_unit_format=combined` puts the unit's name in front, cut where the line is too long.
_UNIT = r"(?:\S+\.[a-z]+ - |\S*…\S* ?- )?"
_STORE_HINT = "compare partition labels and mount units with the contract: vmtests inspect IMAGE"
_ESP_HINT = "the ESP needs /EFI/BOOT/BOOTX64.EFI on a FAT file system with 512-byte sectors: vmtests inspect IMAGE"
_PANIC_HINT = "the lines before the panic say what the kernel was doing; boot with --vm-module=debug for more"

LINE_RULES = (
    # edk2 MdeModulePkg/Library/BaseMachineBootManagerLib and OvmfPkg/Library/PlatformBmPrintScLib.
    LineRule(
        cause=Cause.OUT_OF_MEMORY,
        pattern=re.compile(r"BdsDxe: failed to (?:load|start) .{1,600}: Out of Resources$"),
        sentence="the firmware had not enough memory to load the boot loader",
        hint="give the machine more memory",
        stages=LOADING,
        weight=Weight.CLUE,
    ),
    LineRule(
        cause=Cause.FIRMWARE_NO_BOOT_DEVICE,
        pattern=re.compile(r"BdsDxe: failed to (?:load|start) (?P<option>Boot\w{4} .{1,600}): (?P<why>[\w ]{1,40})$"),
        sentence="the firmware could not start {option}: {why}",
        hint=_ESP_HINT,
        stages=LOADING,
        weight=Weight.CLUE,
    ),
    LineRule(
        cause=Cause.FIRMWARE_NO_BOOT_DEVICE,
        pattern=re.compile(
            r"BdsDxe: No bootable option or device was found"
            rf'|BdsDxe: (?:loading|starting) Boot\w{{4}} "{FIRMWARE_MENUS}'
            r"|UEFI Interactive Shell v\d|Shell>|No bootable device\."  # the last: SeaBIOS src/boot.c
        ),
        sentence="the firmware found nothing to boot",
        hint=_ESP_HINT,
        stages=LOADING,
        weight=Weight.SYMPTOM,
        prompt=True,
    ),
    # edk2 UefiCpuPkg/Library/CpuExceptionHandlerLib; the dump starts where the cursor was.
    LineRule(
        cause=Cause.FIRMWARE_CRASH,
        pattern=re.compile(r"[^!]{0,200}!!!! \w{2,10} Exception Type - (?P<what>[^!]{1,60}\)) "),
        sentence="a program under the firmware crashed: exception {what}",
        hint="try another firmware build; the dump names the image that crashed",
        stages=EARLY,
        owner=Owner.HOST,
        grace=1.0,
    ),
    # systemd src/boot/boot.c, log_error_status(): with file and line since 254. Errors that are ignored say
    # so.
    LineRule(
        cause=Cause.OUT_OF_MEMORY,
        pattern=re.compile(
            r"(?:\S{1,100}\.c:\d{1,6}@\w{1,60}: )?"
            r"(?:Error (?:loading|preparing)|Failed to execute) .{1,600}: Out of resources$"
        ),
        sentence="the boot loader had not enough memory for kernel and initrd",
        hint="give the machine more memory, or make the initrd smaller",
        stages=EARLY,
        grace=1.0,
    ),
    LineRule(
        cause=Cause.BOOTLOADER_ERROR,
        pattern=re.compile(
            r"(?:\S{1,100}\.c:\d{1,6}@\w{1,60}: )?(?!.{0,900}, ignoring)"
            r"(?P<what>(?:Error (?:loading|preparing|executing)|Failed to (?:execute|start)) "
            r".{1,600}: .{1,60}"
            r"|No loader found\..{0,120}|No configuration file found\b.{0,120})$"
        ),
        sentence="the boot loader failed: {what}",
        hint="the boot entry must name a kernel and an initrd that are on the ESP: vmtests inspect IMAGE",
        stages=EARLY,
        grace=1.0,
    ),
    # GRUB grub-core/kern/err.c, in adopted images; it takes a key or goes on to its own shell after an error.
    LineRule(
        cause=Cause.BOOTLOADER_ERROR,
        pattern=re.compile(r"error: (?P<what>.{1,300}?)\.?$"),
        sentence="the boot loader failed: {what}",
        hint="the boot loader's configuration names something that is not there",
        stages=frozenset({Stage.BOOTLOADER}),
        grace=1.0,
    ),
    LineRule(
        cause=Cause.BOOTLOADER_ERROR,
        pattern=re.compile(r"grub(?: rescue)?> ?$"),
        sentence="the boot loader found no configuration and waits for commands",
        hint="GRUB needs its grub.cfg where it was told at its installation to look for it",
        stages=frozenset({Stage.BOOTLOADER}),
        prompt=True,
    ),
    # Linux drivers/firmware/efi/libstub, efi_err(): some are survived.
    LineRule(
        cause=Cause.BOOTLOADER_ERROR,
        pattern=re.compile(r"EFI stub: ERROR: (?P<what>.{1,300})$"),
        sentence="the kernel's EFI stub failed: {what}",
        hint="look at kernel and initrd on the ESP",
        stages=EARLY,
        weight=Weight.CLUE,
    ),
    # Linux init/main.c, kernel_init(); kernel/panic.c.
    LineRule(
        cause=Cause.INIT_MISSING,
        pattern=re.compile(
            r"Kernel panic - not syncing: "
            r"(?P<what>No working init found|Requested init \S{1,400} failed \(error -\d+\))"
        ),
        sentence="the kernel found no init to run: {what}",
        hint="the initrd needs an /init that can be executed; without one the kernel tries init= itself",
        stages=RUNNING,
        grace=1.0,
        kernel=True,
    ),
    LineRule(
        cause=Cause.OUT_OF_MEMORY,
        pattern=re.compile(
            r"Kernel panic - not syncing: "
            r"(?P<what>(?:System is deadlocked on memory|Out of memory).{0,100})"
        ),
        sentence="the guest ran out of memory: {what}",
        hint="give the machine more memory",
        stages=RUNNING,
        grace=1.0,
        kernel=True,
    ),
    LineRule(
        cause=Cause.INIT_EXITED,
        # Linux kernel/exit.c, do_exit(): somebody else may have said why.
        pattern=re.compile(
            r"(?:---\[ end )?Kernel panic - not syncing: "
            r"Attempted to kill init! exitcode=(?P<code>0x[0-9a-f]{1,8})"
        ),
        sentence="the first process ended (exit code {code}), and the kernel panicked",
        hint="init must be systemd, or a program that never ends",
        stages=RUNNING,
        grace=1.0,
        weight=Weight.SYMPTOM,
        kernel=True,
    ),
    LineRule(
        cause=Cause.KERNEL_PANIC,
        # panic-on-fail of NixOS: somebody else said why.
        pattern=re.compile(
            r"(?:---\[ end )?Kernel panic - not syncing: "
            r"(?P<what>sysrq triggered crash|Attempted to kill init!.{0,60})"
        ),
        sentence="the kernel panicked: {what}",
        hint=_PANIC_HINT,
        stages=RUNNING,
        grace=1.0,
        weight=Weight.SYMPTOM,
        kernel=True,
    ),
    LineRule(
        cause=Cause.KERNEL_PANIC,
        pattern=re.compile(r"(?:---\[ end )?Kernel panic - not syncing: (?P<what>.{0,300}?)(?: \]---)?$"),
        sentence="the kernel panicked: {what}",
        hint=_PANIC_HINT,
        stages=RUNNING,
        grace=1.0,
        kernel=True,
    ),
    # Linux arch/x86/kernel/dumpstack.c, __die_header(): "<what>: <error code> [#<count>]"; lib/bug.c. Soft
    # lockups and warnings are survived, and a loaded host without KVM makes them.
    LineRule(
        cause=Cause.KERNEL_OOPS,
        pattern=re.compile(
            r"(?P<what>BUG: (?:kernel NULL pointer dereference|unable to handle).{0,200}"
            r"|kernel BUG at .{1,200}"
            r"|[A-Za-z][^:\[]{1,60}(?:: [^:\[]{1,60})?: [0-9a-f]{4,16} \[#\d{1,4}\]).{0,300}$"
        ),
        sentence="the kernel crashed in a process: {what}",
        hint="the call trace in console.log names the function; try another accelerator or CPU model",
        stages=RUNNING,
        grace=3.0,
        weight=Weight.SYMPTOM,
        kernel=True,
    ),
    # Linux kernel/watchdog.c. A loaded host without KVM makes the shorter ones.
    LineRule(
        cause=Cause.KERNEL_HANG,
        pattern=re.compile(
            r"watchdog: BUG: soft lockup - CPU#(?P<cpu>\d{1,5}) stuck for (?P<seconds>1[2-9]\d|[2-9]\d\d|\d{4,9})s! "
            r"\[(?P<what>.{1,64})\]"
        ),
        sentence="the kernel hangs: processor {cpu} is stuck for {seconds} s in {what}",
        hint="the call trace in console.log names the function; try another accelerator or CPU model",
        stages=RUNNING,
        grace=1.0,
        kernel=True,
    ),
    LineRule(
        cause=Cause.OUT_OF_MEMORY,
        pattern=re.compile(r"(?:Memory cgroup o|O)ut of memory: Killed process \d+ \((?P<what>.{1,64}?)\)"),
        sentence="the guest ran out of memory, the kernel killed {what}",
        hint="give the machine more memory",
        stages=BOOTING,
        weight=Weight.CLUE,
        kernel=True,
    ),
    # systemd src/core/job.c and the tables of src/core/{device,mount,service}.c.
    LineRule(
        cause=Cause.DEVICE_TIMEOUT,
        pattern=re.compile(rf"\[TIME\] Timed out waiting for device {_UNIT}(?P<device>.+?)\.?$"),
        sentence="device {device} did not appear",
        hint=_STORE_HINT,
        stages=SYSTEMD,
        weight=Weight.CLUE,
    ),
    LineRule(
        cause=Cause.MOUNT_FAILED,
        pattern=re.compile(rf"\[(?:FAILED|TIME)\] (?:Failed to mount|Timed out mounting) {_UNIT}(?P<where>.+?)\.?$"),
        sentence="{where} could not be mounted",
        hint="the kernel's lines above say why; look at the file system with vmtests inspect IMAGE",
        stages=SYSTEMD,
        weight=Weight.CLUE,
    ),
    # initramfs-tools scripts/local, local_device_setup().
    LineRule(
        cause=Cause.DEVICE_TIMEOUT,
        pattern=re.compile(r"ALERT!  (?P<device>\S{1,300}) does not exist\.  Dropping to a shell!$"),
        sentence="device {device} did not appear",
        hint="root= on the kernel's command line must name a file system that is there",
        stages=STAGE1,
        weight=Weight.CLUE,
    ),
    # nixpkgs nixos/modules/system/boot/systemd/initrd.nix: the service fails when init= leads nowhere.
    LineRule(
        cause=Cause.INIT_MISSING,
        pattern=re.compile(
            r"\[FAILED\] Failed to start .{0,80}(?:find-nixos-closure|Find NixOS closure)"
            r"|No init= parameter on the kernel command line$"
        ),
        sentence="what init= names on the kernel command line is not in the store",
        hint="init= must name a program that is in the store partition",
        stages=STAGE1,
        weight=Weight.CLUE,
    ),
    LineRule(
        cause=Cause.SWITCH_ROOT_FAILED,
        pattern=re.compile(rf"\[FAILED\] Failed to start {_UNIT}Switch Root\.?$"),
        sentence="the initrd could not hand over to the system",
        hint="the new root must be there with an os-release file, and init= must name a program of it",
        stages=STAGE1,
        weight=Weight.CLUE,
    ),
    LineRule(
        cause=Cause.UNIT_FAILED,
        pattern=re.compile(rf"\[(?:FAILED|TIME)\] (?:Failed to start|Timed out starting) {_UNIT}(?P<unit>.+?)\.?$"),
        sentence="{unit} failed",
        hint="boot with --vm-module=debug to see the unit's own words",
        stages=STAGE1,
        weight=Weight.CLUE,
    ),
    # In the running system a failed unit is no failed boot, but a check of a file system can end in a shell.
    LineRule(
        cause=Cause.UNIT_FAILED,
        pattern=re.compile(
            rf"\[(?:FAILED|TIME)\] (?:Failed to start|Timed out starting) {_UNIT}"
            r"(?P<unit>File System Check .+?)\.?$"
        ),
        sentence="{unit} failed",
        hint="the file system is damaged; look at it with vmtests inspect IMAGE",
        stages=frozenset({Stage.USERSPACE}),
        weight=Weight.CLUE,
    ),
    LineRule(
        cause=Cause.DEPENDENCY_FAILED,
        pattern=re.compile(rf"\[(?:DEPEND|ASSERT)\] (?:Dependency|Assertion) failed for {_UNIT}(?P<unit>.+?)\.?$"),
        sentence="something that {unit} needs failed",
        hint="boot with --vm-module=debug to see what was waited for",
        stages=SYSTEMD,
        weight=Weight.CLUE,
    ),
    # systemd units/emergency.{target,service}, src/sulogin-shell; util-linux sulogin; dracut;
    # initramfs-tools; nixpkgs panic-on-fail.service and stage-1-init.sh.
    LineRule(
        cause=Cause.EMERGENCY_SHELL,
        pattern=re.compile(
            r"You are in (?:emergency|rescue) mode\b"
            r"|(?:\[OK\] )?Started (?:emergency\.service - )?Emergency Shell\.$"
            r"|(?:\[OK\] )?Reached target (?:emergency\.target - )?Emergency Mode\.$"
            r"|Cannot open access to console, the root account is locked"
            r"|Press Enter for (?:system )?maintenance|Give root password for (?:system )?maintenance"
            r"|Starting (?:panic-on-fail\.service - )?panic-on-fail\.service"
            r"|Entering emergency mode\. Exit the shell to continue"
            r"|\(initramfs\) ?$"
            r"|An error occurred in stage 1 of the boot process"
        ),
        sentence="the guest gave up and went into emergency mode",
        hint="boot with --vm-module=debug and look at the journal in the emergency shell",
        stages=SYSTEMD,
        weight=Weight.SYMPTOM,
        prompt=True,
    ),
)

ABSENT_DEVICE = LineRule(
    cause=Cause.PARTITION_MISSING,
    pattern=re.compile("A start job is running for "),
    sentence="the boot waits for {device}, and the disk has no such partition",
    hint=_STORE_HINT,
    stages=SYSTEMD,
)
"""Found by `waits.Waits`, which knows the disk."""

_KVM = re.compile(r"KVM internal error|failed to initialize kvm|Could not access KVM kernel module", re.IGNORECASE)
_ACCEL_HINT = "run with --vm-accel=tcg, or on a host whose KVM works; vmtests doctor tells"

# Names and details as in QEMU's QMP reference manual (run-state); `exit` is the end of the process.
EVENT_RULES = (
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
        hint=_PANIC_HINT,
        grace=1.0,
        ending=False,
    ),
    EventRule(
        cause=Cause.KERNEL_PANIC,
        name="SHUTDOWN",
        when={"reason": re.compile(r"guest-panic$")},
        sentence="the guest's kernel reported a panic",
        hint=_PANIC_HINT,
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
