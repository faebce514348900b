"""SYSLINUX, EXTLINUX, ISOLINUX and PXELINUX."""

from vmtests.boot.rules import EARLY, LOADING, Layer, Speaker, Weight, rule, sign
from vmtests.boot.stages import Stage
from vmtests.causes import Cause

_HINT = (
    "syslinux.cfg or extlinux.conf must name kernel and initrd where they are, and ldlinux.c32 must be of the same \
version as the installed loader"
)

SPEAKER = Speaker(
    name="SYSLINUX",
    stage=Stage.BOOTLOADER,
    source="syslinux core/{diskstart.inc,fs/fs.c,elflink/load_env32.c}, com32/elflink/ldlinux/",
    signs=(
        sign(
            Stage.BOOTLOADER,
            r"(?:SYS|EXT|ISO|PXE)LINUX \d\.\d\d|Loading \S{1,120}\.{3} ?.{0,8}ok$",
            "SYSLINUX 6.04 EDD 6.04-pre2 Copyright (C) 1994-2015 H. Peter Anvin et al",
        ),
    ),
    failures=(
        rule(
            Cause.BOOTLOADER_INVALID,
            r"(?P<what>Failed to load (?:ldlinux\.\w{3}|COM32 file .{1,100}|libcom32\.c32)|Boot error|No "
            r"ldlinux.{1,40}"
            r"|ERROR: No configuration file found|Unable to locate configuration file"
            r"|No DEFAULT or UI configuration directive found!"
            r"|.{1,80}: not a COM32R image)",
            "SYSLINUX cannot go on: {what}",
            _HINT,
            "Failed to load ldlinux.c32",
            stages=LOADING,
        ),
        rule(
            Cause.KERNEL_MISSING,
            r"(?P<what>Could not find kernel image: .{1,200}|Could not find ramdisk image: .{1,200}"
            r"|Loading \S{1,200}\.{3} ?failed.{0,80}|Invalid or corrupt kernel image\.?)",
            "SYSLINUX does not find what it is to load: {what}",
            _HINT,
            "Could not find kernel image: linux",
            stages=EARLY,
        ),
        rule(
            Cause.BOOT_MENU,
            r"boot: ?$",
            "SYSLINUX waits for somebody to name what it shall boot",
            _HINT,
            "boot: ",
            stages=LOADING,
            weight=Weight.WAIT,
            layer=Layer.UNIT,
            grace=10.0,
        ),
    ),
)
