"""What firmware, kernel and programs say of why they failed: lines that are nearer to the cause than `patterns`.

Messages of mount(8), chroot(1) and e2fsck(8) come through the journal to the console where the guest was asked to
show them (`guest.credentials.voices`); those of the kernel come by themselves. They are read before `patterns`.
"""

import re

from vmtests.boot.patterns import EARLY, LOADING, STAGE1, SYSTEMD, LineRule, Weight
from vmtests.boot.stages import Stage, between
from vmtests.boot.verdict import Cause
from vmtests.errors import Owner

_MOUNTING = between(Stage.KERNEL, Stage.USERSPACE)
_STORE_HINT = "write the store's erofs again, and keep the partition as large as it is: vmtests inspect IMAGE"
_ROOT_HINT = "look at the root file system with e2fsck -fn"
_OVERLAY_HINT = "compare the overlay's mount options with the contract: lowerdir, upperdir and workdir"
_SAID = r"(?:\S{1,64}\[\d{1,7}\]: )?"  # the journal's `name[pid]: `


def _clue(cause: Cause, pattern: str, sentence: str, hint: str, *, kernel: bool = False) -> LineRule:
    """Return a rule for a line that says why something failed, which ends the boot only later."""
    stages = _MOUNTING if kernel else SYSTEMD
    return LineRule(
        cause=cause,
        pattern=re.compile(pattern if kernel else _SAID + pattern),
        sentence=sentence,
        hint=hint,
        stages=stages,
        weight=Weight.CLUE,
        kernel=kernel,
    )


WORDS = (
    # edk2 MdeModulePkg/Library/UefiBootManagerLib/BmBoot.c and OvmfPkg/Library/PlatformBmPrintScLib.
    LineRule(
        cause=Cause.SECURE_BOOT_REFUSED,
        pattern=re.compile(
            r"BdsDxe: failed to (?:load|start) Boot\w{4} .{1,600}: (?:Access Denied|Security Violation)$"
        ),
        sentence="secure boot refused the boot loader: its signature is missing or of a key that is not enrolled",
        hint="sign the boot loader with a key of the firmware's db, or boot without secure boot",
        stages=LOADING,
        grace=1.0,
    ),
    LineRule(
        cause=Cause.BOOTLOADER_INVALID,
        pattern=re.compile(
            r"BdsDxe: failed to (?:load|start) Boot\w{4} .{1,600}: (?P<why>Load Error|Unsupported|Volume Corrupt)$"
        ),
        sentence="the firmware cannot load the boot loader: {why}",
        hint="the boot loader must be a whole EFI program for x86-64: vmtests inspect IMAGE",
        stages=LOADING,
        grace=1.0,
    ),
    # Linux fs/erofs/super.c, fs/erofs/inode.c, fs/erofs/internal.h: erofs_err() puts the device in front.
    _clue(
        Cause.EROFS_SUPERBLOCK,
        r"erofs(?: \(device \S{1,32}\))?: (?P<what>(?:erofs_read_superblock: )?cannot find valid erofs superblock)",
        "the kernel finds no erofs on the store partition: {what}",
        _STORE_HINT,
        kernel=True,
    ),
    _clue(
        Cause.EROFS_FEATURE,
        r"erofs(?: \(device \S{1,32}\))?: .{0,60}(?P<what>unidentified (?:incompatible )?feature.{0,60})",
        "the kernel does not know a feature of the store's erofs: {what}",
        "mkfs.erofs -E without it, or a newer kernel",
        kernel=True,
    ),
    _clue(
        Cause.EROFS_DAMAGED,
        r"erofs(?: \(device \S{1,32}\))?: (?P<what>.{1,200})$",
        "the store's erofs is damaged: {what}",
        _STORE_HINT,
        kernel=True,
    ),
)
