"""dracut's initrd, with and without systemd in it."""

from vmtests.boot.rules import ASKED_HINT, DEVICE_HINT, MORE_HINT, STAGE1, Layer, Speaker, Weight, rule, sign
from vmtests.boot.stages import Stage
from vmtests.causes import Cause

_SAID = r"(?:[Dd]racut(?:-[\w-]{1,30})?:? )?(?:Warning|WARNING|FATAL): (?:FATAL: )?"

SPEAKER = Speaker(
    name="dracut",
    stage=Stage.INITRD,
    source="dracut modules.d/{98dracut-systemd,99base}, dracut-lib.sh (warn, die, emergency_shell, wait_for_dev), "
    "initqueue",
    signs=(
        sign(
            Stage.INITRD,
            r"(?:dracut: dracut-|dracut: Starting|Starting (?:dracut-\S+ - )?dracut |dracut-(?:pre-udev|cmdline"
            r"|initqueue)\b)",
            "dracut: dracut-059-4",
        ),
        sign(Stage.SWITCH_ROOT, r"dracut: Switching root", "dracut: Switching root"),
    ),
    failures=(
        rule(
            Cause.PROMPT_WAITS,
            r"Break (?:before|at|after) .{1,60}$",
            "a break was asked for, and the boot waits in its shell",
            ASKED_HINT,
            "Break before 'pre-mount'",
            stages=STAGE1,
            asked=True,
        ),
        rule(
            Cause.DEVICE_TIMEOUT,
            _SAID + r"(?P<device>(?:/dev/|/\S{0,80}|(?:PART)?(?:UUID|LABEL)=)\S{1,300}?) does not exist\.?$",
            "device {device} did not appear",
            DEVICE_HINT,
            "Warning: /dev/mapper/cl-root does not exist",
            stages=STAGE1,
            layer=Layer.OBJECT,
        ),
        # initqueue's condition is a script that wait_for_dev() named by the device.
        rule(
            Cause.DEVICE_TIMEOUT,
            _SAID + r"\S{1,100}/initqueue/finished/devexists-(?P<device>\S{1,300}?)\.sh\b",
            "device {device} did not appear",
            DEVICE_HINT,
            r'Warning: /lib/dracut/hooks/initqueue/finished/devexists-\x2fdev\x2froot.sh: "[ -e "/dev/root" ]"',
            stages=STAGE1,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.DEVICE_TIMEOUT,
            _SAID
            + r"(?P<what>(?:dracut-)?initqueue(?:[ :]| timeout).{0,200}|Could not boot\.?|Unable to process initqueue"
            r"|Not all disks have been found\.?|You might want to regenerate your initramfs\.?)$",
            "what the initrd waits for did not come: dracut says {what}",
            DEVICE_HINT,
            "Warning: dracut-initqueue timeout - starting timeout scripts",
            stages=STAGE1,
            layer=Layer.UNIT,
            fatal=True,
        ),
        rule(
            Cause.DEVICE_TIMEOUT,
            _SAID
            + r"(?P<what>(?:No root device|Don't know how to handle|.{0,80}root=.{1,200}|Can't mount root filesystem"
            r"|.{0,60}is not a (?:valid )?(?:block|root).{0,60}|Failed to find.{1,120}).{0,120})$",
            "dracut cannot find root: {what}",
            "root= on the kernel's command line must name something that the initrd can mount",
            "dracut: FATAL: No or empty root= argument",
            stages=STAGE1,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.FSCK_FAILED,
            _SAID + r"(?P<what>(?:e2fsck|fsck\S{0,20}|xfs_repair|btrfs) returned with (?:[4-9]|\d\d).{0,40}"
            r"|\*\*\* An error occurred during the file system check.{0,40})$",
            "the check of root failed: {what}",
            "the file system is damaged; check it by hand",
            "dracut Warning: e2fsck returned with 4",
            stages=STAGE1,
            layer=Layer.OBJECT,
        ),
        # zfs contrib/dracut/90zfs/mount-zfs.sh
        rule(
            Cause.VOLUME_MISSING,
            _SAID + r"(?P<what>ZFS: Unable to import pool.{0,120})$",
            "dracut could not import the pool of root: {what}",
            "the pool's disks must all be there, and root= must name it (zfs:POOL/DATASET, or zfs:AUTO)",
            "dracut Warning: ZFS: Unable to import pool rpool.",
            stages=STAGE1,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.MOUNT_FAILED,
            _SAID
            + r"(?P<what>(?:Failed to mount|Mounting|Could not mount|.{0,80}mount.{0,20}fail).{0,200}|.{0,60}not a "
            r"file ?system.{0,120})$",
            "dracut could not mount root: {what}",
            "the kernel's lines before say why",
            "dracut-mount: Warning: Failed to mount -t ext4 -o ro,ro /dev/sda1 /sysroot",
            stages=STAGE1,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.SWITCH_ROOT_FAILED,
            _SAID + r"(?P<what>(?:Cannot find init!|.{0,80}(?:switch_root|Switch root|init).{0,40}(?:fail|not "
            r"found).{0,60}|Something went "
            r"(?:very )?badly wrong.{0,80}|Please check to make sure you passed a valid root filesystem!))",
            "dracut could not hand over to root: {what}",
            "root must be mounted and have an init",
            "dracut Warning: Cannot find init!",
            stages=STAGE1,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.UNIT_FAILED,
            r"(?:dracut(?:-[\w-]{1,30})?:? )?FATAL: (?!Initramfs failed|INT18|No bootable|Could not read "
            r"from the boot)(?P<what>.{1,300}?)$",
            "dracut gives up: {what}",
            MORE_HINT,
            "dracut: FATAL: FIPS integrity test failed",
            stages=STAGE1,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.DEVICE_TIMEOUT,
            r"(?:(?:A )?(?:start|stop) job is running for (?:\S+ - )?dracut initqueue hook"
            r"|Job dracut-initqueue\.service/start running)",
            "the initrd waits for a device that does not come",
            DEVICE_HINT,
            "A start job is running for dracut initqueue hook (1min 30s / no limit)",
            stages=STAGE1,
            layer=Layer.UNIT,
            fatal=True,
        ),
        rule(
            Cause.UNIT_FAILED,
            r"dracut(?:-[\w-]{1,30})?:? (?:Warning|WARNING|FATAL): (?P<what>.{1,300})$",
            "dracut warns: {what}",
            MORE_HINT,
            "dracut Warning: Killing all remaining processes",
            stages=STAGE1,
            layer=Layer.NOTE,
            fatal=False,
        ),
        rule(
            Cause.EMERGENCY_SHELL,
            r"(?:Entering emergency mode\. Exit the shell to continue|Generating \"/run/initramfs/rdsosreport"
            r"|Dropping to debug shell"
            r"|dracut:/[#$] ?$|(?:switch_root|initqueue|pre-\w+|mount|cmdline):/[#$] ?$|dracut: Refusing to continue"
            r"|(?:dracut Warning: )?\*\*\* Dropping you to a shell\b)",
            "the initrd gave up and went into emergency mode",
            "the failures before it say why; rdsosreport.txt in that shell has the whole journal",
            "Entering emergency mode. Exit the shell to continue.",
            stages=STAGE1,
            weight=Weight.SYMPTOM,
            prompt=True,
        ),
    ),
)
