"""Programs that every initrd and every init runs: mount, fsck, cryptsetup, LVM, ZFS, mdadm, shells.

Their words come through the init's own output, through the journal, or through /dev/kmsg.
"""

from vmtests.boot.rules import (
    BOOTING,
    DEVICE_HINT,
    OVERLAY_HINT,
    STORE_HINT,
    SYSTEMD,
    Layer,
    Speaker,
    Weight,
    rule,
)  # fmt: skip
from vmtests.boot.stages import Stage
from vmtests.causes import Cause

_ROOT_HINT = "the file system is damaged; look at it with its checker, without letting it write"
_UNLOCK = (
    "somebody, a TPM or a key server has to unlock it: give the key by crypttab, clevis or systemd-cryptenroll, or \
answer on the console"
)
_SCRIPT = (
    r"(?P<what>/?(?:(?:\S{1,160}/)?init|linuxrc|sbin/init|bin/(?:ba|da|a)?sh|\S{0,80}sh|nix/store/\S{1,160})"
    r"(?:\[\d+\])?: "
)
_NEEDED = (
    r"(?:mount|switch_root|pivot_root|run-init|chroot|insmod|modprobe|mdev|udevd|udevadm|blkid|findfs|losetup|dmsetup"
    r"|cryptsetup|lvm|vgchange|zpool|zfs|mdadm|veritysetup|kexec|sh|ash|bash|init)"
)
_SCRIPT_HINT = "the file or program that it names must be in the initrd, or in the system"
_NO_MODULE = "the kernel, or the initrd, needs the file system's module, and modules.dep must name it"

