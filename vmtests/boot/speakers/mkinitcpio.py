"""mkinitcpio, the initrd of Arch Linux, with its busybox hooks; archiso's hooks too."""

from vmtests.boot.rules import ASKED_HINT, DEVICE_HINT, STAGE1, Layer, Speaker, Weight, rule, sign
from vmtests.boot.stages import Stage
from vmtests.causes import Cause

SPEAKER = Speaker(
    name="mkinitcpio",
    stage=Stage.INITRD,
    source="mkinitcpio init, init_functions (err, msg, launch_interactive_shell, poll_device, fsck_root, "
    "default_mount_handler), hooks of encrypt, lvm2; archiso",
    signs=(
        # udevd's first words, which `quiet` leaves alone; Debian's and NixOS' scripts start it, too.
        sign(Stage.INITRD, r"[Ss]tarting (?:systemd-udevd )?version \d", "Starting version 249.7-1-arch"),
        sign(
            Stage.INITRD,
            r":: (?:running (?:early |late |cleanup |emergency )?hook|Triggering uevents|performing fsck|mounting"
            r"|Mounting|Loading)",
            ":: running early hook [udev]",
        ),
    ),
    failures=(
        rule(
            Cause.PROMPT_WAITS,
            r":: (?:Pre|Post)-mount break requested",
            "a break was asked for, and the boot waits in its shell",
            ASKED_HINT,
            ":: Post-mount break requested, type 'exit' to resume operation",
            stages=STAGE1,
            asked=True,
        ),
        rule(
            Cause.DEVICE_TIMEOUT,
            r"(?:ERROR: (?:Unable to find root )?device '(?P<device>.{1,300}?)'(?:\.| not found.{0,60})"
            r"|ERROR: (?P<what>Failed to .{0,60}resolve .{1,200}|'.{1,300}' device did not show up after .{1,60}"
            r"|Unable to determine .{1,120}"
            r"|Root device '.{1,300}' (?:not found|doesn't exist).{0,40}|.{0,40}No root (?:device|file "
            r"?system).{0,80}))",
            "device {device}{what} did not appear",
            DEVICE_HINT,
            "ERROR: device '/dev/sda' not found. Skipping fsck.",
            stages=STAGE1,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.MOUNT_FAILED,
            r"ERROR: (?P<what>Failed to mount .{1,200}|Root device mounted successfully, but .{1,200}|Bailing out, "
            r"you are on your own.{0,40}"
            r"|.{0,60}(?:fsck|FILESYSTEM CHECK) .{0,40}[Ff]ailed.{0,60})",
            "the initrd could not hand over to root: {what}",
            "root must be a file system that the kernel can mount, with an init in it",
            "ERROR: Root device mounted successfully, but /sbin/init does not exist.",
            stages=STAGE1,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.UNIT_FAILED,
            r"ERROR: (?P<what>(?:resume|encrypt|lvm2?|mdadm|zfs|nfs|fsck|sd-\w{1,20})\b.{1,280}"
            r"|(?:Unable|Unknown|Unrecognized|Could not|Invalid|Missing|No )\b.{1,280})$",
            "the initrd reports an error: {what}",
            "the hook that says it is in /etc/mkinitcpio.conf",
            "ERROR: resume: no device specified for hibernation",
            stages=STAGE1,
            layer=Layer.UNIT,
            fatal=False,
        ),
        rule(
            Cause.EMERGENCY_SHELL,
            r"(?:You are (?:now )?being dropped into an? (?:emergency|recovery|interactive) shell|\[rootfs "
            r"[^\]]{0,40}\][#$] ?$"
            r"|Falling back to interactive prompt)",
            "the initrd gave up and waits in its shell",
            "the error before it says why",
            "You are now being dropped into an emergency shell.",
            stages=STAGE1,
            weight=Weight.SYMPTOM,
            prompt=True,
        ),
    ),
)
