"""How a boot fails in the kernel's own words."""

import re

from vmtests.boot.rules import BOOTING, OVERLAY_HINT, PANIC_HINT, RUNNING, STORE_HINT, LineRule, Weight
from vmtests.boot.verdict import Cause
from vmtests.errors import Owner

_ROOT_HINT = "look at the root file system with e2fsck -fn"
_EROFS = r"erofs(?: \(device \S{1,32}\)|: \(device \S{1,32}\))?: (?:erofs_\w{1,40}: )?"


def _clue(cause: Cause, pattern: str, sentence: str, hint: str) -> LineRule:
    """Return a rule for a line that says why something failed, which ends the boot only later."""
    return LineRule(
        cause=cause,
        pattern=re.compile(pattern),
        sentence=sentence,
        hint=hint,
        stages=BOOTING,
        weight=Weight.CLUE,
        kernel=True,
    )


RULES = (
    # Linux init/initramfs.c, do_populate_rootfs().
    _clue(
        Cause.INITRD_INVALID,
        r"Initramfs unpacking failed: (?!write error)(?P<what>.{1,200})$",
        "the kernel cannot unpack the initrd: {what}",
        "the initrd on the ESP is damaged or was cut; copy it there again",
    ),
    # The same: the file system of the initrd lives in memory.
    _clue(
        Cause.OUT_OF_MEMORY,
        r"Initramfs unpacking failed: write error",
        "the initrd did not fit in the machine's memory",
        "give the machine more memory, or make the initrd smaller",
    ),
    # Linux init/main.c, kernel_init(); kernel/panic.c.
    LineRule(
        cause=Cause.INIT_MISSING,
        pattern=re.compile(
            r"Kernel panic - not syncing: "
            r"(?P<what>No working init found|Requested init \S{1,400} failed \(error -\d+\))"
        ),
        sentence="the kernel found no init to run: {what}",
        hint="the initrd needs an /init that can be executed; without one the kernel tries init= itself",
        stages=RUNNING,
        grace=1.0,
        kernel=True,
    ),
    LineRule(
        cause=Cause.OUT_OF_MEMORY,
        pattern=re.compile(
            r"Kernel panic - not syncing: "
            r"(?P<what>(?:System is deadlocked on memory|Out of memory).{0,100})"
        ),
        sentence="the guest ran out of memory: {what}",
        hint="give the machine more memory",
        stages=RUNNING,
        grace=1.0,
        kernel=True,
    ),
    # Linux init/do_mounts.c, mount_root_generic(): why there is no root was said before, if at all.
    LineRule(
        cause=Cause.KERNEL_PANIC,
        pattern=re.compile(
            r"(?:---\[ end )?Kernel panic - not syncing: (?P<what>VFS: Unable to mount root fs.{0,200}?)(?: \]---)?$"
        ),
        sentence="the kernel panicked: {what}",
        hint="the kernel had no initrd, or none that it could unpack, and found no root by itself",
        stages=BOOTING,
        grace=1.0,
        weight=Weight.SYMPTOM,
        kernel=True,
    ),
    LineRule(
        cause=Cause.INIT_EXITED,
        # Linux kernel/exit.c, do_exit(): somebody else may have said why.
        pattern=re.compile(
            r"(?:---\[ end )?Kernel panic - not syncing: "
            r"Attempted to kill init! exitcode=(?P<code>0x[0-9a-f]{1,8})"
        ),
        sentence="the first process ended (exit code {code}), and the kernel panicked",
        hint="init must be systemd, or a program that never ends",
        stages=RUNNING,
        grace=1.0,
        weight=Weight.SYMPTOM,
        kernel=True,
    ),
    LineRule(
        cause=Cause.KERNEL_PANIC,
        # panic-on-fail of NixOS: somebody else said why.
        pattern=re.compile(
            r"(?:---\[ end )?Kernel panic - not syncing: "
            r"(?P<what>sysrq triggered crash|Attempted to kill init!.{0,60})"
        ),
        sentence="the kernel panicked: {what}",
        hint=PANIC_HINT,
        stages=RUNNING,
        grace=1.0,
        weight=Weight.SYMPTOM,
        kernel=True,
    ),
    LineRule(
        cause=Cause.KERNEL_PANIC,
        pattern=re.compile(r"(?:---\[ end )?Kernel panic - not syncing: (?P<what>.{0,300}?)(?: \]---)?$"),
        sentence="the kernel panicked: {what}",
        hint=PANIC_HINT,
        stages=RUNNING,
        grace=1.0,
        kernel=True,
    ),
    # Linux arch/x86/kernel/dumpstack.c, __die_header(): "<what>: <error code> [#<count>]"; lib/bug.c. Soft
    # lockups and warnings are survived, and a loaded host without KVM makes them.
    LineRule(
        cause=Cause.KERNEL_OOPS,
        pattern=re.compile(
            r"(?P<what>BUG: (?:kernel NULL pointer dereference|unable to handle).{0,200}"
            r"|kernel BUG at .{1,200}"
            r"|[A-Za-z][^:\[]{1,60}(?:: [^:\[]{1,60})?: [0-9a-f]{4,16} \[#\d{1,4}\]).{0,300}$"
        ),
        sentence="the kernel crashed in a process: {what}",
        hint="the call trace in console.log names the function; try another accelerator or CPU model",
        stages=RUNNING,
        grace=3.0,
        weight=Weight.SYMPTOM,
        kernel=True,
    ),
    # Linux kernel/watchdog.c. A loaded host without KVM makes the shorter ones.
    LineRule(
        cause=Cause.KERNEL_HANG,
        pattern=re.compile(
            r"watchdog: BUG: soft lockup - CPU#(?P<cpu>\d{1,5}) stuck for (?P<seconds>1[2-9]\d|[2-9]\d\d|\d{4,9})s! "
            r"\[(?P<what>.{1,64})\]"
        ),
        sentence="the kernel hangs: processor {cpu} is stuck for {seconds} s in {what}",
        hint="the call trace in console.log names the function; try another accelerator or CPU model",
        stages=RUNNING,
        grace=1.0,
        kernel=True,
    ),
    # Linux kernel/rcu/tree_stall.h, rcu_check_gp_kthread_expired_fqs_timer(): a timer is overdue by 21 s. Seen where a
    # guest on a busy host changed its clock source in its first seconds, and where a virtual processor got no time.
    LineRule(
        cause=Cause.TIMER_STALLED,
        pattern=re.compile(r"rcu: rcu_\w{1,20} kthread timer wakeup didn't happen for (?P<jiffies>\d{1,9}) jiffies! "),
        sentence="the guest's timer stands still: what it was to wake sleeps for {jiffies} jiffies too long",
        hint="the host is too busy, or a rare race of the guest's kernel: power it on again",
        stages=BOOTING,
        owner=Owner.HOST,
        kernel=True,
    ),
    LineRule(
        cause=Cause.OUT_OF_MEMORY,
        pattern=re.compile(r"(?:Memory cgroup o|O)ut of memory: Killed process \d+ \((?P<what>.{1,64}?)\)"),
        sentence="the guest ran out of memory, the kernel killed {what}",
        hint="give the machine more memory",
        stages=BOOTING,
        weight=Weight.CLUE,
        kernel=True,
    ),
    # Linux fs/erofs/super.c and inode.c; erofs_err() puts the device in front.
    _clue(
        Cause.EROFS_SUPERBLOCK,
        _EROFS + r"cannot find valid erofs superblock",
        "the kernel finds no erofs on the store partition",
        STORE_HINT,
    ),
    _clue(
        Cause.EROFS_FEATURE,
        _EROFS + r"(?P<what>unidentified .{0,40}feature.{0,80})$",
        "the kernel does not know a feature of the store's erofs: {what}",
        "make the erofs without that feature, or boot a newer kernel",
    ),
    _clue(
        Cause.EROFS_DAMAGED,
        _EROFS + r"(?P<what>(?:bogus|invalid|corrupted|failed|cannot|unsupported|too|.{1,60}corrupt).{1,200})$",
        "the store is damaged: {what}",
        STORE_HINT,
    ),
    # Linux fs/overlayfs/super.c and params.c.
    _clue(
        Cause.OVERLAY_WORKDIR,
        r"overlayfs: (?P<what>workdir and upperdir must .{1,60}|failed to resolve '\S{0,300}work\S{0,100}': -\d+)$",
        "the overlay on the store cannot be mounted: {what}",
        OVERLAY_HINT,
    ),
    # Linux fs/ext4/super.c.
    _clue(
        Cause.EXT4_SUPERBLOCK,
        r"EXT4-fs \(\S{1,32}\): VFS: Can't find ext4 filesystem",
        "the kernel finds no ext4 on the root partition",
        _ROOT_HINT,
    ),
    _clue(
        Cause.EXT4_DAMAGED,
        r"EXT4-fs (?:error )?\((?:device )?\S{1,32}\): (?P<what>(?!mounted|unmounting|re-mounted|resiz).{1,200})$",
        "the root file system is damaged: {what}",
        _ROOT_HINT,
    ),
)
