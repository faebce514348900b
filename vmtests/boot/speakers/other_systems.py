"""Kernels that are not Linux: a boot of theirs is known to be one, and no more."""

from vmtests.boot.rules import Speaker, sign
from vmtests.boot.stages import Stage

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
            r"|(?:Free|Open|Net|DragonFly ?)BSD \d|SunOS Release \d|illumos|Darwin Kernel Version)",
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
        sign(Stage.KERNEL, r"(?:Computer is booting, SAC started|SAC> ?$|The SAC command prompt is now)", "SAC>"),
        sign(
            Stage.BOOTLOADER,
            r"(?:BdsDxe: starting Boot\w{4} \"Windows Boot Manager\"|Windows Boot Manager|.{0,20}bootstrap loader, "
            r"Revision|>> (?:Open|Free|Net)BSD)",
            "FreeBSD/x86 bootstrap loader, Revision 1.1",
        ),
        sign(Stage.KERNEL, r"(?:Solo5: |Powered by Unikraft|Rump|\|  ___\|)", "Solo5: Console: ttyS0"),
    ),
)
