"""genkernel, an initrd of Gentoo."""

from vmtests.boot.rules import DEVICE_HINT, STAGE1, Layer, Speaker, Weight, rule, sign
from vmtests.boot.stages import Stage
from vmtests.causes import Cause

SPEAKER = Speaker(
    name="genkernel",
    stage=Stage.INITRD,
    source="gentoo genkernel defaults/{linuxrc,initrd.scripts} (good_msg, bad_msg, prompt_user, run_emergency_shell)",
    signs=(
        sign(
            Stage.INITRD,
            r">> (?:Genkernel \d|Activating |Determining |Mounting |Loading |Scanning for |Booting )",
            ">> Genkernel 4.3.10 (2024-01-01 10:00:00 UTC). Linux kernel 6.1.67-gentoo",
        ),
        sign(Stage.SWITCH_ROOT, r">> Booting\b", ">> Booting (initramfs)"),
    ),
    failures=(
        rule(
            Cause.DEVICE_TIMEOUT,
            r"(?:!! |(?=Could not find the root ))(?P<what>(?:Block device (?P<device>\S{1,200}) is not a "
            r"valid root device|Could not find the root (?:block )?device.{0,120}"
            r"|.{0,80}(?:could not be found|not found|does not exist)).{0,80})",
            "the initrd does not find root: {what}",
            DEVICE_HINT,
            "!! Block device /dev/sda3 is not a valid root device ...",
            stages=STAGE1,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.MOUNT_FAILED,
            r"!! (?P<what>(?:Could not mount|Failed to mount|Mounting .{1,80} failed|Unable to mount).{0,200}"
            r"|.{0,80}(?:init|Init) .{0,60}(?:does not exist|not executable).{0,60})",
            "the initrd could not hand over to root: {what}",
            "root must be a file system that the kernel can mount, with an init in it",
            "!! Could not mount specified ROOT, try again",
            stages=STAGE1,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.UNIT_FAILED,
            r"!! (?P<what>(?!- |Please specify|Dropping|Entering|ERROR: ).{1,200})$",
            "the initrd reports an error: {what}",
            "the lines before it are what failed",
            "!! Failed to activate volume groups",
            stages=STAGE1,
            layer=Layer.UNIT,
        ),
        rule(
            Cause.EMERGENCY_SHELL,
            r"(?:(?:root )?(?:block )?device\(.{0,80}\) :: ?$|!! (?:Dropping|Entering) .{0,40}(?:shell|rescue).{0,40}"
            r"|rescueshell .{0,40}#)",
            "the initrd waits for somebody to name root",
            "the error before it says why",
            "root block device() :: ",
            stages=STAGE1,
            weight=Weight.SYMPTOM,
            prompt=True,
        ),
    ),
)
