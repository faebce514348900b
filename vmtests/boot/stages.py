"""The seven stages of a boot, and a line without its decoration.

Whoever speaks is known by regular expressions over a normalised line, anchored where the real line has its words, so
that a line which only quotes another does not count.
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

    `text` has the kernel's time stamp, `systemd[1]: `, other programs' `name[pid]: ` and the indentation of job lines
    taken off, and the status field written as `[OK] `, `[FAILED] `; it has at most MATCH_LIMIT characters. `stamp` is
    the kernel's time in seconds, None where the line has none. `spinner` is true for the repaints of a running job,
    `quoted` for what any program said by way of the journal: it may quote the end of another boot. `by` is the program
    that was named in front, empty where none was; `status` is true for what systemd says and shows.
    """

    text: str
    stamp: float | None = None
    spinner: bool = False
    quoted: bool = False
    by: str = ""
    status: bool = False


# printk_time and CONFIG_PRINTK_CALLER: kernel/printk/printk.c, print_time() and print_caller().
# MediaTek's says on which processor, and who, besides.
_STAMP = re.compile(
    r"(?:<\d{1,3}>)?\[ {0,8}(\d{1,8}\.\d{6})\](?:\[ {0,8}[TC]?\d{1,8}\])? "
    r"(?: ?\(\d{1,2}\)\[\d{1,7}:[^\]]{1,16}\] ?)?"
)
# What the kernel says comes behind a prompt that waits, or in the middle of a line that another had begun.
_TORN = re.compile(r"(?<!<\d>)\[ {0,8}\d{1,8}\.\d{6}\](?:\[ {0,8}[TC]?\d{1,8}\])? ")
_TORN_LIMIT = 300
# initramfs-tools scripts/functions: log_begin_msg() ends no line, and whatever speaks next stands behind it.
_BEGUN = re.compile(r"Begin: .{1,120}? \.\.\.\s{1,4}(?=\S)(?!done\b)")
_BEGUN_LIMIT = 8
# A script that goes on behind the prompt of the shell that another opened; nobody types in capitals there.
_GOES_ON = re.compile(r"\(initramfs\) (?=[A-Z])")
# A panic that has no stamp, behind the prompt of whoever was logged in, or was not.
_ASKS = re.compile(
    r"(?:[\w.-]{1,64}@[\w.-]{1,64}:[^#$]{1,80}[#$]|[\w.-]{1,64} login:|[#$]) {1,4}(?=Kernel panic - not syncing: )"
)
# Somebody quotes the kernel: a command, a log of another machine.
_QUOTES = re.compile(r"[#$>] |.*(?:\bkernel: |\becho .*|[\"'`])$")
# The manager's log lines, on the console or through /dev/kmsg.
_MANAGER = re.compile(r"systemd\[1\]: ")
# syslog's `name[pid]: `, in front of what a program says, and not the kernel of the first one.
_SAID = re.compile(
    r"(?:<\d{1,3}>)?(?:\w{3} [ \d]\d \d\d:\d\d:\d\d "
    r")?(?!systemd-shutdown|\S{1,16}\[1\]: (?:segfault|unhandled) )(?P<by>[A-Za-z][\w.@()/-]{0,60})\[\d{1,7}\]: "
)
_OF_THE_BOOT = re.compile(r"dracut|systemd|ignition|coreos|ostree|cloud-init|initrd")
# Status field and indentation: systemd src/core/show-status.c and job.c. An old one has colours of its own; of a
# picture of the screen that was read by a program the closing bracket is often another letter.
_STATUS = re.compile(
    r"\[ {0,2}(OK|FAILED|DEPEND|TIME|ASSERT|UNSUPP|ABORT|INFO|SKIP|ONCE|WARN|!{6}) {0,2}(?:\] |[1JjIl|] (?=[A-Z]))"
)
_INDENT = re.compile(r" {7,12}(?=[A-Z][a-z]{2,}ing )")
# The "cylon eye": systemd src/core/manager.c, manager_print_jobs_in_progress().
_SPINNER = re.compile(r"\[[ *]{6}\] (?:\(\d{1,6} of \d{1,6}\) )?")
# What is left of a colour, or of a line's erasure, when a collector took the escape character away, or put another in
# its place.
_COLOUR = re.compile(
    "^M?\\[K(?=\\[)|[\ufffd.?␛]?\\[[0-9]{1,3}(?:; ?[0-9]{1,3}){0,6}m|[\ufffd␛]\\[[0-9;?]{0,20}[A-Za-z]|\\[0?K$"
)
_RESULTS = (
    (
        re.compile(r"(?:Failed to (?:start|mount|listen on|activate swap)|Timed out (?:starting|mounting)) \S"),
        "[FAILED] ",
    ),
    (re.compile(r"Timed out waiting for device \S"), "[TIME] "),
    (re.compile(r"(?:Dependency|Assertion) failed for \S"), "[DEPEND] "),
    (re.compile(r"(?:Started|Finished|Mounted|Reached target|Found device) \S"), "[OK] "),
)
"""What the manager logs, and the status field that it shows with the same words."""


