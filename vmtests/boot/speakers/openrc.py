"""OpenRC, the init of Alpine and Gentoo."""

from vmtests.boot.rules import Layer, Speaker, Weight, rule, sign
from vmtests.boot.stages import Stage
from vmtests.causes import Cause

_US = frozenset({Stage.KERNEL, Stage.INITRD, Stage.SWITCH_ROOT, Stage.USERSPACE})
_HINT = "the lines before it are what the service said; rc-status and /var/log/rc.log have more"

SPEAKER = Speaker(
    name="OpenRC",
    stage=Stage.USERSPACE,
    source="openrc src/{rc,librc,libeinfo}, sh/, init.d/{root,localmount,fsck}.in",
    signs=(
        sign(
            Stage.USERSPACE,
            r" *OpenRC (?:\S{1,40}m)?\d\S* is starting up",
            "   OpenRC 0.44.10 is starting up Linux 5.15.0 (x86_64)",
        ),
        sign(
            Stage.USERSPACE,
            r" \* (?:Mounting /proc|Mounting /sys|Caching service dependencies|Remounting (?:devtmpfs|root)|/proc "
            r"is already mounted|Checking local filesystems"
            r"|Mounting local filesystems|Starting (?:sshd|crond|networking|syslog|busybox))",
            " * Caching service dependencies ... [ ok ]",
        ),
    ),
    failures=(
        rule(
            Cause.FSCK_FAILED,
            r" \* (?P<what>(?:Filesystem couldn't be fixed|.{0,20}rerun fsck manually|.{0,60}Aborting|Filesystem "
            r"errors could not be fixed).{0,80})",
            "a file system could not be mended at boot: {what}",
            "check the file system by hand",
            " * Filesystem couldn't be fixed",
            stages=_US,
        ),
        rule(
            Cause.MOUNT_FAILED,
            r" \* (?P<what>(?:Some local filesystem failed to mount|Root filesystem could not be mounted.{0,40}"
            r"|Failed to mount .{1,120}|Error mounting .{1,100}|Unable to (?:mount|remount).{1,120}))",
            "a file system was not mounted: {what}",
            "the lines before it say which, and why",
            " * Some local filesystem failed to mount",
            stages=_US,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.UNIT_FAILED,
            r" \* (?P<what>ERROR: .{1,200}(?:failed to start|cannot start).{0,160}|.{1,120} \.{3} ?\[ !! \]"
            r"|start-stop-daemon: .{1,160}|.{1,80}: (?:caught an error|failed).{0,80})$",
            "a service failed: {what}",
            _HINT,
            " * ERROR: networking failed to start",
            stages=_US,
            layer=Layer.UNIT,
        ),
        rule(
            Cause.INIT_FROZE,
            r"(?:openrc-init|init): (?P<what>(?!\[libfs_mgr\]|Init ).{0,80}(?:cannot|can't|unable|failed"
            r"|panic).{0,160})$",
            "the init fails: {what}",
            _HINT,
            "openrc-init: unable to start runlevel sysinit, failed",
            stages=_US,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.EMERGENCY_SHELL,
            r"(?:Give root password for maintenance|sulogin: .{1,80}|Press enter for system maintenance)",
            "the system asks for root's password to be repaired",
            _HINT,
            "Give root password for maintenance",
            stages=_US,
            weight=Weight.SYMPTOM,
            prompt=True,
        ),
    ),
)
