"""How a boot fails in the words of systemd and of the programs that it runs.

Messages of mount(8), chroot(1) and e2fsck(8) come through the journal to the console where the guest was asked to
show them (`guest.credentials.voices`).
"""

import re

from vmtests.boot.rules import OVERLAY_HINT, STAGE1, STORE_HINT, SYSTEMD, LineRule, Weight
from vmtests.boot.stages import Stage
from vmtests.boot.verdict import Cause

_DEVICE_HINT = "compare partition labels and mount units with the contract: vmtests inspect IMAGE"
_SAID = r"(?:\S{1,64}\[\d{1,7}\]: )?"  # the journal's `name[pid]: `
# `systemd.status_unit_format=combined` puts the unit's name in front, cut where the line is too long.
_UNIT = r"(?:\S+\.[a-z]+ - |\S*…\S* ?- )?"


def _clue(cause: Cause, pattern: str, sentence: str, hint: str) -> LineRule:
    """Return a rule for a line that says why something failed, which ends the boot only later."""
    return LineRule(
        cause=cause,
        pattern=re.compile(_SAID + pattern),
        sentence=sentence,
        hint=hint,
        stages=SYSTEMD,
        weight=Weight.CLUE,
    )


RULES = (
    # coreutils mkdir(1), which makes upperdir and workdir before the mount.
    _clue(
        Cause.OVERLAY_UPPERDIR,
        r"mkdir: (?P<what>.{1,300}upper.{0,100}: (?:File exists|Not a directory))$",
        "the overlay's upperdir cannot be made: {what}",
        OVERLAY_HINT,
    ),
    # mount(8): libmount's words for ENODEV.
    _clue(
        Cause.MODULE_MISSING,
        r"mount: (?P<where>\S{1,300}): unknown filesystem type '(?P<type>[\w.-]{1,32})'",
        "{where} could not be mounted: the kernel knows no {type}, and the initrd has no module for it",
        "the initrd needs the kernel's module, and modules.dep must name it",
    ),
    # strerror(3), at the end of what a program says; a shell that reads a damaged script finds no syntax.
    _clue(
        Cause.ROOT_FULL,
        r"(?P<what>.{1,400}: No space left on device)$",
        "the root file system is full: {what}",
        "make the root partition larger, or the disk, if it grows",
    ),
    _clue(
        Cause.ROOT_READ_ONLY,
        r"(?P<what>.{1,400}: Read-only file system)$",
        "the root file system cannot be written: {what}",
        "root must be mounted rw, and its ext4 must not have the feature read-only",
    ),
    _clue(
        Cause.PROGRAM_DAMAGED,
        r"(?P<what>.{1,400}: (?:Exec format error|Structure needs cleaning|Bad message"
        r"|(?:line )?\d{1,6}: [Ss]yntax error.{0,200}))$",
        "a program that the boot needs cannot be run: {what}",
        STORE_HINT,
    ),
    # e2fsprogs e2fsck/problem.c and unix.c.
    _clue(
        Cause.FSCK_FAILED,
        r".{0,200}UNEXPECTED INCONSISTENCY; RUN fsck MANUALLY",
        "a file system is damaged beyond what fsck mends by itself",
        "run e2fsck on the partition by hand",
    ),
    _clue(
        Cause.FSCK_FAILED,
        r"\[(?:FAILED|TIME)\] (?:Failed to start|Timed out starting) (?:\S{1,100} ?- )?"
        r"(?P<unit>File System Check .+?)\.?$",
        "{unit} failed",
        "the file system is damaged; look at it with vmtests inspect IMAGE",
    ),
    # systemd src/core/main.c, do_queue_default_job(): where it goes when the default target cannot be loaded.
    LineRule(
        cause=Cause.DEFAULT_TARGET_MISSING,
        pattern=re.compile(
            r"(?:\[OK\] )?Started (?:rescue\.service - )?Rescue Shell\.$"
            r"|(?:\[OK\] )?Reached target (?:rescue\.target - )?Rescue Mode\.$|You are in rescue mode\b"
        ),
        sentence="the system went into rescue mode: its default target cannot be loaded, or rescue mode was asked for",
        hint="default.target must lead to a unit that is there; the kernel's command line must not say `rescue`",
        stages=frozenset({Stage.USERSPACE}),
        weight=Weight.SYMPTOM,
        prompt=True,
    ),
    # systemd src/core/job.c and the tables of src/core/{device,mount,service}.c.
    LineRule(
        cause=Cause.DEVICE_TIMEOUT,
        pattern=re.compile(rf"\[TIME\] Timed out waiting for device {_UNIT}(?P<device>.+?)\.?$"),
        sentence="device {device} did not appear",
        hint=_DEVICE_HINT,
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
    LineRule(
        cause=Cause.DEPENDENCY_FAILED,
        pattern=re.compile(rf"\[(?:DEPEND|ASSERT)\] (?:Dependency|Assertion) failed for {_UNIT}(?P<unit>.+?)\.?$"),
        sentence="something that {unit} needs failed",
        hint="boot with --vm-module=debug to see what was waited for",
        stages=SYSTEMD,
        weight=Weight.CLUE,
    ),
    # systemd src/core/main.c, main(): the first process stands still for ever, and the kernel says nothing of it.
    LineRule(
        cause=Cause.INIT_FROZE,
        pattern=re.compile(r"\[!{6}\] (?P<what>.{1,300}?)(?:, freezing)?\.?$"),
        sentence="systemd gave up and stands still: {what}",
        hint="the system that stage 1 switches to needs an init that can be run, with all that it stands on",
        stages=SYSTEMD,
        weight=Weight.SYMPTOM,
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
    hint=_DEVICE_HINT,
    stages=SYSTEMD,
)
"""Found by `waits.Waits`, which knows the disk."""
