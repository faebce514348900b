"""barebox, the boot loader of many ARM boards: firmware and boot loader in one."""

from vmtests.boot.rules import LOADING, Layer, Speaker, Weight, rule, sign
from vmtests.boot.stages import Stage
from vmtests.causes import Cause

_HINT = "boot.default names what is tried: a loader entry, a kernel or a script, on the disk that barebox reads"

SPEAKER = Speaker(
    name="barebox",
    stage=Stage.FIRMWARE,
    source="barebox common/{boot,blspec,bootm,console_countdown,startup}.c, commands/boot.c, lib/bootstrap",
    signs=(
        sign(Stage.FIRMWARE, r"barebox \d{4}\.\d\d\.\d", "barebox 2023.03.0 #1 Thu Mar 9 22:30:51 CET 2023"),
        sign(
            Stage.BOOTLOADER,
            r"(?:[Bb]ooting (?:entry )?'.{1,100}'$|blspec: booting "
            r"|Loading (?:\S+ ){1,4}(?:[Ii]mage|initrd|devicetree)? ?'/.+'$)",
            "blspec: booting Debian from mmc0.0",
        ),
    ),
    failures=(
        rule(
            Cause.BOOTLOADER_ERROR,
            r"(?:(?:ERROR|error): )?(?P<what>Booting (?:entry )?'.{1,100}' failed.{0,120}"
            r"|Nothing bootable found.{0,120}|Couldn't resolve bootentry .{1,120})$",
            "barebox could not boot: {what}",
            _HINT,
            "ERROR: Booting entry 'mmc' failed: No such file or directory",
            stages=LOADING,
            layer=Layer.UNIT,
            fatal=True,
        ),
        rule(
            Cause.BOOTLOADER_ERROR,
            r"(?:ERROR|error): (?P<what>(?:blspec|bootm|bootchooser|boot|uimage|mount|ext4|fat\w*): .{1,200})$",
            "barebox fails: {what}",
            _HINT,
            "ERROR: blspec: failed to mount mmc2.0: No such device",
            stages=LOADING,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.FIRMWARE_NO_BOOT_DEVICE,
            r"barebox[@:][\w .,()/+-]{0,60}:?[/~]\S{0,60} ?$",
            "barebox waits for commands",
            _HINT,
            "barebox@ARM QEMU virt64:/ ",
            stages=LOADING,
            weight=Weight.WAIT,
            grace=10.0,
        ),
    ),
)
