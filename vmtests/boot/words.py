"""What firmware, kernel and programs say of why they failed: lines that are nearer to the cause than `patterns`.

Messages of mount(8), chroot(1) and e2fsck(8) come through the journal to the console where the guest was asked to
show them (`guest.credentials.voices`); those of the kernel come by themselves. They are read before `patterns`.
"""

import re

from vmtests.boot.patterns import BOOTING, LOADING, SYSTEMD, LineRule, Weight
from vmtests.boot.stages import Stage
from vmtests.boot.verdict import Cause
from vmtests.errors import Owner

_STORE_HINT = "write the store's erofs again, and keep the partition as large as it is: vmtests inspect IMAGE"
_ROOT_HINT = "look at the root file system with e2fsck -fn"
_OVERLAY_HINT = "compare the overlay's mount options with the contract: lowerdir, upperdir and workdir"
_EROFS = r"erofs(?: \(device \S{1,32}\)|: \(device \S{1,32}\))?: (?:erofs_\w{1,40}: )?"
_SAID = r"(?:\S{1,64}\[\d{1,7}\]: )?"  # the journal's `name[pid]: `


def _clue(cause: Cause, pattern: str, sentence: str, hint: str, *, kernel: bool = False) -> LineRule:
    """Return a rule for a line that says why something failed, which ends the boot only later."""
    stages = BOOTING if kernel else SYSTEMD
    return LineRule(
        cause=cause,
        pattern=re.compile(pattern if kernel else _SAID + pattern),
        sentence=sentence,
        hint=hint,
        stages=stages,
        weight=Weight.CLUE,
        kernel=kernel,
    )


def _early(cause: Cause, pattern: str, sentence: str, hint: str) -> LineRule:
    return LineRule(
        cause=cause,
        pattern=re.compile(pattern),
        sentence=sentence,
        hint=hint,
        stages=LOADING,
        weight=Weight.CLUE,
    )


def _loader(cause: Cause, pattern: str, sentence: str, hint: str) -> LineRule:
    return LineRule(
        cause=cause,
        # With file and line since systemd 254.
        pattern=re.compile(r"(?:\S{1,100}\.c:\d{1,6}@\w{1,60}: )?" + pattern, re.IGNORECASE),
        sentence=sentence,
        hint=hint,
        stages=LOADING,
        grace=1.0,
    )


