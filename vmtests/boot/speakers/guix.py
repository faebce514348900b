"""Guix System: an initrd that is Guile, and the Shepherd as init."""

from vmtests.boot.rules import DEVICE_HINT, STAGE1, Layer, Speaker, Weight, rule, sign
from vmtests.boot.stages import Stage
from vmtests.causes import Cause

SPEAKER = Speaker(
    name="Guix",
    stage=Stage.INITRD,
    source="guix gnu/build/{linux-boot,file-systems,activation}.scm; shepherd modules/shepherd/service.scm; guile's "
    "prompt",
    signs=(
        sign(
            Stage.INITRD,
            r"Welcome, this is GNU's early boot Guile\.$",
            "Welcome, this is GNU's early boot Guile.",
        ),
        sign(
            Stage.USERSPACE,
            r"(?:shepherd\[1\]: )?Service root(?: has been)? started\.$",
            "shepherd[1]: Service root has been started.",
        ),
    ),
    failures=(
        rule(
            Cause.DEVICE_TIMEOUT,
            r"(?:.{0,40}: )?failed to resolve partition(?: label)? (?P<device>\S.{0,120})$",
            "the initrd waited for {device}, and no disk has it",
            DEVICE_HINT,
            'failed to resolve partition "my-root"',
            stages=STAGE1,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.DEVICE_TIMEOUT,
            r"waiting for partition '(?P<device>.{1,120})' to appear\.\.\.$",
            "the initrd waits for the partition {device}",
            DEVICE_HINT,
            "waiting for partition 'my-root' to appear...",
            stages=STAGE1,
            layer=Layer.UNIT,
        ),
        rule(
            Cause.EMERGENCY_SHELL,
            r"(?:GNU Guile \d\.\d\S*|scheme@\(guile-user\)(?: \[\d+\])?> ?)$",
            "the initrd gave up, and waits in Guile",
            "the error before it says why",
            "scheme@(guile-user)> ",
            stages=STAGE1,
            weight=Weight.SYMPTOM,
            prompt=True,
        ),
    ),
)
