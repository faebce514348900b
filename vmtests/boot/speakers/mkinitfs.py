"""mkinitfs, the initrd of Alpine Linux; postmarketOS' too."""

from vmtests.boot.rules import ASKED_HINT, DEVICE_HINT, STAGE1, Layer, Speaker, Weight, rule, sign
from vmtests.boot.stages import Stage
from vmtests.causes import Cause

SPEAKER = Speaker(
    name="mkinitfs",
    stage=Stage.INITRD,
    source="alpine mkinitfs initramfs-init.in (ebegin, eend), nlplug-findfs; postmarketOS init_functions.sh",
    signs=(
        sign(Stage.INITRD, r"Alpine Init \d", "Alpine Init 3.1.0-r3"),
        sign(
            Stage.INITRD,
            r" \* (?:Loading boot drivers|Mounting (?:boot media|root)|Installing packages to root|Loading user "
            r"settings)",
            " * Mounting boot media: ",
        ),
    ),
    failures=(
        rule(
            Cause.PROMPT_WAITS,
            r"Entering single mode\.",
            "a break was asked for, and the boot waits in its shell",
            ASKED_HINT,
            "Entering single mode. Type 'exit' to continue boot.",
            stages=STAGE1,
            asked=True,
        ),
        rule(
            Cause.DEVICE_TIMEOUT,
            r"(?: \* )?Mounting boot media(?P<which>(?: in ro mode)?):? ?\.{0,3} ?(?:failed\.?|\[ ?!! ?\])",
            "no disk that the kernel sees is the boot media: mounting boot media failed",
            "the boot medium must be attached as a disk whose driver is in the initrd (modules=), with a "
            ".boot_repository on "
            "it; for a system on disk root= must name it",
            " * Mounting boot media: failed.",
            stages=STAGE1,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.MOUNT_FAILED,
            r"(?: \* |(?=Mounting root\b))(?P<what>(?:Mounting|Installing|Loading|Starting|Obtaining|Setting) "
            r".{1,120}?):? ?\.{0,3} ?(?:failed\.?|\[ ?!! ?\])",
            "{what} failed",
            "the lines before it say why; root= and modules= on the command line must fit the machine",
            " * Mounting root: failed.",
            stages=STAGE1,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.MOUNT_FAILED,
            r"(?P<what>Mounting (?:\S{1,200} on )?/sysroot failed.{0,120}|mount: mounting \S{1,200} on (?:/sysroot"
            r"|/media/\S+|/newroot) failed: .{1,120}"
            r"|/sbin/init not found in new root.{0,60}|ERROR: (?:.{0,80}partition not found|.{0,160}unable to).{0,160}"
            r"|nlplug-findfs: .{0,120}(?:not found|failed).{0,80})",
            "root was not mounted: {what}",
            DEVICE_HINT,
            "/sbin/init not found in new root. Launching emergency recovery shell",
            stages=STAGE1,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.EMERGENCY_SHELL,
            r"(?:initramfs emergency recovery shell launched|Launching (?:initramfs )?emergency recovery shell"
            r"|.{0,60}Launching emergency recovery shell)",
            "the initrd gave up and waits in its shell",
            "the failure before it says why",
            "initramfs emergency recovery shell launched. Type 'exit' to continue boot",
            stages=STAGE1,
            weight=Weight.SYMPTOM,
            prompt=True,
        ),
    ),
)