WORDS = (
    # edk2 MdeModulePkg/Library/UefiBootManagerLib/BmBoot.c and OvmfPkg/Library/PlatformBmPrintScLib; another boot
    # option may still do.
    _early(
        Cause.SECURE_BOOT_REFUSED,
        r"BdsDxe: failed to (?:load|start) Boot\w{4} .{1,600}: (?P<why>Access Denied|Security Violation)$",
        "secure boot refused the boot loader ({why}): it is not signed, or with a key that is not enrolled",
        "sign the boot loader with a key of the firmware's db, or boot without secure boot",
    ),
    _early(
        Cause.BOOTLOADER_INVALID,
        r"BdsDxe: failed to (?:load|start) Boot\w{4} .{1,600}: (?P<why>Load Error|Unsupported|Volume Corrupt)$",
        "the firmware cannot load the boot loader ({why})",
        "the boot loader must be a whole EFI program for x86-64: vmtests inspect IMAGE",
    ),
    # systemd src/boot/boot.c, image_start() and initrd_prepare(); the words are those of EFI's status.
    _loader(
        Cause.KERNEL_INVALID,
        r"(?P<what>Error loading .{1,600}: (?:Unsupported|Load error|Volume corrupt\w*))$",
        "the boot loader cannot start the kernel: {what}",
        "the kernel on the ESP must be a whole EFI program for x86-64: vmtests inspect IMAGE",
    ),
    _loader(
        Cause.INITRD_MISSING,
        r"(?P<what>Error preparing initrd: Not found)$",
        "the boot loader finds no initrd: {what}",
        "the boot entry must name an initrd that is on the ESP: vmtests inspect IMAGE",
    ),
    # systemd src/boot/util.h, xmalloc_pages() and efi_assert(): it halts.
    LineRule(
        cause=Cause.OUT_OF_MEMORY,
        pattern=re.compile(r"\S{1,100}@efi_assert: .{1,60}Assertion '.{0,100}AllocatePages.{0,200}' failed"),
        sentence="the boot loader had not enough memory",
        hint="give the machine more memory",
        stages=LOADING,
        owner=Owner.HOST,
        grace=0.25,
    ),
    # Linux init/initramfs.c, do_populate_rootfs().
    _clue(
        Cause.INITRD_INVALID,
        r"Initramfs unpacking failed: (?!write error)(?P<what>.{1,200})$",
        "the kernel cannot unpack the initrd: {what}",
        "the initrd on the ESP is damaged or was cut; copy it there again",
        kernel=True,
    ),
    # Linux init/do_mounts.c, mount_root_generic(): why there is no root was said before, if at all.
    LineRule(
        cause=Cause.KERNEL_PANIC,
        pattern=re.compile(
            r"(?:---\[ end )?Kernel panic - not syncing: (?P<what>VFS: Unable to mount root fs.{0,200}?)(?: \]---)?$"
        ),
        sentence="the kernel panicked: {what}",
        hint="the kernel had no initrd, or none that it could unpack, and found no root by itself",
        stages=BOOTING,
        grace=1.0,
        weight=Weight.SYMPTOM,
        kernel=True,
    ),
    # Linux fs/erofs/super.c and inode.c; erofs_err() puts the device in front.
    _clue(
        Cause.EROFS_SUPERBLOCK,
        _EROFS + r"cannot find valid erofs superblock",
        "the kernel finds no erofs on the store partition",
        _STORE_HINT,
        kernel=True,
    ),
    _clue(
        Cause.EROFS_FEATURE,
        _EROFS + r"(?P<what>unidentified .{0,40}feature.{0,80})$",
        "the kernel does not know a feature of the store's erofs: {what}",
        "make the erofs without that feature, or boot a newer kernel",
        kernel=True,
    ),
    _clue(
        Cause.EROFS_DAMAGED,
        _EROFS + r"(?P<what>(?:bogus|invalid|corrupted|failed|cannot|unsupported|too|.{1,60}corrupt).{1,200})$",
        "the store is damaged: {what}",
        _STORE_HINT,
        kernel=True,
    ),
    # Linux fs/overlayfs/super.c and params.c.
    _clue(
        Cause.OVERLAY_WORKDIR,
        r"overlayfs: (?P<what>workdir and upperdir must .{1,60}|failed to resolve '\S{0,300}work\S{0,100}': -\d+)$",
        "the overlay on the store cannot be mounted: {what}",
        _OVERLAY_HINT,
        kernel=True,
    ),
    # coreutils mkdir(1), which makes upperdir and workdir before the mount.
    _clue(
        Cause.OVERLAY_UPPERDIR,
        r"mkdir: (?P<what>.{1,300}upper.{0,100}: (?:File exists|Not a directory))$",
        "the overlay's upperdir cannot be made: {what}",
        _OVERLAY_HINT,
    ),
    # Linux fs/ext4/super.c.
    _clue(
        Cause.EXT4_SUPERBLOCK,
        r"EXT4-fs \(\S{1,32}\): VFS: Can't find ext4 filesystem",
        "the kernel finds no ext4 on the root partition",
        _ROOT_HINT,
        kernel=True,
    ),
    _clue(
        Cause.EXT4_DAMAGED,
        r"EXT4-fs (?:error )?\((?:device )?\S{1,32}\): (?P<what>(?!mounted|unmounting|re-mounted|resiz).{1,200})$",
        "the root file system is damaged: {what}",
        _ROOT_HINT,
        kernel=True,
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
        _STORE_HINT,
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
)