def torn(text: str) -> list[str]:
    """Return `text`, or its parts, where somebody spoke in the middle of another's line."""
    parts = list[str]()
    if text.startswith("(initramfs) ") and (match := _GOES_ON.match(text)):
        text = text[match.end() :]
    while len(parts) < _BEGUN_LIMIT and text.startswith("Begin: ") and (match := _BEGUN.match(text)):
        parts.append(text[: match.end()])
        text = text[match.end() :]
    if "Kernel panic - " in text[1:_TORN_LIMIT] and (match := _ASKS.match(text)):
        return [text[: match.end()], text[match.end() :]]
    if "[" not in text or _STAMP.match(text) or not (match := _TORN.search(text, 1, _TORN_LIMIT)):
        return [*parts, text]
    if _QUOTES.match(text, 0, match.start()):
        return [*parts, text]
    return [*parts, text[: match.start()], text[match.start() :]]


def normalise(text: str) -> NormalLine:
    """Return `text` as it is matched."""
    text = text[:MATCH_LIMIT]
    stamp, quoted, by, status = None, False, "", False
    if "[" in text:
        text = _COLOUR.sub("", text)
    if "[" in text and (match := _STAMP.match(text)):
        stamp = float(match[1])
        text = text[match.end() :]
    if match := _MANAGER.match(text):
        text, status = text[match.end() :], True
        for pattern, field in _RESULTS:
            if pattern.match(text):
                text = field + text
                break
    elif "]: " in text and (match := _SAID.match(text)):
        text, by = text[match.end() :], match["by"]
        quoted = not _OF_THE_BOOT.match(by)
        if by.startswith("dracut") and text.startswith(("Warning: ", "FATAL: ")):
            text = f"dracut {text}"  # as it prints them itself, where it has no journal
        if by == "ignition" and text.startswith("failed to "):
            text = f"Ignition: {text}"  # of words that anybody could say
    if match := _SPINNER.match(text):
        return NormalLine(text=text[match.end() :], stamp=stamp, spinner=True)
    if match := _STATUS.match(text):
        text, status = f"[{match[1]}] {text[match.end() :]}", True
    elif match := _INDENT.match(text):
        text, status = text[match.end() :], True
    return NormalLine(text=text, stamp=stamp, quoted=quoted, by=by, status=status)


def reached(target: str, description: str) -> str:
    """Return a pattern for a target's line, in each spelling that `systemd.status_unit_format=` gives."""
    unit = re.escape(target)
    return rf"(?:\[OK\] )?Reached target (?:{unit}|(?:{unit} ?- ?)?{description})\.?$"


SHUTDOWN = re.compile(
    # systemd units/{shutdown,reboot,poweroff,halt,kexec}.target, src/shutdown/shutdown.c; sysvinit; OpenRC.
    r"(?:\[OK\] )?Reached target (?:\S+\.target - )?"
    r"(?:System (?:Shutdown|Reboot|Power Off|Halt)|Shutdown|Reboot|Unmount All Filesystems)\.?$"
    r"|(?:\[OK\] )?Stopped target (?:multi-user\.target - )?Multi-User System\.$"
    r"|systemd-shutdown\[1\]: |INIT: (?:Switching to|Entering) runlevel: [06]\b|The system is going down "
)
"""Lines after which failed units are a matter of going down, not of booting."""
