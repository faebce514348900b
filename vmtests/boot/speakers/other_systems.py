"""Kernels that are not Linux: a boot of theirs is known to be one, and little more."""

from vmtests.boot.rules import LOADING, PANIC_HINT, Layer, Speaker, Weight, rule, sign
from vmtests.boot.stages import Stage
from vmtests.causes import Cause

SPEAKER = Speaker(
    name="other systems",
    stage=Stage.KERNEL,
    source="FreeBSD sys/kern/init_main.c, sys/sys/copyright.h; OpenBSD, NetBSD conf/copyright; illumos "
    "uts/common/os/startup; Windows EMS (SAC), bootmgr; MirageOS solo5, Unikraft banners",
    foreign=True,
    signs=(
        sign(
            Stage.KERNEL,
            r"(?:---<<BOOT>>---|Copyright \(c\) .{1,80}(?:FreeBSD|OpenBSD|NetBSD|Berkeley|Regents)"
            r"|(?:Free|Open|Net|DragonFly ?)BSD \d|SunOS Release \d|illumos(?!/)|Darwin Kernel Version)",
            "Copyright (c) 1992-2021 The FreeBSD Project.",
        ),
        # NetBSD sys/kern/subr_prf.c stamps with seven digits; the prompts of sys/ddb/db_command.c and, in FreeBSD,
        # of sys/kern/vfs_mountroot.c.
        sign(
            Stage.KERNEL,
            r"(?:\[ {2,6}\d{1,6}\.\d{7}\] |db(?:\{\d{1,3}\})?> ?$|Stopped in pid \d|mountroot> ?$"
            r"|KDB: (?:stack backtrace|enter):)",
            "[   1.0000000] cpu_rng: rdrand/rdseed",
        ),
        sign(
            Stage.KERNEL,
            r"(?:Trying to mount root from \w{1,12}:|Mounting from \w{1,12}:\S{0,200} failed with error \d)",
            "Trying to mount root from ufs:/dev/gpt/rootfs [rw]...",
        ),
        sign(
            Stage.USERSPACE,
            r"GCEGuestAgent: GCE Agent Started",
            "GCEGuestAgent: GCE Agent Started (version 20240109.00)",
            ready=True,
        ),
        sign(Stage.KERNEL, r"(?:Computer is booting, SAC started|SAC> ?$|The SAC command prompt is now)", "SAC>"),
        sign(
            Stage.BOOTLOADER,
            r"(?:BdsDxe: starting Boot\w{4} \"Windows Boot Manager\"|Windows Boot Manager"
            r"|.{0,30}(?:bootstrap loader|User boot.{0,8}|EFI loader), Revision|>> (?:Open|Free|Net)BSD)",
            "FreeBSD/x86 bootstrap loader, Revision 1.1",
        ),
        sign(Stage.KERNEL, r"(?:Solo5: |Powered by Unikraft|Rump|\|  ___\|)", "Solo5: Console: ttyS0"),
    ),
    failures=(
        # FreeBSD sys/kern/vfs_mountroot.c, sys/amd64/amd64/trap.c
        rule(
            Cause.DEVICE_TIMEOUT,
            r"Mounting from (?P<device>\w{1,12}:\S{0,200}) failed with error (?P<number>\d{1,3})",
            "FreeBSD cannot mount its root {device} (error {number}, errno(2))",
            "the device that loader.conf or fstab names must be there, and hold that file system",
            "Mounting from ufs:/dev/gpt/rootfs failed with error 19.",
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.DEVICE_TIMEOUT,
            r"mountroot> ?$",
            "FreeBSD asks for its root",
            "the lines before it say what it could not mount",
            "mountroot> ",
            weight=Weight.SYMPTOM,
            prompt=True,
        ),
        rule(
            Cause.KERNEL_PANIC,
            r"(?P<what>Fatal trap \d{1,2}: .{1,100})$",
            "the kernel panicked: {what}",
            PANIC_HINT,
            "Fatal trap 12: page fault while in kernel mode",
            weight=Weight.SYMPTOM,
        ),
        rule(
            Cause.BOOTLOADER_ERROR,
            r"\s*(?P<what>The operating system couldn't be loaded because .{1,120}|Windows failed to start\..{0,80}"
            r"|The Boot Configuration Data (?:file|for your PC) .{1,120})$",
            "Windows' boot manager cannot start it: {what}",
            "the file and the error code after it say what is missing: repair it with bcdboot or Windows' own medium",
            "The Boot Configuration Data for your PC is missing or contains errors.",
            stages=LOADING,
        ),
    ),
)
