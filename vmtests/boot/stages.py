"""The seven stages of a boot, and the console lines by which each is known.

Markers are data: regular expressions over a normalised line, anchored where the real line has its words, so
that a line which only quotes a marker does not count.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

MATCH_LIMIT = 1024
"""Characters of a line that are matched; no marker is longer, and hostile lines cost no more."""


class Stage(StrEnum):
    """The stages, in order."""

    FIRMWARE = "firmware"
    BOOTLOADER = "bootloader"
    KERNEL = "kernel"
    INITRD = "initrd"
    SWITCH_ROOT = "switch-root"
    USERSPACE = "userspace"
    READY = "ready"

    @property
    def position(self) -> int:
        """Place in the order, from 0."""
        return _POSITION[self._value_]

    def before(self, other: "Stage") -> bool:
        """Whether this stage comes before `other`."""
        return _POSITION[self._value_] < _POSITION[other._value_]


# By value: hashing an enum's member runs Python code, and this is asked for every line.
_POSITION = {stage.value: position for position, stage in enumerate(Stage)}


def between(first: Stage, last: Stage) -> frozenset[Stage]:
    """Return the stages from `first` to `last`, both included."""
    return frozenset(stage for stage in Stage if first.position <= stage.position <= last.position)


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalLine:
    """A line without its decoration.

    `text` has the kernel's time stamp, `systemd[1]: ` and the indentation of job lines taken off, and the
    status field written as `[OK] `, `[FAILED] `; it has at most MATCH_LIMIT characters. `stamp` is the
    kernel's time in seconds, None where the line has none. `spinner` is true for the repaints of a running
    job.
    """

    text: str
    stamp: float | None = None
    spinner: bool = False


# printk_time and CONFIG_PRINTK_CALLER: kernel/printk/printk.c, print_time() and print_caller().
_STAMP = re.compile(r"\[ {0,8}(\d{1,8}\.\d{6})\](?:\[ {0,8}[TC]\d{1,8}\])? ")
# What the kernel says comes behind a prompt that waits, on its line.
_PROMPT = re.compile(r".{0,64}?(?:[#$] |login: |assword: )(?=\[ {0,8}\d{1,8}\.\d{6}\] )")
# The manager's log lines, on the console or through /dev/kmsg.
_MANAGER = re.compile(r"systemd\[1\]: ")
# Status field and indentation: systemd src/core/show-status.c and job.c.
_STATUS = re.compile(r"\[ {0,2}(OK|FAILED|DEPEND|TIME|ASSERT|UNSUPP|ABORT|INFO|SKIP|ONCE|WARN|!{6}) {0,2}\] ")
_INDENT = re.compile(r" {9}(?=[A-Z][a-z]{2,}ing )")
# The "cylon eye": systemd src/core/manager.c, manager_print_jobs_in_progress().
_SPINNER = re.compile(r"\[[ *]{6}\] (?:\(\d{1,6} of \d{1,6}\) )?")


def normalise(text: str) -> NormalLine:
    """Return `text` as it is matched."""
    text = text[:MATCH_LIMIT]
    stamp = None
    if "[" in text:
        if match := _PROMPT.match(text):
            text = text[match.end() :]
        if match := _STAMP.match(text):
            stamp = float(match[1])
            text = text[match.end() :]
    if match := _MANAGER.match(text):
        text = text[match.end() :]
    if match := _SPINNER.match(text):
        return NormalLine(text=text[match.end() :], stamp=stamp, spinner=True)
    if match := _STATUS.match(text):
        text = f"[{match[1]}] {text[match.end() :]}"
    elif match := _INDENT.match(text):
        text = text[match.end() :]
    return NormalLine(text=text, stamp=stamp)


@dataclass(frozen=True, slots=True)
class Marker:
    """A line that begins a stage; it counts only when the stage `since` was reached."""

    stage: Stage
    pattern: re.Pattern[str]
    since: Stage = Stage.FIRMWARE


def reached(target: str, description: str) -> str:
    """Return a pattern for a target's line, in each spelling that `systemd.status_unit_format=` gives."""
    unit = re.escape(target)
    return rf"(?:\[OK\] )?Reached target (?:{unit}|(?:{unit} - )?{description})\.?$"


FIRMWARE_MENUS = '(?:EFI Internal Shell|BootManagerMenuApp|UiApp|EFI Firmware Setup|Enter Setup)"'
"""Boot options of edk2 that are no boot loader: where the firmware goes when it found none."""