SPEAKER = Speaker(
    name="mount, fsck, cryptsetup, LVM, ZFS, shells",
    stage=Stage.INITRD,
    source="util-linux {sys-utils/mount.c,libmount,login-utils/sulogin.c}, busybox util-linux/mount.c, e2fsprogs "
    "e2fsck/{problem,unix}.c, cryptsetup src/, lvm2 lib/, zfs cmd/zpool, mdadm, coreutils, libc strerror(3)",
    general=True,
    failures=(
        # coreutils mkdir(1), which makes upperdir and workdir before the mount.
        rule(
            Cause.OVERLAY_UPPERDIR,
            r"mkdir: (?P<what>.{1,300}upper.{0,100}: (?:File exists|Not a directory))$",
            "the overlay's upperdir cannot be made: {what}",
            OVERLAY_HINT,
            "mkdir: cannot create directory '/sysroot/nix/.rw-store/upper': File exists",
            stages=SYSTEMD,
        ),
        # libmount's words for ENODEV.
        rule(
            Cause.MODULE_MISSING,
            r"mount: (?P<where>\S{1,300}): unknown filesystem type '(?P<type>[\w.-]{1,32})'",
            "{where} could not be mounted: the kernel knows no {type}, and no module for it was found",
            _NO_MODULE,
            "mount: /sysroot: unknown filesystem type 'erofs'.",
            stages=SYSTEMD,
        ),
        rule(
            Cause.MODULE_MISSING,
            r"mount: unknown filesystem type '(?P<type>[\w.-]{1,32})'",
            "the kernel knows no {type}, and no module for it was found",
            _NO_MODULE,
            "mount: unknown filesystem type 'vfat'",
            stages=SYSTEMD,
        ),
        rule(
            Cause.MODULE_MISSING,
            r"(?P<what>(?:modprobe|insmod|modinfo): (?:FATAL: |ERROR: |can't |could not |module ).{1,200}"
            r"|FATAL: Module \S{1,60} not found.{0,120})$",
            "a module was not loaded: {what}",
            "the initrd must have the modules of the kernel that is booted",
            "modprobe: FATAL: Module virtio_blk not found in directory /lib/modules/6.1.0",
            layer=Layer.UNIT,
            stages=SYSTEMD | BOOTING,
        ),
        # util-linux and busybox mount(8)
        rule(
            Cause.MOUNT_FAILED,
            r"mount: (?:mounting )?(?P<what>(?P<device>\S{1,300}?)(?:(?: on (?P<where>\S{1,300}))? failed: .{1,120}"
            r"|: (?:can't find .{1,200}|no (?:valid )?filesystem type specified.{0,40}|wrong fs type.{1,200}"
            r"|special device \S{1,200} does not exist"
            r"|bind .{1,200} failed.{0,40}|mount point (?:not mounted|does not exist|is busy).{0,80}|fsconfig.{1,200}"
            r"|mount\(2\) system call failed.{0,120}|can't read superblock.{0,80}|.{0,80}(?:already mounted|is "
            r"write-protected but|"
            r"Can't lookup blockdev|permission denied).{0,120})))$",
            "mount failed: {what}",
            "the device must be there, with a file system that the kernel can mount",
            "mount: /new_root: can't find UUID=f1ef43cc-3036-4496-948b-b3d7d36fabb1.",
            layer=Layer.OBJECT,
            stages=SYSTEMD | BOOTING,
            fatal=False,
        ),
        # libblkid's names, as fsck, swapon and mount look for them; often behind what a script began to say.
        rule(
            Cause.DEVICE_TIMEOUT,
            r".{0,80}\b(?:e2)?(?:fsck(?:\.\w{1,12})?|mount|swapon|findfs|tune2fs): (?:[Uu]nable to resolve|(?:can't"
            r"|cannot) find(?: device)?) '?(?P<device>(?:PART)?(?:UUID|LABEL)=[^\s']{1,200}?)'?\.?$",
            "no disk has {device}",
            DEVICE_HINT,
            "fsck.ext4: Unable to resolve 'LABEL=data'",
            stages=SYSTEMD | BOOTING,
            fatal=False,
        ),
        rule(
            Cause.DEVICE_TIMEOUT,
            r"(?P<what>(?:/dev/|(?:PART)?(?:UUID|LABEL)=)\S{1,300}: (?:No such (?:file or directory|device)|Can't "
            r"open blockdev"
            r"|can't (?:find|open)).{0,80})$",
            "a device is not there: {what}",
            DEVICE_HINT,
            "/dev/sda2: No such file or directory",
            layer=Layer.OBJECT,
            fatal=False,
        ),
        rule(
            Cause.MOUNT_FAILED,
            r"(?P<what>switch_root: .{1,200}|pivot_root: .{1,200}|chroot: .{0,200}(?:cannot|can't|failed).{1,200}"
            r"|run-init: .{1,200}|(?:kinit|nuke): .{1,200})$",
            "the initrd could not hand over to root: {what}",
            "the root file system must be mounted and have the init that is asked for",
            "switch_root: can't execute '/sbin/init': No such file or directory",
            layer=Layer.OBJECT,
            stages=BOOTING,
        ),
        rule(
            Cause.FSCK_FAILED,
            r"(?P<what>.{0,200}(?:UNEXPECTED INCONSISTENCY|Superblock has an invalid journal|Bad magic number in "
            r"super-block"
            r"|superblock could not be read or does not describe|fsck(?:\.\w+)?: .{0,60}(?:failed|exited with"
            r"|status code).{0,60}"
            r"|File system errors left uncorrected).{0,200})",
            "a file system is damaged beyond what fsck mends by itself: {what}",
            _ROOT_HINT,
            "/dev/sda1: UNEXPECTED INCONSISTENCY; RUN fsck MANUALLY.",
            stages=SYSTEMD | BOOTING,
        ),
        # cryptsetup, zfs and systemd's password agents, which wait for an answer.
        rule(
            Cause.UNLOCK_WAITS,
            r"(?P<what>[🔐👆]{0,1} ?(?:Please (?:enter|unlock)|Enter) (?:the )?(?:[\w ]{0,40})?(?:passphrase|password"
            r"|PIN|recovery key|key|disk)\b"
            r".{0,160}:)(?: ?\(press TAB for no echo\))?.{0,20}$"
            r"|(?P<asked>\S.{0,200}\(press TAB for no echo\)).{0,20}$"
            r"|(?P<token>[🔐👆]{0,1} ?(?:Please (?:confirm presence|verify user) on (?:the )?security token.{0,60}"
            r"|Asking FIDO2 token for authentication.{0,20}|Security token not present for unlocking.{1,160}))$"
            r"|(?P<also>A password is required to access the .{1,80} volume:?|Unlocking .{1,80}|Enter passphrase "
            r"for .{1,120}|(?:\+ )?plymouth ask-for-password .{1,300})$",
            "the boot waits for the key of an encrypted disk: {what}{asked}{also}{token}",
            _UNLOCK,
            "Please enter passphrase for disk QEMU_HARDDISK (root): ",
            stages=SYSTEMD | BOOTING,
            weight=Weight.WAIT,
        ),
        rule(
            Cause.DEVICE_TIMEOUT,
            r"Device (?P<device>\S{0,200}) does(?: not|n't) exist or access denied\b",
            "the encrypted device {device} is not there",
            DEVICE_HINT,
            "Device /dev/disk/by-uuid/6f0c1f2e does not exist or access denied.",
            stages=SYSTEMD | BOOTING,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.UNLOCK_WAITS,
            r"(?P<what>No key available with this passphrase"
            r"|Device \S{0,200} is not a valid LUKS device"
            r"|cryptsetup(?: \([\w-]{1,40}\))?: (?:ERROR|WARNING|cryptsetup failed|unknown fstype).{0,160}"
            r"|Nothing to read on input|Failed to (?:activate with|unlock|unseal|start Cryptography Setup).{1,160}"
            r"|TPM2? (?:operation failed|policy (?:does not|hash)|PCR policy).{0,100}"
            r"|maximum number of tries exceeded.{0,60})",
            "an encrypted disk was not unlocked: {what}",
            _UNLOCK,
            "cryptsetup: ERROR: root_crypt: maximum number of tries exceeded",
            stages=SYSTEMD | BOOTING,
        ),
        rule(
            Cause.VOLUME_MISSING,
            r"\s{0,4}(?P<what>(?:WARNING: )?(?:Volume group \"\S{1,128}\" not found|Cannot process volume group "
            r"\S{1,128}|Couldn't find device with uuid"
            r" \S{1,60}|VG \S{1,128} is missing PV .{1,80}|Failed to find logical volume.{1,160}|Refusing "
            r"activation of partial LV .{1,120}))",
            "a logical volume is not there: {what}",
            "the disks of the volume group must be attached, and the initrd must have LVM",
            '  Volume group "vg0" not found',
            layer=Layer.OBJECT,
            stages=SYSTEMD | BOOTING,
        ),
        rule(
            Cause.VOLUME_MISSING,
            r"(?P<what>cannot import '\S{1,128}': .{1,160}|.{0,60}no (?:such pool|pools) available.{0,80}|Failed "
            r"to import pool.{1,160}|Key load error: .{1,160}"
            r"|Message: cannot import.{1,160}|zpool: .{1,160}|Error: Failed to mount root filesystem.{0,80}"
            r"|Command: (?:zpool|mount).{1,160}"
            r"|.{0,40}The pool was last accessed by another "
            r"system.{0,60}"
            r"|.{0,40}No pool (?:imported|found).{0,120}|Manually import the (?:root )?pool.{0,60})$",
            "a ZFS pool was not imported: {what}",
            "the pool's disks must be attached, and it must not be in use by another system (zpool import -f)",
            "cannot import 'rpool': no such pool available",
            layer=Layer.OBJECT,
            stages=SYSTEMD | BOOTING,
        ),
        rule(
            Cause.VOLUME_MISSING,
            r"(?P<what>mdadm: (?:No (?:arrays|suitable drives)|.{0,80}(?:not enough|failed to|no devices found"
            r"|cannot)).{0,120})",
            "an array of disks was not put together: {what}",
            "its disks must all be attached",
            "mdadm: No arrays found in config file or automatically",
            layer=Layer.UNIT,
            stages=SYSTEMD | BOOTING,
        ),
        # strerror(3), at the end of what a program says; a shell that reads a damaged script finds no syntax.
        rule(
            Cause.ROOT_FULL,
            r"(?P<what>.{1,400}: No space left on device)\.?$",
            "a file system is full: {what}",
            "make the partition larger, or the disk, if it grows; in an initrd what is full is memory",
            "mkdir: cannot create directory '/var/lib/x': No space left on device",
            stages=SYSTEMD,
            fatal=False,
        ),
        rule(
            Cause.ROOT_READ_ONLY,
            r"(?P<what>.{1,400}: Read-only file system)\.?$",
            "a file system cannot be written: {what}",
            "it must be mounted rw, and nothing about it may keep the kernel from that",
            "mkdir: cannot create directory '/sysroot/nix': Read-only file system",
            stages=SYSTEMD,
            fatal=False,
        ),
        rule(
            Cause.PROGRAM_DAMAGED,
            r"(?P<what>.{1,400}: (?:Exec format error|Structure needs cleaning|Bad message"
            r"|(?:line )?\d{1,6}: [Ss]yntax error.{0,200}))$",
            "a program that the boot needs cannot be run: {what}",
            STORE_HINT + "; a program must also be for the machine's architecture",
            "/init: line 12: syntax error near unexpected token `('",
            stages=SYSTEMD | BOOTING,
        ),
        rule(
            Cause.PROGRAM_DAMAGED,
            r"(?P<what>.{0,200}(?:error while loading shared libraries: .{1,160}|Fatal glibc error: .{1,160}|CPU ISA "
            r"level is lower than required.{0,40}"
            r"|symbol lookup error: .{1,160}|FATAL: kernel too old"
            r"|version `GLIBC\S{1,40}' not found.{0,120}|No such file or directory \(required by|can't load "
            r"library '.{1,80}'"
            r"|Error relocating .{1,160}|\*\*\* stack smashing detected \*\*\*.{0,80}))$",
            "a program that the boot needs cannot be run: {what}",
            "its libraries must be there, of the version it wants, and the processor must have what they were "
            "built for",
            "/init: error while loading shared libraries: libc.so.6: cannot open shared object file: No such file "
            "or directory",
            stages=SYSTEMD | BOOTING,
        ),
        rule(
            Cause.PROGRAM_MISSING,
            _SCRIPT + r"(?:.{0,200}(?:No such file or directory|can't open(?!.{0,80}No medium found).{0,160}"
            r"|Permission denied|cannot execute)"
            rf"|.{{0,200}}\b{_NEEDED}: (?:command )?not found))$",
            "a script of the boot misses something: {what}",
            _SCRIPT_HINT,
            "/init: source: line 125: can't open '/nix/store/i745-mounts.sh': No such file or directory",
            layer=Layer.OBJECT,
            stages=SYSTEMD | BOOTING,
            fatal=False,
        ),
        rule(
            # Scripts try what may be there or not: without mount(8) no root comes, without pgrep(1) nothing is lost.
            Cause.PROGRAM_MISSING,
            _SCRIPT + r".{0,200}not found)$",
            "a script of the boot misses something: {what}",
            _SCRIPT_HINT,
            "/init: line 640: pgrep: not found",
            layer=Layer.UNIT,
            stages=SYSTEMD | BOOTING,
            fatal=False,
        ),
    ),
)
