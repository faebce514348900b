"""The BIOS of QEMU, Xen and of older machines of clouds, and the code in a disk's first sector."""

from vmtests.boot.rules import EARLY, LOADING, Layer, Speaker, Weight, rule, sign
from vmtests.boot.stages import Stage
from vmtests.causes import Cause
from vmtests.errors import Owner

_HINT = "for a BIOS the disk needs a boot loader in its first sector (MBR) that is marked bootable; an image for UEFI \
only does not start on a BIOS"

SPEAKER = Speaker(
    name="SeaBIOS",
    stage=Stage.FIRMWARE,
    source="SeaBIOS src/boot.c, src/post.c; syslinux mbr/mbr.S; GRUB grub-core/boot/i386/pc/boot.S",
    signs=(
        sign(Stage.FIRMWARE, r"SeaBIOS \(version ", "SeaBIOS (version 1.16.2-1)"),
        sign(
            Stage.FIRMWARE,
            r"Booting from (?:Hard Disk|Floppy|DVD/CD|ROM|[0-9a-f]{4}:[0-9a-f]{4})",
            "Booting from Hard Disk...",
        ),
    ),
    failures=(
        rule(
            Cause.FIRMWARE_NO_BOOT_DEVICE,
            r"Boot failed: (?P<what>.{1,200})$",
            "the BIOS could not boot from a disk: {what}",
            _HINT,
            "Boot failed: not a bootable disk",
            stages=LOADING,
        ),
        rule(
            Cause.FIRMWARE_NO_BOOT_DEVICE,
            r"No bootable device\.",
            "the BIOS found no bootable device: no disk has a boot loader that it could start",
            _HINT,
            "No bootable device.",
            stages=LOADING,
            weight=Weight.SYMPTOM,
            prompt=True,
        ),
        rule(
            Cause.BOOTLOADER_MISSING,
            r"(?P<what>Missing operating system|Operating system load(?:ing)? error|Error loading operating system"
            r"|Invalid partition table|No active partition|MBR: ?(?:no active|error).{0,60}"
            r"|This is not a bootable disk\..{0,100}"
            r"|FATAL: (?:No bootable medium found!|Could not read from the boot medium!|INT18: BOOT FAILURE).{0,40}"
            r"|No boot(?:able)? (?:device|disk|medi).{0,80})",
            "the disk's first sector found no boot loader to start: {what}",
            _HINT,
            "Missing operating system.",
            stages=LOADING,
            weight=Weight.SYMPTOM,
        ),
        rule(
            Cause.DISK_READ_ERROR,
            r"(?P<what>(?:CHS|EDD): Error [0-9a-f]{4} reading sector.{1,100}|Geom Error|Hard Disk Error|Read Error"
            r"|Disk error.{0,60})$",
            "the boot loader could not read the disk: {what}",
            "the disk or its emulation gave errors: try another controller, and compare the disk with its source",
            "EDD: Error 0c00 reading sector 86723",
            stages=EARLY,
            layer=Layer.REASON,
            owner=Owner.HOST,
        ),
    ),
)