MARKERS = (
    # edk2 OvmfPkg/Library/PlatformBmPrintScLib; systemd-boot prints nothing with timeout 0. A start of the
    # firmware's own shell or menu is no boot loader.
    Marker(Stage.BOOTLOADER, re.compile(rf'BdsDxe: starting Boot[0-9A-F]{{4}} "(?!{FIRMWARE_MENUS})')),
    # systemd src/boot/boot.c, before an entry that was chosen in the menu is started.
    Marker(Stage.BOOTLOADER, re.compile(r"Booting [`'].+'?$")),
    # GRUB grub-core/kern/main.c.
    Marker(Stage.BOOTLOADER, re.compile(r"Welcome to GRUB!$")),
    # Linux drivers/firmware/efi/libstub: the first words of kernel code, printed through the firmware.
    Marker(Stage.KERNEL, re.compile(r"EFI stub: ")),
    # Linux init/version.c, linux_banner; not shown with loglevel=4 or quiet.
    Marker(Stage.KERNEL, re.compile(r"Linux version \d")),
    # Linux init/main.c, run_init_process(); with an initrd the program is /init.
    Marker(Stage.INITRD, re.compile(r"Run /init as init process$")),
    # systemd src/core/main.c: 257 and later (three full stops, but one where the terminal has colours), and before.
    Marker(Stage.INITRD, re.compile(r"Booting initrd of .+\.$")),
    Marker(Stage.INITRD, re.compile(r"Welcome to (?!GRUB!).+!$")),
    Marker(Stage.INITRD, re.compile(r"Running in (?:initrd|initial RAM disk)\.$")),
    # initramfs-tools init and nixpkgs stage-1-init.sh, for disks that were adopted.
    Marker(Stage.INITRD, re.compile(r"Loading, please wait\.\.\.$")),
    Marker(Stage.INITRD, re.compile(r"<<< .+ Stage 1 >>>$")),
    # systemd units/initrd-switch-root.target and .service.
    Marker(Stage.SWITCH_ROOT, re.compile(reached("initrd-switch-root.target", "Switch Root"))),
    Marker(
        Stage.SWITCH_ROOT,
        re.compile(r"Starting (?:initrd-switch-root\.service - )?Switch Root(?:\.\.\.|…)$"),
    ),
    Marker(Stage.SWITCH_ROOT, re.compile(r"Switching root\.$")),
    # systemd src/core/main.c: the initrd's manager prints the same two lines, so they count only after it.
    Marker(Stage.USERSPACE, re.compile(r"Welcome to (?!.*\(Init(?:rd|ramfs)\)).+!$"), Stage.INITRD),
    Marker(Stage.USERSPACE, re.compile(r"systemd \d\S* running in system mode"), Stage.SWITCH_ROOT),
    # nixpkgs stage-2-init.sh.
    Marker(Stage.USERSPACE, re.compile(r"<<< .+ Stage 2 >>>$")),
)

READY_TARGET = re.compile(reached("multi-user.target", "Multi-User System"))
"""systemd units/multi-user.target; the stage *ready* also needs that no start job is left."""

LOGIN_PROMPT = re.compile(r"[\w.-]{1,64} login:(?: |$)")
"""agetty(8): the host's name, then what login(1) is called with."""

SHUTDOWN = re.compile(
    # systemd units/{shutdown,reboot,poweroff,halt,kexec}.target, src/shutdown/shutdown.c.
    r"(?:\[OK\] )?Reached target (?:\S+\.target - )?"
    r"(?:System (?:Shutdown|Reboot|Power Off|Halt)|Unmount All Filesystems)\.$"
    r"|(?:\[OK\] )?Stopped target (?:multi-user\.target - )?Multi-User System\.$"
    r"|systemd-shutdown\[1\]: "
)
"""Lines after which failed units are a matter of going down, not of booting."""

_FIRMWARE_AGAIN = re.compile(r"BdsDxe: (?:loading|starting) Boot[0-9A-F]{4} ")
_KERNEL_AGAIN = re.compile(r"Linux version \d")


# Hashing an enum's member for every marker of every line is slow.
_CANDIDATES = {
    stage: tuple(m for m in MARKERS if stage.before(m.stage) and not stage.before(m.since)) for stage in Stage
}


def advance(current: Stage, line: NormalLine) -> Stage | None:
    """Return the stage that `line` begins when the boot is in `current`; None when it begins none."""
    for marker in _CANDIDATES[current]:
        if marker.pattern.match(line.text):
            return marker.stage
    return None


def restarted(current: Stage, line: NormalLine) -> bool:
    """Whether `line` can only come from another boot than the one that reached `current`.

    For machines that send no reset event. A kernel's banner counts only with the time stamp of a start, as
    `cat /proc/version` prints the same words.
    """
    if current.before(Stage.KERNEL):
        return False
    if _FIRMWARE_AGAIN.match(line.text):
        return True
    return not current.before(Stage.INITRD) and line.stamp == 0 and bool(_KERNEL_AGAIN.match(line.text))
