"""Xen, the hypervisor, which starts Linux as its first domain."""

from vmtests.boot.rules import EARLY, LOADING, Speaker, Weight, rule, sign
from vmtests.boot.stages import Stage
from vmtests.causes import Cause

SPEAKER = Speaker(
    name="Xen",
    stage=Stage.BOOTLOADER,
    source="xen/common/{kernel,symbols}.c, xen/drivers/char/console.c (panic), "
    "xen/arch/x86/{setup,traps,dom0_build}.c; "
    "the console in QubesOS/qubes-issues 9030",
    signs=(
        sign(
            Stage.BOOTLOADER,
            r"(?:\(XEN\) | ?Xen \d\.\d{1,2}\.\d)",
            "(XEN) Xen version 4.17.3 (mockbuild@[unknown]) (gcc (GCC) 12.3.1) debug=n",
        ),
    ),
    failures=(
        rule(
            Cause.KERNEL_PANIC,
            r"\(XEN\) (?P<what>Xen BUG at .{1,160}|FATAL (?:TRAP|PAGE FAULT).{0,100}|Assertion '.{1,200}' "
            r"failed.{0,100}"
            r"|Could not (?:construct|set up|load|find) .{1,120}|Domain 0 allocation is too small.{0,60}"
            r"|Not enough RAM for .{1,80}|.{0,60}is not a[n]? (?:valid )?(?:ELF|kernel).{0,60})$",
            "the hypervisor fails: {what}",
            "the lines before the panic say what it was doing; another build of Xen, or its options on the boot "
            "loader's "
            "line, may help",
            "(XEN) Xen BUG at drivers/passthrough/amd/iommu_init.c:1393",
            stages=EARLY,
        ),
        rule(
            Cause.KERNEL_PANIC,
            r"\(XEN\) (?:Panic on CPU (?P<cpu>\d{1,4}):|Reboot in five seconds\.\.\.|Manual reset required.{0,60})$",
            "the hypervisor panicked on processor {cpu}",
            "the lines before the panic say what it was doing",
            "(XEN) Panic on CPU 0:",
            stages=LOADING,
            weight=Weight.SYMPTOM,
            grace=1.0,
        ),
    ),
)
