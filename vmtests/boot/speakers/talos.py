"""Talos, whose only process is machined: no shell, no login, one line a task."""

from vmtests.boot.rules import Layer, Speaker, rule, sign
from vmtests.boot.stages import Stage, between
from vmtests.causes import Cause

_US = between(Stage.KERNEL, Stage.USERSPACE)

SPEAKER = Speaker(
    name="Talos",
    stage=Stage.USERSPACE,
    source="siderolabs/talos internal/app/{init,machined}, internal/app/machined/pkg/runtime/v1alpha1/v1alpha1_"
    "{controller,sequencer}.go, controllers/runtime/machine_status.go",
    signs=(
        sign(
            Stage.USERSPACE,
            r"\[talos\] \[initramfs\] executing /sbin/init",
            "[talos] [initramfs] executing /sbin/init",
        ),
        sign(
            Stage.INITRD,
            r"\[talos\] \[initramfs\] ",
            "[talos] [initramfs] booting Talos v1.8.2",
        ),
        sign(
            Stage.USERSPACE,
            r"\[talos\] (?:(?:initialize|install|boot|upgrade|maintenance\w*) sequence: \d|(?:phase|task|service)\b)",
            "[talos] boot sequence: 12 phase(s)",
        ),
        sign(
            Stage.USERSPACE,
            r"\[talos\] machine is running and ready\b",
            '[talos] machine is running and ready {"component": "controller-runtime"}',
            ready=True,
        ),
        sign(
            Stage.USERSPACE,
            r"\[talos\] (?:install|upgrade) sequence: done",
            "[talos] install sequence: done: 42.1s",
            restart=True,
        ),
    ),
    failures=(
        rule(
            Cause.PROVISIONING_FAILED,
            r"\[talos\] (?P<what>.{0,200}(?:error running phase|failed to (?:download|load|acquire|fetch) config"
            r"|config validation failed|failed to (?:mount|find|format)).{0,300})$",
            "Talos gives up: {what}",
            "the machine's configuration must be valid, be where talos.config= says, and name a disk that is there",
            "[talos] initialize failed: error running phase 6 in initialize sequence: task 1/1: failed, failed to "
            "download config: no such host",
            stages=_US,
        ),
        rule(
            Cause.UNIT_FAILED,
            r"\[talos\] (?P<what>(?:(?:phase|task) \S{1,60} \(\d+/\d+\)|\w+ sequence): failed.{0,200})$",
            "Talos could not do a part of its boot: {what}",
            "the lines before it are what the task said; talosctl dmesg has more",
            "[talos] phase config (6/10): failed",
            stages=_US,
            layer=Layer.OBJECT,
        ),
    ),
)
