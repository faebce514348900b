"""dinit, the init of Chimera Linux, and of Artix and Void where somebody chose it: a bare name behind each status."""

from vmtests.boot.rules import BOOTING, Layer, Speaker, Weight, rule, sign
from vmtests.boot.stages import Stage
from vmtests.causes import Cause

SPEAKER = Speaker(
    name="dinit",
    stage=Stage.USERSPACE,
    source="davmac314/dinit src/dinit-log.cc (log_service_failed), src/dinit.cc (confirm_restart_boot); chimera-linux/"
    "dinit-chimera services",
    signs=(
        sign(
            Stage.USERSPACE,
            r"(?:\[OK\] (?:early-[\w.@-]{1,40}|boot|login\.target|local\.target)|\[STOPPD\] [\w.@-]{1,60}|dinit: "
            r".{1,200})$",
            "[  OK  ] early-prepare",
            since=Stage.KERNEL,
        ),
    ),
    failures=(
        rule(
            Cause.UNIT_FAILED,
            r"(?:All services have stopped with no shutdown issued; boot failure\?|\[(?:FAILED|DEPEND)\] boot)$",
            "dinit's service `boot` did not start, which is all of the system",
            "the service that failed before it says why",
            "All services have stopped with no shutdown issued; boot failure?",
            stages=BOOTING,
            weight=Weight.SYMPTOM,
            prompt=True,
        ),
        rule(
            Cause.UNIT_FAILED,
            r"\[FAILED\] (?P<unit>[\w@+-]{1,40}(?:\.target)?)$",
            "the service {unit} failed",
            "dinit's own log, and the service's (its logfile), say why; dinitctl status in a shell has its exit code",
            "[FAILED] early-root-fsck",
            stages=BOOTING,
            layer=Layer.UNIT,
            fatal=False,
        ),
        rule(
            Cause.UNIT_FAILED,
            r"dinit: (?P<unit>[\w.@+-]{1,60}): (?P<what>execution failed - .{1,200})$",
            "the service {unit} failed: {what}",
            "what it names must be there when the service is started",
            "dinit: dbus-setup: execution failed - setting up standard input/output descriptors: No such file or "
            "directory",
            stages=BOOTING,
            layer=Layer.UNIT,
            fatal=False,
        ),
        rule(
            Cause.DEPENDENCY_FAILED,
            r"\[DEPEND\] (?P<unit>[\w@+-]{1,40}(?:\.target)?)$",
            "{unit} was not started, as a service that it depends on failed",
            "the service that failed before it says why",
            "[DEPEND] login.target",
            stages=BOOTING,
            layer=Layer.RESULT,
        ),
    ),
)
