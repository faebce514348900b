"""Ignition, which provisions CoreOS and Flatcar in the initrd; afterburn; ostree; systemd-repart's kind of work."""

from vmtests.boot.rules import MORE_HINT, STAGE1, Layer, Speaker, Weight, rule, sign
from vmtests.boot.stages import Stage
from vmtests.causes import Cause

_HINT = "the configuration (user data) that the machine was given must be valid, and what it fetches must be reachable"

SPEAKER = Speaker(
    name="Ignition",
    stage=Stage.INITRD,
    source="coreos/ignition internal/{exec,providers,resource}, fedora-coreos-config overlay.d/05core "
    "(ignition-ostree, "
    "emergency-shell.sh), flatcar init, ostree-prepare-root",
    signs=(
        sign(
            Stage.INITRD,
            r"(?:Ignition \d+\.\d+|ignition: |Stage: (?:fetch|disks|files|mount|kargs))",
            "Ignition 2.14.0",
        ),
        sign(
            Stage.INITRD,
            r"(?:Rebooting (?:to apply|after|into)|.{0,40}kernel arguments? (?:changed|modified)).{0,100}$",
            "Rebooting to apply new kernel arguments",
            restart=True,
        ),
    ),
    failures=(
        rule(
            Cause.PROVISIONING_FAILED,
            r"(?:[Ii]gnition(?:\[\d+\])?: (?=failed to ))?(?P<what>(?!.{0,40}not a config \((?:empty|found ))"
            r"(?:Ignition failed: |failed to (?:(?:fully )?fetch config|acquire config|parse config)\b"
            r"|(?<=gnition: )failed to (?:fetch|create|run|mount|mkfs|format|partition|wait on|write|relabel|get"
            r"|unlock|match)\b|config is "
            r"not valid|not a config|error at \$|no config at URL"
            r"|PROVIDER CONFIG NOT FOUND|disks failed|files failed|mount failed|fetch failed|kargs failed|CRITICAL "
            r"?: ).{0,240})$",
            "Ignition failed: {what}",
            _HINT,
            "ignition[712]: failed to fetch config: resource requires networking",
            stages=STAGE1,
            layer=Layer.REASON,
        ),
        rule(
            Cause.PROVISIONING_FAILED,
            r"(?P<what>GET (?:error|result): .{1,200}|GET https?://\S{1,200}: attempt #(?:[5-9]|\d\d+))$",
            "Ignition cannot fetch what it needs: {what}",
            _HINT,
            'GET error: Get "http://169.254.169.254/2009-04-04/user-data": dial tcp: connect: network is unreachable',
            stages=STAGE1,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.MOUNT_FAILED,
            r"(?:ostree-prepare-root.{0,80}(?:\[\d+\])?: )?(?P<what>(?:ostree-prepare-root: |Couldn't find specified "
            r"OSTree root|No OSTree target"
            r"|failed to (?:MS_MOVE|bind mount|mount) .{0,60}|couldn't .{0,60}|composefs: .{0,40}(?:failed"
            r"|error)).{0,200})$",
            "the ostree root could not be prepared: {what}",
            "ostree= on the command line must name a deployment that is on root",
            "ostree-prepare-root: Couldn't find specified OSTree root '/sysroot//ostree/boot.0/x'",
            stages=STAGE1,
            layer=Layer.REASON,
        ),
        rule(
            Cause.MOUNT_FAILED,
            r"\[FAILED\] Failed to start (?:\S+ - )?OSTree Prepare OS/\.?$",
            "OSTree Prepare OS/ failed",
            "ostree= on the command line must name a deployment that is on root",
            "[FAILED] Failed to start ostree-prepare-root.service - OSTree Prepare OS/.",
            stages=STAGE1,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.PROVISIONING_FAILED,
            r"\[FAILED\] Failed to start (?:\S+ - |\S*(?:…|\ufffd)\S* ?-? ?)?(?P<unit>.{0,40}[Ii]gnition.{0,80}?)\.?$",
            "Ignition's unit failed: {unit}",
            _HINT,
            "[FAILED] Failed to start Ignition OSTree: Regenerate Filesystem UUID (boot).",
            stages=STAGE1,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.UNIT_FAILED,
            r"(?P<what>This operation requires a freshly checked filesystem\.|.{0,120}Please run e2fsck -f on the "
            r"filesystem\.?)",
            "a program of the initrd refused: {what}",
            "check the file system (e2fsck -f) before its UUID is changed",
            "This operation requires a freshly checked filesystem.",
            stages=STAGE1,
        ),
        rule(
            Cause.EMERGENCY_SHELL,
            r"(?:Press Enter for emergency shell or wait \d+ minutes? for reboot|Displaying logs from failed "
            r"units: (?P<units>.{1,200})"
            r"|Ignition has failed\. Please ensure your config is valid)",
            "the initrd gave up and went into emergency mode",
            MORE_HINT,
            "Press Enter for emergency shell or wait 5 minutes for reboot.",
            stages=STAGE1,
            weight=Weight.SYMPTOM,
            prompt=True,
        ),
    ),
)
