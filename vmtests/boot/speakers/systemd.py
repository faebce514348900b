"""systemd, in the initrd and as the system's init, with the units that every system has."""

from vmtests.boot.rules import (
    DEVICE_HINT,
    MORE_HINT,
    RUNNING,
    STAGE1,
    SYSTEMD,
    Layer,
    Speaker,
    Weight,
    rule,
    sign,
)  # fmt: skip
from vmtests.boot.stages import Stage, reached
from vmtests.causes import Cause

# `systemd.status_unit_format=combined` puts the unit's name in front, cut where the line is too long.
UNIT = r"(?:\S+\.[a-z]+ - |\S*(?:…|\.{3}|\ufffd)\S* ?- )?"
_USERSPACE = r"(?:Multi-User System|Graphical Interface|Login Prompts|Cloud-init target|Network is Online)"

SPEAKER = Speaker(
    name="systemd",
    stage=Stage.USERSPACE,
    source="systemd src/core/{main,manager,job,unit,service,mount,device,show-status}.c, units/, src/firstboot, "
    "src/sulogin-shell, src/shared/ask-password-api.c; util-linux login-utils/sulogin.c",
    general=True,
    signs=(
        sign(Stage.INITRD, r"Booting initrd of .+\.$", "Booting initrd of Debian GNU/Linux 13 (trixie)..."),
        sign(Stage.INITRD, r"Running in (?:initrd|initial RAM disk)\.$", "Running in initrd."),
        # A quiet kernel's manager says no more of its beginning (src/core/{import-creds,main}.c, src/shared/{hostname,
        # machine-id}-setup.c); it is stage 1's, if there is one.
        sign(
            Stage.INITRD,
            r"(?:Hostname set to <[^<>]{1,64}>\.$|(?:Received|Acquired \d+) regular credentials|"
            r"Initializing machine ID from |Installed transient /etc/machine-id file\.$)",
            "Hostname set to <r13>.",
            since=Stage.BOOTLOADER,
            until=Stage.BOOTLOADER,
        ),
        sign(Stage.SWITCH_ROOT, reached("initrd-switch-root.target", "Switch Root"), "Reached target Switch Root."),
        sign(
            Stage.SWITCH_ROOT,
            r"Starting (?:initrd-switch-root\.service - )?Switch Root(?:\.\.\.|…)$",
            "         Starting Switch Root...",
        ),
        sign(Stage.SWITCH_ROOT, r"Switching root\.$", "Switching root."),
        # The initrd's manager prints the same line, so it counts only after it.
        sign(
            Stage.USERSPACE,
            r"systemd \d\S* running in system mode",
            "systemd[1]: systemd 257.8 running in system mode (+PAM)",
            since=Stage.SWITCH_ROOT,
        ),
        sign(
            Stage.USERSPACE, rf"\[OK\] Reached target {UNIT}{_USERSPACE}\.?$", "[  OK  ] Reached target Login Prompts."
        ),
        sign(
            Stage.USERSPACE,
            r"\[OK\] (?:Started|Finished) (?:\S+ - )?(?:Getty on|Serial Getty on|User Login Management|Login "
            r"Service|D-Bus System|OpenBSD Secure"
            r"|OpenSSH|Permit User Sessions|User Manager for)",
            "[  OK  ] Started Serial Getty on ttyS0.",
        ),
        sign(
            Stage.USERSPACE,
            r"Startup finished in .{1,120}\(userspace\) = ",
            "systemd[1]: Startup finished in 1.2s (kernel) + 3.4s (userspace) = 4.6s.",
            since=Stage.USERSPACE,
            ready=True,
        ),
        # An initrd's manager says so, too, with what the initrd took.
        sign(
            Stage.USERSPACE,
            r"Startup finished in (?!.{0,120}\(initrd\)).{1,120}\(kernel\) \+ .{1,40}\(userspace\) = ",
            "systemd[1]: Startup finished in 4.848s (kernel) + 4.338s (userspace) = 9.186s.",
            ready=True,
        ),
        sign(
            Stage.USERSPACE,
            reached("multi-user.target", "Multi-User System"),
            "Reached target Multi-User System.",
            ready=True,
        ),
        sign(
            Stage.USERSPACE,
            reached("graphical.target", "Graphical Interface"),
            "[  OK  ] Reached target Graphical Interface.",
            ready=True,
        ),
        # SELinux: policycoreutils selinux-autorelabel.
        sign(
            Stage.USERSPACE,
            r"(?:\*\*\* Warning -- SELinux \w+ policy relabel is required|Relabeling / |.{0,60}SELinux: "
            r".{0,40}[Rr]elabel)",
            "*** Warning -- SELinux targeted policy relabel is required.",
            restart=True,
        ),
        # A system that was installed, updated or enlarged starts anew; what gives up in its initrd does so, too.
        sign(
            Stage.USERSPACE,
            reached("reboot.target", "(?:System )?Reboot"),
            "[  OK  ] Reached target reboot.target - System Reboot.",
            since=Stage.USERSPACE,
            restart=True,
        ),
        sign(
            Stage.USERSPACE,
            r"\[OK\] Reached target (?:\S+ - )?(?:Reboot via kexec|System Soft Reboot|.*[Kk]exec)\.?$",
            "[  OK  ] Reached target kexec.target - Reboot via kexec.",
            restart=True,
        ),
    ),
    failures=(
        # do_queue_default_job(): where it goes when the default target cannot be loaded.
        rule(
            Cause.DEFAULT_TARGET_MISSING,
            r"(?:\[OK\] )?Started (?:rescue\.service - )?Rescue Shell\.$"
            r"|(?:\[OK\] )?Reached target (?:rescue\.target - )?Rescue Mode\.$|You are in rescue mode\b|Welcome to "
            r"rescue mode!",
            "the system went into rescue mode: its default target cannot be loaded, or rescue mode was asked for",
            "default.target must lead to a unit that is there; the kernel's command line must not say `rescue`",
            "[  OK  ] Reached target Rescue Mode.",
            stages=frozenset({Stage.USERSPACE}),
            weight=Weight.SYMPTOM,
            prompt=True,
        ),
        # Interfaces of the kernel, of which a container or a small kernel has not all.
        rule(
            Cause.MOUNT_FAILED,
            rf"\[FAILED\] Failed to mount {UNIT}(?P<where>NFSD configuration filesystem|RPC Pipe File System"
            r"|FUSE Control File System|Kernel \w{1,20} File System|Huge Pages File System"
            r"|POSIX Message Queue File System|(?:proc|sys|dev)-[\w\\.-]{1,60}\.mount)\.?$",
            "{where} could not be mounted, which is seldom missed",
            "the kernel lacks it, or a container may not mount it",
            "[FAILED] Failed to mount proc-fs-nfsd.mount - NFSD configuration filesystem.",
            stages=SYSTEMD,
            layer=Layer.NOTE,
        ),
        rule(
            Cause.FSCK_FAILED,
            r"\[(?:FAILED|TIME)\] (?:Failed to start|Timed out starting) (?:\S{1,100} ?- )?(?P<unit>File System "
            r"Check .+?)\.?$",
            "{unit} failed",
            "the file system is damaged; check it by hand",
            "[FAILED] Failed to start File System Check on /dev/disk/by-label/data.",
            stages=SYSTEMD,
            layer=Layer.OBJECT,
        ),
        # A getty is all that waits for it.
        rule(
            Cause.DEVICE_TIMEOUT,
            rf"\[TIME\] Timed out waiting for (?:device )?{UNIT}(?P<device>(?:/dev/|dev-)(?:tty|hvc|console)\w{{0,20}}"
            r"(?:\.device)?)\.?$",
            "the terminal {device} did not appear",
            "the login on it is missed by nobody but who looks there; console= on the command line names those that "
            "are wanted",
            "[ TIME ] Timed out waiting for device /dev/ttyS0.",
            stages=SYSTEMD,
            layer=Layer.NOTE,
        ),
        rule(
            Cause.DEVICE_TIMEOUT,
            rf"\[TIME\] Timed out waiting for (?:device )?{UNIT}(?P<device>.+?)\.?$",
            "device {device} did not appear",
            DEVICE_HINT,
            "[ TIME ] Timed out waiting for device /dev/disk/by-partlabel/nix-store.",
            stages=SYSTEMD,
            layer=Layer.OBJECT,
        ),
        # manager_print_jobs_in_progress(), without its clock: what was waited for when the boot came to a stand.
        rule(
            Cause.DEVICE_TIMEOUT,
            r"(?:A start job is running for |Job )(?P<device>(?:/dev/|dev-)(?!tty|hvc|console)[^()]{1,300}?)"
            r"(?:/start running)?$",
            "the boot waits for device {device}, which does not appear",
            DEVICE_HINT,
            "A start job is running for /dev/disk/by-partlabel/nix-store",
            stages=SYSTEMD,
            layer=Layer.OBJECT,
        ),
        # unit_notify() and job_log_done_status_message(): in the journal, and on a console that others tear.
        rule(
            Cause.DEVICE_TIMEOUT,
            r"(?:.{0,200}systemd\[1\]: |Started Emergency Shell\.\[1\]: )?(?P<device>dev-[\w\\.:-]{1,240}\.device): "
            r"Job \S{1,250}/start (?:timed out|failed with result 'timeout')\.$",
            "device {device} did not appear",
            DEVICE_HINT,
            "systemd[1]: dev-vda7.device: Job dev-vda7.device/start timed out.",
            stages=SYSTEMD,
            layer=Layer.OBJECT,
        ),
        # What an initrd cannot do without, where the line that is shown of it was torn, or is not.
        rule(
            Cause.MOUNT_FAILED,
            r"(?P<unit>(?:sysroot|sysusr)[\w\\.-]{0,100}\.mount): Job \S{1,250}/start failed with result "
            r"'(?P<why>\w{1,20})'\.$",
            "{unit} could not be mounted ({why})",
            "the lines before it say what it waited for, or why it failed",
            "sysroot-usr.mount: Job sysroot-usr.mount/start failed with result 'dependency'.",
            stages=STAGE1,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.MOUNT_FAILED,
            rf"\[(?:FAILED|TIME)\] (?:Failed to mount|Timed out mounting|Failed to activate "
            rf"swap) {UNIT}(?P<where>.+?)\.?$",
            "{where} could not be mounted",
            "the kernel's lines before it say why, or those of mount, which are in the journal",
            "[FAILED] Failed to mount /boot/efi.",
            stages=SYSTEMD,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.UNLOCK_WAITS,
            rf"\[(?:FAILED|TIME)\] Failed to start {UNIT}(?P<unit>Cryptography Setup.+?)\.?$",
            "{unit} failed: an encrypted disk was not unlocked",
            "the key must be what the disk was encrypted with, or somebody must answer the prompt",
            "[FAILED] Failed to start Cryptography Setup for root.",
            stages=SYSTEMD,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.VERITY_FAILED,
            rf"\[(?:FAILED|TIME)\] (?:Failed to start|Timed out starting) {UNIT}(?P<unit>(?:Integrity|Verity) "
            rf"(?:Setup|Protection).+?)\.?$",
            "{unit} failed: what verity protects was changed, or the hash is another's",
            "data, hash tree and root hash must be of one build",
            "[FAILED] Failed to start Verity Setup for root.",
            stages=SYSTEMD,
            layer=Layer.OBJECT,
        ),
        rule(
            Cause.SWITCH_ROOT_FAILED,
            rf"\[FAILED\] Failed to start {UNIT}Switch Root\.?$",
            "the initrd could not hand over to the system",
            "the new root must be there with an os-release file, and init= must name a program of it",
            "[FAILED] Failed to start initrd-switch-root.service - Switch Root.",
            stages=STAGE1,
            layer=Layer.OBJECT,
        ),
        # src/repart/repart.c
        rule(
            Cause.PROVISIONING_FAILED,
            r"(?P<what>(?:Can't fit requested partitions|Not enough disk space to fit requested|Failed to determine "
            r"backing device of).{1,160})$",
            "the disk could not be partitioned: {what}",
            "the disk has to have room for what repart.d asks for, and be the one that root or /usr is on",
            "Can't fit requested partitions into available free space (1.9M), refusing.",
            stages=SYSTEMD,
        ),
        rule(
            Cause.UNIT_FAILED,
            rf"\[(?:FAILED|TIME)\] (?:Failed to start|Timed out starting|Failed to listen on) {UNIT}(?P<unit>.+?)\.?$",
            "{unit} failed",
            "its own words are in the journal; " + MORE_HINT,
            "[FAILED] Failed to start systemd-repart.service - Repartition Root Disk.",
            stages=SYSTEMD,
            layer=Layer.UNIT,
        ),
        # unit_enter_failed(), in a journal; the older words are of systemd 219.
        rule(
            Cause.UNIT_FAILED,
            r"(?:(?P<unit>[\w:.\\@-]{1,120}\.(?:service|socket|mount|swap)): (?:Failed with result '[\w-]{1,30}'"
            r"|Unit entered failed state)|Unit (?P<old>[\w:.\\@-]{1,120}) entered failed state)\.$",
            "{unit}{old} failed",
            "its own words are before it in the journal",
            "systemd[1]: a.service: Failed with result 'exit-code'.",
            stages=SYSTEMD,
            layer=Layer.UNIT,
        ),
        rule(
            Cause.DEPENDENCY_FAILED,
            rf"\[(?:DEPEND|ASSERT)\] (?:Dependency|Assertion) failed for {UNIT}(?P<unit>.+?)\.?$",
            "something that {unit} needs failed",
            MORE_HINT,
            "[DEPEND] Dependency failed for Local File Systems.",
            stages=SYSTEMD,
            layer=Layer.RESULT,
        ),
        # src/shared/mount-setup.c
        rule(
            Cause.MOUNT_FAILED,
            r"(?P<what>Failed to mount (?!efivarfs)\S{1,60} (?:\(type \S{1,20}\) )?(?:at|on) /\S{0,100}"
            r"(?: \(.{0,160}\))?: (?:Permission denied|Operation not permitted))\.?$",
            "systemd may not mount what it needs: {what}",
            "who runs the container must let it mount: its cgroup, /run, /sys",
            'Failed to mount tmpfs (type tmpfs) on /run (MS_NOSUID|MS_NODEV|MS_STRICTATIME "mode=755"): Permission '
            "denied",
            stages=RUNNING,
        ),
        rule(
            Cause.INIT_FROZE,
            r"(?:Failed to (?P<act>set SO_PASSCRED|bind netlink socket|create manager|load SELinux policy|mount "
            r"API filesystems?|allocate manager object"
            r"|fully start up daemon|start up manager|execute (?:shutdown|fallback).{0,40}|determine \$XDG.{0,40}"
            r"|initialize (?:cgroup|SELinux).{0,40}|isolate default target)(?P<why>:? .{1,300})?"
            r"|(?P<what>(?:Failed to execute|No) /sbin/init.{0,80}|Failed to execute /bin/sh, giving up: .{1,80}"
            r"|Switch root target .{1,120}"
            r"|Cannot be run in a chroot.{0,60}|Failed to switch root.{0,100}|Caught <(?:SEGV|ABRT|BUS|ILL"
            r"|FPE)>.{0,80}))\.?$",
            "systemd could not go on: {what}{act}{why}",
            "the system that is started needs an init that can be run, with all that it stands on, on a kernel "
            "that has what it needs",
            "Failed to create manager: Bad address",
            stages=RUNNING,
            layer=Layer.REASON,
        ),
        # main(): the first process stands still for ever, and the kernel says nothing of it.
        rule(
            Cause.INIT_FROZE,
            r"\[!{4,6}\] (?P<what>.{1,300}?)(?:, freezing)?\.?$",
            "systemd gave up and stands still: {what}",
            "the system that is switched to needs an init that can be run, with all that it stands on",
            "[!!!!!!] Failed to execute fallback shell, freezing.",
            stages=RUNNING,
            weight=Weight.SYMPTOM,
        ),
        rule(
            Cause.INIT_FROZE,
            r"Freezing execution\.?$",
            "systemd gave up and stands still",
            "what it said before says why",
            "systemd[1]: Freezing execution.",
            stages=RUNNING,
            weight=Weight.SYMPTOM,
        ),
        rule(
            Cause.EMERGENCY_SHELL,
            r"(?:Welcome to|You are in) emergency mode\b"
            r"|(?:\[OK\] )?Started (?:emergency\.service - )?Emergency Shell\.$"
            r"|(?:\[OK\] )?Reached target (?:emergency\.target - )?Emergency Mode\.$"
            r"|Cannot open access to console, the root account is locked"
            r"|Press Enter for (?:system )?maintenance|Give root password for (?:system )?maintenance"
            r"|\(or (?:press|type) Control-D to continue\)",
            "the guest gave up and went into emergency mode",
            "the failures before it say why; the journal has more",
            'You are in emergency mode. After logging in, type "journalctl -xb" to view',
            stages=SYSTEMD,
            weight=Weight.SYMPTOM,
            prompt=True,
        ),
        rule(
            Cause.PROMPT_WAITS,
            r"(?:-- Press any key to proceed --|.{0,40}Please enter (?:the )?(?:new )?(?:system locale|timezone"
            r"|hostname|root password|keymap).{0,120}"
            r"|Press any key to (?:continue|proceed).{0,20}|Please configure (?:the|your) (?:new )?system!?"
            r"|Welcome to your new installation of .{1,100})$",
            "a wizard of the first boot waits for somebody to press a key",
            "systemd.firstboot=no on the command line, or set what it asks for in the image (systemd-firstboot)",
            "-- Press any key to proceed --",
            stages=SYSTEMD,
            weight=Weight.WAIT,
            layer=Layer.OBJECT,
            grace=10.0,
        ),
    ),
)
