"""NixOS: its scripted stage 1, the units of its systemd stage 1, and its stage 2."""

from vmtests.boot.rules import ASKED_HINT, DEVICE_HINT, STAGE1, SYSTEMD, Layer, Speaker, Weight, rule, sign
from vmtests.boot.stages import Stage
from vmtests.causes import Cause

_INIT_HINT = "init= must name a program that is in the store, and the store must be mounted"

SPEAKER = Speaker(
    name="NixOS",
    stage=Stage.INITRD,
    source="nixpkgs nixos/modules/system/boot/{stage-1-init.sh,stage-2-init.sh,systemd/initrd.nix}, "
    "nixos/modules/system/activation, pkgs/build-support/vm",
    signs=(
        sign(Stage.INITRD, r"<<< .+ Stage 1 >>>$", "<<< NixOS Stage 1 >>>"),
        sign(Stage.USERSPACE, r"<<< .+ Stage 2 >>>$", "<<< NixOS Stage 2 >>>"),
        sign(
            Stage.USERSPACE,
            r"booting system configuration /nix/store/",
            "booting system configuration /nix/store/x-nixos",
        ),
        # pkgs/build-support/vm
        sign(Stage.USERSPACE, r"starting stage 2 \(/nix/store/", "starting stage 2 (/nix/store/x-vm-run-stage2)"),
    ),
    failures=(
        rule(
            Cause.PROMPT_WAITS,
            r"Starting interactive shell\.\.\.",
            "a break was asked for, and the boot waits in its shell",
            ASKED_HINT,
            "Starting interactive shell...",
            stages=STAGE1,
            asked=True,
        ),
        rule(
            Cause.DEVICE_TIMEOUT,
            r"Timed out waiting for device (?P<device>\S{1,300}?), trying to mount anyway\.?",
            "device {device} did not appear",
            DEVICE_HINT,
            "Timed out waiting for device /dev/root, trying to mount anyway.",
            stages=STAGE1,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.INIT_MISSING,
            r"stage 2 init script \((?P<init>.{1,300}?)\) not found",
            "stage 2's init {init} is not in the root that was mounted",
            _INIT_HINT,
            "stage 2 init script (/mnt-root//nix/store/x-nixos/init) not found",
            stages=STAGE1,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.FSCK_FAILED,
            r"(?P<what>\S{1,300} has unrepaired errors, please fix them manually\.|fsck on \S{1,300} failed\.)",
            "the check of a file system failed: {what}",
            "the file system is damaged; check it by hand",
            "/dev/vda1 has unrepaired errors, please fix them manually.",
            stages=STAGE1,
            layer=Layer.OBJECT,
        ),
        # The service of the systemd stage 1 fails when init= leads nowhere.
        rule(
            Cause.INIT_MISSING,
            r"\[FAILED\] Failed to start .{0,80}(?:find-nixos-closure|Find NixOS closure)"
            r"|No init= parameter on the kernel command line$",
            "what init= names on the kernel command line is not in the store",
            _INIT_HINT,
            "[FAILED] Failed to start initrd-find-nixos-closure.service - Find NixOS closure.",
            stages=STAGE1,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.UNIT_FAILED,
            r"Activation script snippet '(?P<what>[^']{1,120})' failed \((?P<code>\d+)\)",
            "the activation of the system failed in part: snippet {what}, status {code}",
            "the lines before it are what the snippet said",
            "Activation script snippet 'specialfs' failed (32)",
            stages=SYSTEMD,
            layer=Layer.UNIT,
        ),
        rule(
            Cause.EMERGENCY_SHELL,
            r"(?:An error occurred in stage 1 of the boot process|Starting (?:panic-on-fail\.service - "
            r")?panic-on-fail\.service"
            r"|.{0,80}panic\(\) called|  i\) to launch an interactive shell)",
            "stage 1 gave up and offers its keys",
            "the lines before it say why; boot.shell_on_fail on the command line gives a shell",
            "An error occurred in stage 1 of the boot process, which must mount the",
            stages=STAGE1,
            weight=Weight.SYMPTOM,
        ),
    ),
)
