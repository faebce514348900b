"""System V init, BusyBox' init, runit, s6, Upstart, and scripts of their kind."""

from vmtests.boot.rules import Layer, Speaker, Weight, rule, sign
from vmtests.boot.stages import Stage
from vmtests.causes import Cause

_US = frozenset({Stage.KERNEL, Stage.INITRD, Stage.SWITCH_ROOT, Stage.USERSPACE})
_HINT = "/etc/inittab, and the scripts that it names, say what is started"

SPEAKER = Speaker(
    name="sysvinit, busybox init, runit, Upstart",
    stage=Stage.USERSPACE,
    source="sysvinit src/init.c, initscripts; busybox init/init.c; runit src/runit.c; upstart init/, mountall; "
    "buildroot package/initscripts",
    general=True,
    signs=(
        sign(Stage.USERSPACE, r"INIT: (?:version|Entering runlevel)", "INIT: version 2.88 booting"),
        sign(Stage.USERSPACE, r"init started: +BusyBox v", "init started: BusyBox v1.36.1 ()"),
        sign(Stage.USERSPACE, r"- runit: (?:\$Id|enter stage: )", "- runit: enter stage: /etc/runit/1"),
        sign(
            Stage.USERSPACE,
            r"(?:s6-(?:linux-init|rc)|init: \S+ main process|mountall: |\s\* (?:Starting|Stopping) .{1,100}(?:\[ OK \]"
            r"|\.{3}done\.))",
            "s6-linux-init: info: starting",
        ),
        # Debian's initscripts, where a quiet init does not say its own name.
        sign(
            Stage.USERSPACE,
            r"(?:Will now (?:check (?:root|all) file ?systems?|mount (?:local|all|temporary) filesystems"
            r"|activate (?:lvm and md )?swap)\b|Cleaning up temporary files\.\.\.|Setting kernel variables\.\.\."
            r"|Setting up (?:resolvconf|networking|X socket directories)\b|Activating (?:lvm and md )?swap\.\.\.done)",
            "Will now check all file systems.",
        ),
        # rc.sysinit of old Fedora and RHEL.
        sign(
            Stage.USERSPACE,
            r"(?:\s{2,30}Welcome to \S+(?: \S+){0,4} ?|\s{2,30}Press 'I' to enter interactive startup\.|Entering "
            r"(?:non-)?interactive startup)$",
            "                Welcome to Fedora ",
            since=Stage.KERNEL,
        ),
        # sysvinit src/{init,shutdown}.c, busybox init/init.c
        sign(
            Stage.USERSPACE,
            r"(?:INIT: (?:Switching to|Entering) runlevel: 6|The system is going down for (?:system )?reboot"
            r"|Requesting system reboot)\b",
            "INIT: Switching to runlevel: 6",
            since=Stage.USERSPACE,
            restart=True,
        ),
        sign(
            Stage.USERSPACE,
            r"Please press Enter to activate this console\.",
            "Please press Enter to activate this console.",
            ready=True,
        ),
    ),
    failures=(
        rule(
            Cause.INIT_FROZE,
            r"(?:INIT: (?P<what>(?:PANIC|No inittab file found|cannot execute|Id \".{1,20}\" respawning too fast: "
            r"disabled).{0,160})"
            r"|(?P<bb>can't (?:open|run) '?/(?:etc|sbin|bin|dev)/[^ ]{1,100}'?: .{1,80}|process '.{1,160}' \(pid "
            r"\d+\) exited\. Scheduling for restart\.)"
            r"|- runit: (?P<runit>(?:fatal|critical|warning): .{1,160}))$",
            "init cannot do what it is told: {what}{bb}{runit}",
            _HINT,
            'INIT: Id "S0" respawning too fast: disabled for 5 minutes',
            stages=_US,
            layer=Layer.UNIT,
        ),
        rule(
            Cause.INIT_FROZE,
            r"INIT: (?P<what>no more processes left in this runlevel)",
            "init has nothing left that runs, and starts nothing more: {what}",
            _HINT,
            "INIT: no more processes left in this runlevel",
            stages=_US,
            weight=Weight.SYMPTOM,
            place=Stage.USERSPACE,
        ),
        # skarnet s6, s6-linux-init, s6-rc
        rule(
            Cause.INIT_FROZE,
            r"(?P<what>s6-[\w-]{1,30}: fatal: (?!timed out).{1,160}|s6-svscan crashed\. Killing everything and "
            r"exiting\.)$",
            "s6 cannot go on: {what}",
            "the service or script that it names, and the lines before it, say why",
            "s6-frontend: fatal: s6-rc-init failed",
            stages=_US,
            layer=Layer.UNIT,
            fatal=True,
        ),
        # initscripts checkfs.sh and checkroot.sh, with the status of fsck(8).
        rule(
            Cause.FSCK_FAILED,
            r"(?P<what>fsck exited with status code (?:[4-9]|[1-9]\d{1,2})|File system check failed\. ?)$",
            "the check of the file systems failed: {what}",
            "a file system of fstab is damaged, or is not there: `nofail` lets the boot go on without it",
            "fsck exited with status code 8",
            stages=frozenset({Stage.USERSPACE}),
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.MOUNT_FAILED,
            r"(?:mountall: (?P<what>.{1,160}(?:failed|terminated).{0,80})|(?P<wait>The disk drive for \S{1,200} is "
            r"not ready yet or not present\.?"
            r"|(?:An error occurred|Errors were found) while (?:mounting|checking) .{1,160}"
            r"|.{0,80}fsck failed\. ?Please repair manually.{0,60}|Mounting local "
            r"filesystems?\.{3}.{0,20}failed.{0,40}|(?!Please ).{1,60}\.{3} ?failed!$))",
            "a file system that is to be mounted is not there or damaged: {what}{wait}",
            "fstab must name what is there; `nofail` lets the boot go on without it",
            "The disk drive for /data is not ready yet or not present.",
            stages=_US,
            layer=Layer.OBJECT,
            fatal=False,
        ),
        rule(
            Cause.EMERGENCY_SHELL,
            r"(?:(?:keys:)?Continue to wait,? or Press S to skip|/bin/sh on /etc/rc terminated abnormally, going"
            r"|A maintenance shell will now be started|General error mounting filesystems\.|Press M for manual "
            r"recovery|Give root password for maintenance"
            r"|INIT: Entering runlevel: ?[S1]$|sulogin: cannot open)",
            "the system wants to be repaired by hand",
            "the lines before it say why",
            "General error mounting filesystems.",
            stages=_US,
            weight=Weight.SYMPTOM,
            prompt=True,
        ),
        # Void's runit-void, KISS' init, and other scripts that are somebody's own.
        rule(
            Cause.EMERGENCY_SHELL,
            r".{0,160}\b(?:[Ss]tarting|[Ll]aunching|[Dd]ropping (?:you )?(?:in)?to|[Ss]pawning|[Ee]ntering) (?:an? "
            r"|the )?(?:emergency|rescue|recovery|maintenance|repair) (?:shell|mode)\b",
            "the init gave up and starts a shell for repairs",
            "the lines before it say why",
            "=> Cannot continue due to filesystem errors. Starting emergency shell.",
            stages=frozenset({Stage.USERSPACE}),
            weight=Weight.SYMPTOM,
        ),
        rule(
            Cause.BOOT_MENU,
            r"(?:Select (?:an )?(?:option|language|what)|Choose (?:a|your) (?:language|installation)|.{0,40}\[!+\] "
            r".{1,80}|Install (?:the system|.{1,60})\?)",
            "an installer, or a menu, waits for an answer",
            "this is no installed system, or it was not told its answers (preseed, kickstart, autoinstall)",
            "[!!] Select a language",
            stages=_US,
            layer=Layer.UNIT,
            fatal=True,
        ),
    ),
)
