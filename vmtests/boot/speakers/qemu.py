"""QEMU's own words, where a log has them beside the guest's: what it could not do, and what KVM refused."""

from vmtests.boot.rules import LOADING, Speaker, rule, sign
from vmtests.boot.stages import Stage
from vmtests.causes import Cause
from vmtests.errors import Owner

# In front of it what a test driver says of the machine, or libvirt of its monitor.
_PROGRAM = (
    r"(?:[\w.-]{1,40} ?# |.{0,200}(?:connecting to|closed the) monitor: \S{0,40} ?)?"
    r"(?:\S{0,200}/)?(?:qemu(?:-system-\w{1,20}|-kvm)?|kvm): (?!warning: )"
)

SPEAKER = Speaker(
    name="QEMU",
    stage=Stage.FIRMWARE,
    source="QEMU accel/kvm/kvm-all.c, target/i386/kvm/kvm.c, system/{vl,physmem}.c, hw/core/loader.c, block/",
    signs=(
        sign(
            Stage.FIRMWARE,
            r"Back to tcg accelerator\.",
            "Back to tcg accelerator.",
            forgives=frozenset({Cause.ACCELERATOR_BROKEN}),
        ),
    ),
    failures=(
        rule(
            Cause.ACCELERATOR_BROKEN,
            r"(?P<what>KVM: entry failed, hardware error 0x[0-9a-f]{1,16}|KVM internal error\. Suberror: \d+"
            r"|error: kvm run failed .{1,80}|Could not access KVM kernel module.{0,80}"
            r"|failed to initialize KVM.{0,80})$"
            r"|" + _PROGRAM + r"(?P<also>(?:-accel \S{1,20}: )?(?:[Ff]ailed to initialize (?:kvm|KVM|hvf|whpx).{0,120}"
            r"|Could not access KVM kernel module.{0,80}|.{0,40}invalid accelerator .{0,60}"
            r"|.{0,40}host doesn't support requested feature.{0,80}|CPU model 'host' requires KVM.{0,60}))$",
            "the accelerator does not work: {what}{also}",
            "use another accelerator (tcg) or CPU model, or a host whose KVM works",
            "KVM: entry failed, hardware error 0x80000021",
            stages=LOADING,
            owner=Owner.HOST,
        ),
        rule(
            Cause.QEMU_EXITED,
            _PROGRAM + r"(?P<what>.{0,200}(?:[Cc]ould not open|[Cc]annot (?:set up guest memory|open|allocate)"
            r"|[Cc]ould not load|[Ff]ailed to (?:get .{1,20} lock|find romfile|load|open)|No such file or directory"
            r"|invalid option"
            r"|Address already in use).{0,200})$"
            r"|(?P<display>Could not initialize SDL.{0,120}|gtk initialization failed.{0,40})$",
            "QEMU could not start the machine: {what}{display}",
            "what it names must be there, readable, and free; the machine never ran",
            "qemu-system-x86_64: cannot set up guest memory 'pc.ram': Cannot allocate memory",
            stages=frozenset({Stage.FIRMWARE}),
            owner=Owner.HOST,
        ),
    ),
)
