"""initramfs-tools, the initrd of Debian and Ubuntu."""

from vmtests.boot.rules import ASKED_HINT, DEVICE_HINT, STAGE1, Layer, Speaker, Weight, rule, sign
from vmtests.boot.stages import Stage
from vmtests.causes import Cause

SPEAKER = Speaker(
    name="initramfs-tools",
    stage=Stage.INITRD,
    source="initramfs-tools init, scripts/{functions,local,nfs}, hooks of cryptsetup, zfs-initramfs, "
    "overlayroot (cloud-initramfs-tools)",
    signs=(
        sign(Stage.INITRD, r"Loading, please wait\.\.\.$", "Loading, please wait..."),
        sign(Stage.INITRD, r"Begin: .{1,120}\.\.\.", "Begin: Loading essential drivers ... done."),
    ),
    failures=(
        rule(
            Cause.PROMPT_WAITS,
            r"Spawning shell within the initramfs",
            "a break was asked for, and the boot waits in its shell",
            ASKED_HINT,
            "Spawning shell within the initramfs",
            stages=STAGE1,
            asked=True,
        ),
        rule(
            Cause.DEVICE_TIMEOUT,
            r"ALERT! +(?P<device>\S{1,300}) does not exist\.? +Dropping to (?:a )?shell!",
            "device {device} did not appear",
            DEVICE_HINT,
            "ALERT!  /dev/disk/by-label/nosuch does not exist.  Dropping to a shell!",
            stages=STAGE1,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.DEVICE_TIMEOUT,
            r"(?P<what>Gave up waiting for (?:root(?: file system)?|suspend/resume) device\.?.{0,100}|No root "
            r"device specified.{0,80}"
            r"|Begin: Waiting for root file system.{0,20})",
            "root did not appear: {what}",
            DEVICE_HINT,
            "Gave up waiting for root file system device.  Common problems:",
            stages=STAGE1,
            layer=Layer.UNIT,
            fatal=True,
        ),
        # casper, live-boot
        rule(
            Cause.MOUNT_FAILED,
            r"(?P<what>Unable to find a (?:live )?medium containing a live file ?system.{0,60})$",
            "the initrd does not find the live medium: {what}",
            "the medium must be attached where the initrd has a driver for it, and have the live file system "
            "(/casper, /live) on it",
            "Unable to find a medium containing a live file system",
            stages=STAGE1,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.MOUNT_FAILED,
            r"(?P<what>(?:ALERT! ?|Failure: |.{0,20}failure: )?(?:Failed to mount (?P<device>\S{1,200}) as root "
            r"file system|mount: .{1,200} on /root failed.{1,120}"
            r"|Could not mount the root filesystem.{0,80}|Unable to find .{1,120}|Target filesystem doesn't have "
            r"requested \S{1,200}"
            r"|No init found\. Try passing init= bootarg\.|/root/\S+ .{0,80}not found|overlayroot: .{0,40}(?:failed"
            r"|ERROR).{0,120}))",
            "the initrd could not mount root, or found no init there: {what}",
            "the kernel's lines before say why; root= and init= must name what is there",
            "No init found. Try passing init= bootarg.",
            stages=STAGE1,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.FSCK_FAILED,
            r"(?P<what>(?:Failure|ALERT!|WARNING|Warning): (?!.{0,80}(?:skipping|ignoring)).{0,80}"
            r"(?:[Ff]ile ?system check|fsck).{0,200}"
            r"|The root filesystem on \S{1,200} requires a manual fsck.{0,20})",
            "the check of root failed: {what}",
            "the file system is damaged; check it by hand",
            "Failure: File system check of the root filesystem failed",
            stages=STAGE1,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.EMERGENCY_SHELL,
            r"\(initramfs\) ?$",
            "the initrd gave up and waits in its shell",
            "the alert before it says why",
            "(initramfs) ",
            stages=STAGE1,
            weight=Weight.SYMPTOM,
            prompt=True,
        ),
        # What any busybox says whose shell is started by hand, also where an initramfs is the whole system.
        rule(
            Cause.EMERGENCY_SHELL,
            r"(?:BusyBox v[\d.]+ .{1,80} built-in shell \(ash\)$|Enter 'help' for a list of built-in commands)",
            "the initrd gave up and waits in its shell",
            "the alert before it says why",
            "BusyBox v1.36.1 (Debian 1:1.36.1-9) built-in shell (ash)",
            stages=STAGE1,
            weight=Weight.SYMPTOM,
            prompt=True,
            rescue=True,
        ),
    ),
)
