"""The Linux kernel: its start, its search for root and init, panics, crashes, lockups."""

from vmtests.boot.rules import (
    ASKED_HINT,
    BOOTING,
    EARLY,
    MEMORY_HINT,
    PANIC_HINT,
    RUNNING,
    STAGE1,
    Layer,
    Speaker,
    Weight,
    rule,
    sign,
)  # fmt: skip
from vmtests.boot.stages import Stage
from vmtests.causes import Cause
from vmtests.errors import Owner

_PANIC = r" ?(?:---\[ end )?Kernel panic - not syncing: "
_CPU_HINT = "the call trace after it names the function; try another accelerator, CPU model or kernel"
_STARVED = "give the machine a processor of its own, or the host less to do; a guest that stands still for so long \
was not let run"

SPEAKER = Speaker(
    name="Linux",
    stage=Stage.KERNEL,
    source="Linux init/{main,do_mounts,initramfs,version}.c, kernel/{panic,exit,watchdog,hung_task}.c, "
    "kernel/rcu/tree_stall.h, drivers/firmware/efi/libstub, arch/x86",
    general=True,
    signs=(
        # The first words of kernel code, printed through the firmware.
        sign(Stage.KERNEL, r"EFI stub: ", "EFI stub: Loaded initrd from LINUX_EFI_INITRD_MEDIA_GUID device path"),
        # arch/{x86,arm}/boot/compressed/misc.c
        sign(
            Stage.KERNEL,
            r"(?:Decompressing Linux\.\.\.|Uncompressing Linux\.\.\.|early console in (?:setup|extract))",
            "Decompressing Linux... Parsing ELF... done.",
        ),
        # linux_banner; not shown with loglevel=4 or quiet.
        sign(Stage.KERNEL, r"Linux version \d", "Linux version 6.1.0-9-amd64 (debian-kernel@lists.debian.org)"),
        sign(
            Stage.KERNEL, r"Booting Linux on physical CPU", "Booting Linux on physical CPU 0x0000000000 [0x410fd083]"
        ),
        # What drivers of every machine say, where the kernel does not stamp its lines.
        sign(
            Stage.KERNEL,
            r"(?:ACPI: (?:bus type PCI|Interpreter enabled|Using IOAPIC)|SCSI subsystem initialized$|NET: Registered "
            r"|netconsole: network logging|cfg80211: |ata\d{1,2}(?:\.\d\d)?: |(?:XFS|EXT4-fs) \(\w{1,32}\): [Mm]ount"
            r"|clocksource: |Calibrating delay loop|Dentry cache hash table|devtmpfs: |Freeing unused kernel|usbcore: "
            r"registered)",
            "SCSI subsystem initialized",
            until=Stage.BOOTLOADER,
        ),
        # init/do_mounts.c: rootwait waited for it, or another type was tried before.
        sign(
            Stage.KERNEL,
            r"VFS: Mounted root \(",
            "VFS: Mounted root (ext4 filesystem) readonly on device 179:2.",
            forgives=frozenset({Cause.DEVICE_TIMEOUT, Cause.MOUNT_FAILED}),
        ),
        # run_init_process(); with an initrd the program is /init.
        sign(Stage.INITRD, r"Run /init as init process$", "Run /init as init process"),
        sign(
            Stage.USERSPACE,
            r"Run (?!/init )\S+ as init process$",
            "Run /sbin/init as init process",
            until=Stage.KERNEL,
        ),
        # Ubuntu Core, which writes itself to the disk and boots from there (snapd, bootloader/kcmdline).
        sign(
            Stage.KERNEL,
            r"(?:Kernel c|C)ommand line: (?:.{0,900} )?snapd_recovery_mode=(?:install|factory-reset)(?: |$)",
            "Kernel command line: snapd_recovery_mode=install console=ttyS0",
            restart=True,
        ),
        # kernel/reboot.c and kernel/kexec_core.c.
        sign(Stage.KERNEL, r"kexec_core: Starting new kernel$", "kexec_core: Starting new kernel", restart=True),
    ),
    failures=(
        # dracut.cmdline(7), initramfs-tools(7), mkinitcpio(8), systemd(1), nixos stage-1-init.sh.
        rule(
            Cause.PROMPT_WAITS,
            r"(?:Kernel c|C)ommand line: (?:.{0,900} )?(?P<what>rd\.break(?:=\S{1,40})?|break(?:=\S{1,40})?|single"
            r"|rescue|emergency|(?:rd\.)?systemd\.unit=(?:rescue|emergency)\.target|boot\.debug1\w*)(?: |$)",
            "the kernel's command line asks for a shell ({what}), and the boot waits in it",
            ASKED_HINT,
            "Kernel command line: root=/dev/vda1 rd.break console=ttyS0",
            stages=BOOTING,
            kernel=True,
            asked=True,
        ),
        rule(
            Cause.BOOTLOADER_ERROR,
            r"EFI stub: ERROR: (?!Failed to alloc highmem for files)(?P<what>.{1,300})$",
            "the kernel's EFI stub failed: {what}",
            "look at kernel and initrd on the ESP, and at the machine's memory",
            "EFI stub: ERROR: Failed to load initrd!",
            stages=EARLY,
        ),
        rule(
            Cause.KERNEL_INVALID,
            r"(?P<what>(?:This kernel requires .{1,100}, but only detected|Unable to boot - please use a kernel "
            r"appropriate for your CPU|(?:ZSTD|XZ|LZ4|LZO|GZIP|lzma|inflate)[ -].{0,80}(?:fail|corrupt|error).{0,40}"
            r"|Kernel is not a valid ELF|invalid compressed format \(err=\d+\)|crc error|-- System halted|junk in "
            r"(?:gzip|compressed).{0,40}"
            r"|Failed to allocate space for .{1,60}|Out of memory while allocating.{0,80}).{0,100})$",
            "the kernel cannot start itself: {what}",
            "the kernel is damaged, for another processor, or has too little memory to unpack itself",
            "This kernel requires an x86-64 CPU, but only detected an i686 CPU.",
            stages=EARLY,
            weight=Weight.SYMPTOM,
            grace=1.0,
        ),
        rule(
            Cause.OUT_OF_MEMORY,
            r"(?:Initramfs unpacking failed: write error|.{0,40}initrd extends beyond end of memory.{0,120})",
            "the initrd did not fit in the machine's memory",
            "give the machine more memory, or make the initrd smaller",
            "Initramfs unpacking failed: write error",
            kernel=True,
        ),
        rule(
            Cause.INITRD_INVALID,
            r"Initramfs unpacking failed: (?!write error)(?P<what>.{1,200})$|(?P<also>RAMDISK: (?:EOF while reading"
            r" compressed data|error while reading compressed data|Couldn't find valid RAM disk image.{0,60}"
            r"|incomplete write \((?!-28).{0,40})|rootfs image is not initramfs .{0,100})",
            "the kernel cannot unpack the initrd: {what}{also}",
            "the initrd is damaged, was cut, or is compressed in a way that this kernel has no decompressor for",
            "Initramfs unpacking failed: invalid magic at start of compressed archive",
            kernel=True,
        ),
        # init/do_mounts_rd.c; 28 is ENOSPC
        rule(
            Cause.INITRD_INVALID,
            r"(?P<what>RAMDISK: (?:incomplete write \(-28|image too big).{0,60})$",
            "the initrd does not fit into its RAM disk: {what}",
            "ramdisk_size= on the kernel's command line, in KiB, has to hold the unpacked initrd; cpio needs none",
            "RAMDISK: image too big! (16384KiB/4096KiB)",
            kernel=True,
        ),
        # init/do_mounts.c
        rule(
            Cause.INITRD_MISSING,
            r"VFS: Cannot open root device \"?(?P<device>(?:UUID=|LABEL=|/dev/mapper/|mapper/|/dev/disk/|ZFS=|zfs:"
            r"|live:"
            r"|block:|fstab|gpt-auto|/dev/[\w.-]+/[\w.-]+)[^\" ]{0,200})\"? or unknown-block\(\d+,\d+\)",
            "the kernel was to find root {device} by itself, which only an initrd (initramfs) can: none was "
            "loaded, or "
            "it has no /init",
            "name an initrd in the boot entry, or give root= as a device or PARTUUID= that the kernel knows",
            'VFS: Cannot open root device "UUID=be446016" or unknown-block(0,0): error -6',
            kernel=True,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.DEVICE_TIMEOUT,
            r"(?P<what>VFS: Cannot open root device (?:\"?\(null\)\"?|\"\") or .{1,60})$",
            "the kernel was given neither a root device nor an initrd: {what}",
            "the boot entry must name an initrd, or say root=",
            'VFS: Cannot open root device "(null)" or unknown-block(0,0): error -6',
            kernel=True,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.DEVICE_TIMEOUT,
            r"VFS: Cannot open root device \"?(?P<device>[^\" ]{0,200})\"? or (?P<block>unknown-block|\S{1,40}:)",
            "the kernel cannot open its root device {device}",
            "the disk is not attached, came too late (rootwait), its driver is not in this kernel, or root= names "
            "another: the list of partitions after it shows what the kernel sees",
            'VFS: Cannot open root device "/dev/vda" or unknown-block(0,0): error -6',
            kernel=True,
            layer=Layer.OBJECT,
        ),
        # init/do_mounts.c, mount_nfs_root(): it has tried for minutes, and goes on without any root.
        rule(
            Cause.MOUNT_FAILED,
            r"(?P<what>VFS: Unable to mount root fs via NFS.{0,80})$",
            "the kernel could not mount its root over the network: {what}",
            "the server must export what nfsroot= or the DHCP server's root-path names, to this machine's address "
            "and in "
            "the version of NFS that the kernel asks for (nfsvers=)",
            "VFS: Unable to mount root fs via NFS.",
            weight=Weight.CAUSE,
            grace=1.0,
            kernel=True,
        ),
        rule(
            Cause.MOUNT_FAILED,
            r"(?P<what>(?:List of all partitions:|No filesystem could mount root, tried: ?.{0,200}"
            r"|Root-NFS: .{1,120}|/dev/root: Can't open blockdev))",
            "the kernel could mount no root file system: {what}",
            "root= must name a device with a file system that this kernel has built in (rootfstype=)",
            "No filesystem could mount root, tried:  ext3 ext2 ext4",
            kernel=True,
            layer=Layer.UNIT,
            fatal=True,
        ),
        rule(
            Cause.DEVICE_TIMEOUT,
            r"Waiting for root device (?P<device>\S{1,300}?)\.\.\.",
            "the kernel waits for its root device {device}, which does not appear",
            "the disk is not attached, its driver is not in this kernel, or root= names another",
            "Waiting for root device /dev/mmcblk0p2...",
            stages=frozenset({Stage.KERNEL}),
            kernel=True,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.INIT_MISSING,
            _PANIC + r"(?P<what>No working init found|No init found|Requested init \S{1,400} failed \(error -\d+\))",
            "the kernel found no init to run: {what}",
            "root needs an init that can be executed, for this architecture and with the libraries that it wants; an "
            "initrd needs an /init",
            "Kernel panic - not syncing: No working init found.  Try passing init= option to kernel.",
            stages=RUNNING,
            grace=1.0,
            weight=Weight.CAUSE,
            kernel=True,
            place=Stage.KERNEL,
        ),
        rule(
            Cause.INIT_MISSING,
            r"(?:Failed to execute (?P<what>\S{1,300} \(error -\d+\))|Starting init: (?P<also>\S{1,300} exists but "
            r"couldn't "
            r"execute it \(error -\d+\)))|(?P<check>check access for rdinit=\S{1,200} failed: -\d+.{0,60})",
            "the kernel could not run {what}{also}{check}",
            "init must be there, executable, for this architecture, and have its interpreter and libraries",
            "Failed to execute /init (error -2)",
            kernel=True,
            layer=Layer.OBJECT,
            fatal=False,
        ),
        rule(
            Cause.OUT_OF_MEMORY,
            _PANIC
            + r"(?P<what>(?:System is deadlocked on memory|Out of memory|.{0,40}compulsory panic_on_oom).{0,100})",
            "the guest ran out of memory: {what}",
            MEMORY_HINT,
            "Kernel panic - not syncing: System is deadlocked on memory",
            stages=RUNNING,
            grace=1.0,
            weight=Weight.CAUSE,
            kernel=True,
        ),
        rule(
            Cause.KERNEL_PANIC,
            _PANIC + r"(?P<what>VFS: Unable to mount root fs.{0,200}?)(?: \]---)?$",
            "the kernel panicked: {what}",
            "the kernel had no initrd, or none that it could unpack, and found no root by itself",
            "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)",
            stages=BOOTING,
            grace=1.0,
            weight=Weight.SYMPTOM,
            kernel=True,
        ),
        # arch/x86/kernel/traps.c, arch/x86/mm/fault.c, arch/{arm64,riscv}/kernel/traps.c
        rule(
            Cause.PROGRAM_DAMAGED,
            r"(?:traps: )?"
            r"(?P<what>[\w.()-]{1,16}\[1\]:? (?:trap |general protection|segfault at |bad frame "
            r"|unhandled (?:signal|exception)[: ]).{0,160})$",
            "the first process crashed: {what}",
            "init, or a library of it, is damaged; invalid opcode: the processor lacks what it was built for",
            "traps: init[1] trap invalid opcode ip:7f3c1e020d25 sp:7ffd8a54c2b0 error:0 in libc.so.6[7f3c1e000000]",
            stages=RUNNING,
            kernel=True,
        ),
        rule(
            Cause.INIT_EXITED,
            _PANIC + r"Attempted to kill init! exitcode=(?P<code>0x[0-9a-f]{1,8})",
            "the first process ended (exit code {code}), and the kernel panicked",
            "what it said before it ended says why; init must be a program that never ends",
            "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100",
            stages=RUNNING,
            grace=1.0,
            weight=Weight.SYMPTOM,
            kernel=True,
        ),
        # panic-on-fail of NixOS and the like: somebody else said why.
        rule(
            Cause.KERNEL_PANIC,
            _PANIC + r"(?P<what>sysrq triggered crash|Attempted to kill init!.{0,60}|hung_task: blocked tasks"
            r"|softlockup: hung tasks|RCU Stall)",
            "the kernel panicked: {what}",
            PANIC_HINT,
            "Kernel panic - not syncing: sysrq triggered crash",
            stages=RUNNING,
            grace=1.0,
            weight=Weight.SYMPTOM,
            kernel=True,
        ),
        # arch/x86/kernel/apic/io_apic.c, check_timer(): it waits ten ticks long for five. Seen where a busy host gave
        # the guest no processor in just that time.
        rule(
            Cause.TIMER_STALLED,
            _PANIC + r"(?P<what>IO-APIC \+ timer doesn't work!).{0,120}$",
            "the guest's kernel got no ticks of its timer, and panicked: {what}",
            "the host was too busy in that moment: power it on again",
            "Kernel panic - not syncing: IO-APIC + timer doesn't work!  Boot with apic=debug and send a report.",
            stages=RUNNING,
            owner=Owner.HOST,
            grace=1.0,
            weight=Weight.CAUSE,
            kernel=True,
        ),
        # arch/x86/kernel/cpu/mce/core.c: what the processor says of itself.
        rule(
            Cause.KERNEL_PANIC,
            _PANIC + r"(?P<what>(?:Fatal (?:local )?machine check.{0,60}|Machine check from unknown source"
            r"|Timeout: Not all CPUs entered broadcast exception handler|NMI: .{0,20}IOCK error.{0,40}"
            r"|Fatal hardware error!|.{0,40}[Uu]ncorrected hardware (?:memory )?error.{0,40}))(?: \]---)?$",
            "the machine's hardware failed, and the kernel panicked: {what}",
            "the lines before the panic name the processor and the bank; another host has other hardware",
            "Kernel panic - not syncing: Fatal machine check",
            stages=RUNNING,
            owner=Owner.HOST,
            grace=1.0,
            weight=Weight.CAUSE,
            kernel=True,
        ),
        rule(
            Cause.KERNEL_PANIC,
            _PANIC + r"(?P<what>.{0,300}?)(?: \]---)?$",
            "the kernel panicked: {what}",
            PANIC_HINT,
            "Kernel panic - not syncing: Fatal exception in interrupt",
            stages=RUNNING,
            grace=1.0,
            weight=Weight.CAUSE,
            kernel=True,
        ),
        # arch/x86/kernel/dumpstack.c, __die_header(): "<what>: <error code> [#<count>]"; arch/arm64/kernel/traps.c;
        # lib/bug.c. Most are survived.
        rule(
            Cause.KERNEL_OOPS,
            r"(?P<what>BUG: (?:kernel NULL pointer dereference|unable to handle).{0,200}"
            r"|kernel BUG at .{1,200}|(?:CPU \d{1,4} )?Unable to handle kernel .{1,200}"
            r"|(?:Internal error|Oops): .{1,100} \[#\d{1,4}\]"
            r"|PANIC: double fault.{0,60}|SError Interrupt on CPU\d{1,4}, .{1,60}"
            r"|[A-Za-z][^:\[]{1,60}(?:: [^:\[]{1,60})?: [0-9a-f]{4,16} \[#\d{1,4}\]).{0,300}$",
            "the kernel crashed in a process: {what}",
            _CPU_HINT,
            "BUG: kernel NULL pointer dereference, address: 0000000000000000",
            stages=RUNNING,
            grace=3.0,
            weight=Weight.SYMPTOM,
            kernel=True,
            survived=True,
        ),
        # arch/powerpc/xmon/xmon.c, excprint(): printed past printk, so without its time stamp.
        rule(
            Cause.KERNEL_OOPS,
            r"(?:cpu 0x[0-9a-f]{1,4}: )?(?P<what>Vector: [0-9a-f]{1,5} +\([\w ]{1,40}\)) at \[[0-9a-f]{8,16}\]$",
            "the kernel stopped in its debugger (xmon): {what}",
            _CPU_HINT,
            "cpu 0x14: Vector: 300 (Data Access) at [c000001feb4a3780]",
            stages=RUNNING | EARLY,
            place=Stage.KERNEL,
            grace=3.0,
            weight=Weight.SYMPTOM,
        ),
        # kernel/watchdog.c. A loaded host without KVM makes the shorter ones, in one program after the other; one that
        # lets a guest stand still for minutes makes the longer ones, and the guest goes on when it is let run.
        rule(
            Cause.KERNEL_HANG,
            r"watchdog: BUG: soft lockup - CPU#(?P<cpu>\d{1,5}) stuck for (?P<seconds>1[2-9]\d|[2-9]\d\d|\d{4,9})s! "
            r"\[(?P<what>.{1,64})\]",
            "the kernel hangs: processor {cpu} is stuck for {seconds} s in {what}",
            _CPU_HINT,
            "watchdog: BUG: soft lockup - CPU#0 stuck for 134s! [modprobe:231]",
            stages=RUNNING,
            grace=3.0,
            weight=Weight.CAUSE,
            kernel=True,
            survived=True,
        ),
        rule(
            Cause.HOST_STARVED,
            r"(?P<what>(?:watchdog: )?BUG: soft lockup - CPU#\d{1,5} stuck for \d{2}s\b.{0,80}"
            r"|rcu: INFO: \w{1,20} (?:self-)?detected (?:expedited )?stalls?.{0,60}|rcu: rcu_\w{1,20} kthread "
            r"starved for.{1,60}"
            r"|INFO: rcu_\w{1,20} (?:self-)?detected stalls?.{0,60})",
            "the guest stands still for seconds: {what}",
            _STARVED,
            "watchdog: BUG: soft lockup - CPU#0 stuck for 23s! [systemd:1]",
            owner=Owner.HOST,
            kernel=True,
            layer=Layer.UNIT,
            fatal=True,
        ),
        # kernel/rcu/tree_stall.h, rcu_check_gp_kthread_expired_fqs_timer(): a timer is overdue by 21 s. Seen where a
        # guest on a busy host changed its clock source in its first seconds, and where a processor got no time.
        rule(
            Cause.TIMER_STALLED,
            r"rcu: rcu_\w{1,20} kthread timer wakeup didn't happen for (?P<jiffies>\d{1,9}) jiffies! ",
            "the guest's timer stands still: what it was to wake sleeps for {jiffies} jiffies too long",
            "the host is too busy, or a rare race of the guest's kernel: power it on again",
            "rcu: rcu_preempt kthread timer wakeup didn't happen for 5251 jiffies! g-1115 f0x0 RCU_GP_WAIT_FQS(5)",
            owner=Owner.HOST,
            grace=3.0,
            weight=Weight.CAUSE,
            kernel=True,
            survived=True,
        ),
        rule(
            Cause.KERNEL_HANG,
            r"INFO: task (?P<what>.{1,40}:\d+) blocked for more than (?P<seconds>\d+) seconds\.",
            "the program {what} waits in the kernel for more than {seconds} s",
            "the call trace after it names what it waits for: most often a disk or a network share that does not "
            "answer",
            "INFO: task mount:231 blocked for more than 120 seconds.",
            kernel=True,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.OUT_OF_MEMORY,
            r"(?:Memory cgroup o|O)ut of memory: Killed? process \d+ \((?P<what>.{1,64}?)\)",
            "the guest ran out of memory, the kernel killed {what}",
            MEMORY_HINT,
            "Out of memory: Killed process 231 (systemd-udevd) total-vm:1000kB",
            kernel=True,
        ),
        # kernel/reboot.c. What restarts may have meant to; nobody means to have a machine that is off.
        rule(
            Cause.POWERED_OFF,
            r"reboot: (?:Power down|System halted)$",
            "the guest powered itself off",
            "the lines before it say what asked for it",
            "reboot: Power down",
            kernel=True,
            layer=Layer.RESULT,
            fatal=True,
        ),
        rule(
            Cause.UNEXPECTED_RESET,
            r"reboot: (?:Restarting system|machine restart)(?: with command .{1,80})?$",
            "the guest restarted by itself",
            "the lines before it say what asked for it",
            "reboot: Restarting system",
            kernel=True,
            layer=Layer.RESULT,
        ),
        rule(
            Cause.MODULE_MISSING,
            r"(?P<what>request_module: (?:modprobe|kmod_concurrent).{1,100}|\S{1,60}: (?:disagrees about version "
            r"of symbol \S{1,60}"
            r"|version magic '.{1,100}' should be '.{1,100}')|\S{1,60}: Unknown symbol \S{1,60} \(err -?\d+\))",
            "a module does not fit this kernel: {what}",
            "the modules in the initrd and in the system must be those of the kernel that is booted",
            "virtio_blk: version magic '6.1.0 SMP' should be '6.1.1 SMP'",
            kernel=True,
            layer=Layer.REASON,
            stages=STAGE1,
            fatal=False,
        ),
    ),
)
