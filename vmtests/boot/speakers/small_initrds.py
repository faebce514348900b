"""Small initrds: minitrd, booster, Yocto's, Kata's, Firecracker's, linuxkit, u-root, KIWI's, CirrOS', tiny scripts."""

from vmtests.boot.rules import DEVICE_HINT, STAGE1, Layer, Speaker, Weight, rule, sign
from vmtests.boot.stages import Stage
from vmtests.causes import Cause

_GO = r"(?:\d{4}/\d\d/\d\d \d\d:\d\d:\d\d )?"

SPEAKER = Speaker(
    name="small initrds",
    stage=Stage.INITRD,
    source="distr1/distri cmd/minitrd, anatol/booster init/, u-root, linuxkit, OSInside/kiwi dracut modules; "
    "openembedded-core meta/recipes-core/initrdscripts; illiliti/tinyramfs",
    signs=(
        sign(
            Stage.INITRD,
            _GO + r"(?:minitrd|booster|u-root|linuxkit|minit): ",
            "2023/06/19 14:08:51 minitrd: mounting /dev/sda4",
        ),
        sign(
            Stage.INITRD,
            r"(?:Welcome to u-root!|supermin: |Starting booster initramfs|#{3} [\w -]{1,40} init(?:ramfs|rd) #{3}$)",
            "Welcome to u-root!",
        ),
        # CirrOS src/{init,etc/init.d/rc.sysinit}
        sign(Stage.INITRD, r"info: initramfs(?:: up at \d|.{0,10} loading root from )", "info: initramfs: up at 1.17"),
        sign(Stage.USERSPACE, r"info: /etc/init\.d/rc\.sysinit: up at ", "info: /etc/init.d/rc.sysinit: up at 4.78"),
    ),
    failures=(
        # initramfs-framework/{init,finish,rootfs}, init-live.sh
        rule(
            Cause.MOUNT_FAILED,
            r"(?P<what>Cannot find \S{1,80} file in .{1,80}, dropping to a shell|(?:ERROR: |FATAL: )?(?:There's no "
            r"'/dev' on rootfs\.|Init \(.{1,100}\) can't be found.{0,100}|Initramfs failed to initialize the system\.)"
            r"|Could not find an? .{1,60} rootfs.{0,80}) ?$",
            "the initrd could not mount root, or found no init there: {what}",
            DEVICE_HINT,
            "Cannot find rootfs.img file in /run/media/* , dropping to a shell ",
            stages=STAGE1,
            layer=Layer.UNIT,
            fatal=True,
        ),
        rule(
            Cause.DEVICE_TIMEOUT,
            _GO + r"minitrd: (?P<what>skipping block device (?P<skipped>\S{1,40}) .{0,100}, looking for "
            r"(?P<device>.{1,200}))$",
            "the initrd does not find its root, and goes on looking for {device}",
            "root= must be what this initrd understands, and name a file system that is there",
            "2023/06/19 14:08:51 minitrd: skipping block device sda3 (uuid 40bd345d), looking for uuid "
            "PARTUUID=5dcb7ed0",
            stages=STAGE1,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.DEVICE_TIMEOUT,
            r"(?:ERROR: )?Root device '?(?P<device>\S{1,300}?)'? does not exist\b.{0,60}$",
            "device {device} did not appear",
            DEVICE_HINT,
            "Root device '/dev/sda2' does not exist. Dropping to a shell.",
            stages=STAGE1,
            layer=Layer.OBJECT,
        ),
        # Scripts of somebody's own, as NVIDIA/tinylinux-scripts.
        rule(
            Cause.DEVICE_TIMEOUT,
            r"(?P<what>(?:\w[\w ]{0,40} )?[Rr]oot ?(?:fs|file ?system|device|partition)\b.{0,60}\b(?:not|cannot "
            r"be|could not "
            r"be) found\b.{0,80})$",
            "the initrd does not find its root: {what}",
            DEVICE_HINT,
            "Partition with root filesystem not found. Waiting...",
            stages=STAGE1,
            layer=Layer.OBJECT,
        ),
        # u-root pkg/boot/kexec, pkg/boot/menu: what is to be booted is loaded by its kernel.
        rule(
            Cause.KERNEL_INVALID,
            r"(?:.{0,200}: )?SYS_kexec_(?:file_)?load\(.{0,600}\) = (?P<what>.{1,80})$",
            "u-root could not start the kernel that it loaded: {what}",
            "the kernel must be one that kexec(8) can start on this architecture: an EFI image, or a compressed one, "
            "may not be",
            ": SYS_kexec_file_load(11, 0, root=/dev/mmcblk1p3, 4) = exec format error",
            stages=STAGE1,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.DEVICE_TIMEOUT,
            _GO + r"(?P<what>(?:booster: .{0,80}|Timeout )?(?:[Tt]imeout waiting for root|waiting for root filesystem"
            r"|unable to find root).{0,160})",
            "the initrd does not find its root: {what}",
            DEVICE_HINT,
            "booster: Timeout waiting for root filesystem",
            stages=STAGE1,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.UNIT_FAILED,
            _GO + r"(?:minitrd|booster|minit|u-root|linuxkit|init): (?P<what>(?!\[libfs_mgr\]|Init ).{0,160}"
            r"(?:failed|error|fatal|panic|not found|cannot|can't|unable).{0,160})$",
            "the initrd fails: {what}",
            "what it needs must be in the initrd, or on the disk that it looks at",
            "2023/06/19 14:08:51 minitrd: mount /dev/sda4: device or resource busy, failed",
            stages=STAGE1,
            layer=Layer.UNIT,
            fatal=True,
        ),
        rule(
            Cause.EMERGENCY_SHELL,
            r"(?:(?:Dropping|Spawning|Starting|Falling back|Entering|dropping) (?:in)?to (?:a |an |the )?(?:rescue "
            r"|emergency |debug |busybox |recovery |interactive )?(?:shell|mode)\b"
            r"|.{0,40}[Dd]ropp(?:ed|ing) (?:you )?(?:in)?to (?:a|an|the) .{0,20}shell|(?:rescue|emergency"
            r"|recovery) shell\b)",
            "the initrd gave up and waits in a shell",
            "the lines before it say why",
            "Dropping to a shell",
            stages=STAGE1,
            weight=Weight.SYMPTOM,
            prompt=True,
        ),
    ),
)
