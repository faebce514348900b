"""Firmware that says little more than that it is there: of RISC-V, ARM, POWER and s390, coreboot, Xen's loaders."""

from vmtests.boot.rules import LOADING, Speaker, Weight, rule, sign
from vmtests.boot.stages import Stage
from vmtests.causes import Cause

SPEAKER = Speaker(
    name="other firmware",
    stage=Stage.FIRMWARE,
    source="riscv/opensbi lib/sbi/sbi_init.c; trusted-firmware-a bl1, bl31; optee_os core; coreboot src/console; "
    "aik/SLOF; qemu pc-bios/s390-ccw; xen tools/firmware/hvmloader, stubdom/grub, extras/mini-os; Bochs BIOS",
    signs=(
        sign(
            Stage.FIRMWARE,
            r"(?:OpenSBI v\d|NOTICE: +(?:BL\d|Booting Trusted Firmware)|[DIE]/TC:|coreboot-\S|SLOF \*|\(d\d+\) HVM "
            r"Loader|Bochs BIOS - |VMware Virtual|LOADPARM=\[|ROM boot: |Hostboot|INFO: +BL\d)",
            "OpenSBI v1.3",
        ),
        sign(Stage.BOOTLOADER, r"(?:Xen Minimal OS!|LILO \d|ELILO |zIPL v|Petitboot )", "Xen Minimal OS!"),
    ),
    failures=(
        rule(
            Cause.FIRMWARE_NO_BOOT_DEVICE,
            r"(?P<what>E\d{4}: .{0,60}(?:boot|load).{0,80}|! No (?:EXEC entry|virtio device found|IPL device).{0,40}"
            r"|No (?:NVRAM|boot) .{0,20}(?:device|command).{0,60}|ERROR: +(?:BL\d|Failed to load).{0,120}"
            r"|Unable to load payload.{0,40})",
            "the firmware found nothing to boot: {what}",
            "the disk must be attached and have a boot loader for this machine's architecture and firmware",
            "! No EXEC entry !",
            stages=LOADING,
            weight=Weight.SYMPTOM,
        ),
    ),
)
