"""Where a boot is, by who speaks and what came before; firmware, loader and initrd may be missing."""

import functools
import re
from dataclasses import dataclass, replace

from vmtests.boot.rules import Sign
from vmtests.boot.speakers import SIGNS, SPEAKERS
from vmtests.boot.stages import NormalLine, Stage
from vmtests.causes import Cause

LOGIN_PROMPT = re.compile(r"(?!Last |Password |login )(?:[\w.-]{1,64}|\(none\)) login:(?: |$)")
"""agetty(8): the host's name, then what login(1) is called with."""

FRAME = re.compile(r"[\W_]{10,}")
"""Of a menu, or a progress bar: it says nothing."""

SHELL_PROMPT = re.compile(
    r"(?:\[?[\w.-]{1,32}@(?:[\w.-]{1,64}|\(none\))[ :][^#$]{0,80}\]?|[~/][\w/.-]{0,40}|(?:ba)?sh-\d\.\d{1,2}|)"
    r" ?[#$] ?$"
)
"""The prompt of a shell of the running system."""

BARE = re.compile(r"[#$] ?$")
"""A prompt that says nothing of whose it is; so may the begin of any line."""

SHOWS = re.compile(
    r"(?:\[?[\w.-]{1,32}@[\w.-]{1,64}[ :][^#$]{0,80}\]?|[~/][\w/.-]{0,40}|(?:ba)?sh-\d\.\d{1,2}|) ?[#$] "
    r"(?:sudo )?(?:cat|zcat|xzcat|zstdcat|dmesg|journalctl|less|more|tail|head|grep)\b"
)
"""Somebody has a log shown in a shell: what follows may be the console of another machine."""

# systemd src/core/main.c, status_welcome(); an initrd says so in its os-release (initrd-release(5)), or did before.
_WELCOME = re.compile(r"Welcome to (?![Gg][Rr][Uu][Bb]!|u-root!)(?P<os>.{1,200})!$")
_OF_INITRD = re.compile(r"\(Init(?:rd|ramfs)\)|\bdracut-\d")
_MANAGER_OF_INITRD = re.compile(r"Running in (?:initrd|initial RAM disk)\.$")
_MANAGER = re.compile(r"systemd \d\S* running in system mode")
# init/main.c, run_init_process(): where this is shown, systemd's greeting is, too, which has the same level.
_INIT_SHOWN = re.compile(r"Run \S{1,300} as init process$")
# systemd's own units of an initrd, where nothing else says that this is one.
_INITRD_UNIT = re.compile(
    r"(?!.*\bdracut-shutdown\b)"  # which the system has, to go back into its initrd
    r"(?:(?:\[[A-Z]+\] |(?:Start|Mount|Stopp|Unmount)ing |(?:Stopp|Unmount)ed ).*"
    r"(?:\b[Ii]nitrd|/?\bsysroot\b|\bdracut\b|\bIgnition \()"
    r"|[\w\\@.-]{0,80}(?:initrd|sysroot|dracut|ignition|ostree-prepare-root)[\w\\@.-]{0,80}"
    r"\.(?:service|target|mount|device|path): )"
)

# What only another boot than this one says; the kernel's banner needs the time stamp of a start besides, as
# `cat /proc/version` prints the same words.
_FIRMWARE_AGAIN = re.compile(r"BdsDxe: (?:loading|starting) Boot[0-9A-F]{4} |Welcome to [Gg][Rr][Uu][Bb]!$")
# Of these a boot has one; what is above may come again behind a boot loader that gave up.
_BANNER_AGAIN = re.compile(r"SeaBIOS \(version |U-Boot (?:SPL )?\d{4}\.\d\d|UEFI firmware \(version ")
_ONCE = re.compile(r"SeaBIOS \(version |UEFI firmware \(version ")
_KERNEL_AGAIN = re.compile(r"Linux version \d")

_SCRIPTS = frozenset(
    sign
    for speaker in SPEAKERS
    if speaker.stage is Stage.INITRD and speaker.name not in {"dracut", "Ignition"}
    for sign in speaker.signs
)
_HAND_OVER = frozenset(
    sign for speaker in SPEAKERS for sign in speaker.signs if sign.stage is Stage.INITRD and speaker.name != "Linux"
)
_OTHER_INITS = frozenset(
    sign for speaker in SPEAKERS if speaker.name.startswith(("sysvinit", "OpenRC", "dinit")) for sign in speaker.signs
)
_SPOKEN = frozenset(
    sign
    for speaker in SPEAKERS
    for sign in speaker.signs
    if speaker.name != "Linux" and not sign.stage.before(Stage.INITRD)
)
# What a manager says of which nobody knows whether it is an initrd's.
_GUESSED = frozenset(sign for sign in SIGNS if sign.stage is Stage.INITRD and sign.until is Stage.BOOTLOADER)
_MANAGERS = _HAND_OVER - _SCRIPTS - _GUESSED
_FOREIGN = frozenset(sign for speaker in SPEAKERS if speaker.foreign for sign in speaker.signs)
_EARLY = frozenset(sign for speaker in SPEAKERS if speaker.stage.before(Stage.KERNEL) for sign in speaker.signs)


def anonymous(pattern: re.Pattern[str]) -> str:
    """Return a pattern that can stand beside others: two groups of one name cannot."""
    flag = "i" if pattern.flags & re.IGNORECASE else ""
    return f"(?{flag}:{re.sub('[(][?]P<[a-z]+>', '(?:', pattern.pattern)})"


_ANY = re.compile("|".join(anonymous(sign.pattern) for sign in SIGNS))


@functools.lru_cache(maxsize=1024)
def _signs(text: str) -> tuple[Sign, ...]:
    """Return the signs that a line is; the same lines come again and again."""
    return tuple(sign for sign in SIGNS if sign.pattern.match(text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a line says about the progress of a boot.

    `stage` is the stage that it begins, if any; `restart`: a restart is planned; `ready`: the system is up;
    `forgives`: failures seen so far that no longer count; `alive`: an init speaks.
    """

    stage: Stage | None = None
    alive: bool = False
    restart: bool = False
    ready: bool = False
    forgives: frozenset[Cause] = frozenset()


_NOTHING = Step()


class Course:
    """Follows one boot."""

    def __init__(self) -> None:
        self._managed = False  # the initrd's manager spoke, and its greeting is still to come
        self.scripted = False
        """Whether an initrd's script was heard, whose shell is there to rescue."""
        self._hands_over = False
        self.foreign = ""
        """The line by which another system than Linux is known."""
        self.headless = True
        """Whether neither firmware nor boot loader were heard: the console begins late, or has no such part."""
        self._other = self._systemd = False
        self._initrd_managed = self._guessed = False

    @property
    def other_init(self) -> bool:
        """Whether systemd would have been heard, and was not: another init starts its gettys last."""
        return self._other and not self._systemd

    def take(self, current: Stage, line: NormalLine) -> Step:
        """Take a line of a boot that is in `current`."""
        text = line.text
        if current is Stage.INITRD and self._outside(line):
            return replace(self.take(Stage.USERSPACE, line), stage=Stage.USERSPACE)
        self._systemd |= line.status or bool(_MANAGER.match(text))
        self._other |= bool(_INIT_SHOWN.match(text))
        if match := _WELCOME.match(text):
            self._systemd = True
            return Step(stage=self._welcome(current, match["os"]), alive=True)
        if _ANY.match(text):
            steps = [self._sign(current, sign, line) for sign in _signs(text)]
            return Step(
                stage=next((step.stage for step in steps if step.stage is not None), _stamped(current, line)),
                restart=any(step.restart for step in steps),
                ready=any(step.ready for step in steps),
                forgives=frozenset().union(*(step.forgives for step in steps)),
                alive=any(step.alive for step in steps),
            )
        if current.before(Stage.INITRD) and (_INITRD_UNIT.match(text) or line.by.startswith(("dracut", "ignition"))):
            self._hands_over = self._initrd_managed = True
            return Step(stage=Stage.INITRD, alive=True)
        stage = _stamped(current, line)
        return _NOTHING if stage is None else Step(stage=stage)

    @property
    def hands_over(self) -> bool:
        """Whether an initrd was heard that means to hand over."""
        return self.scripted or self._hands_over

    def shell(self, current: Stage, text: str, failing: bool) -> bool:
        """Whether a shell asks for a command that is no rescue shell: one may be all that an initramfs is for."""
        alone = current in {Stage.KERNEL, Stage.INITRD} and not (self.hands_over or failing)
        return (alone or current is Stage.USERSPACE) and bool(SHELL_PROMPT.match(text))

    def rescue(self, current: Stage, text: str) -> bool:
        """Whether a shell asks for a command in an initrd that means to hand over."""
        inside = current in {Stage.INITRD, Stage.SWITCH_ROOT} and self.hands_over
        return inside and bool(SHELL_PROMPT.match(text))

    def _sign(self, current: Stage, sign: Sign, line: NormalLine) -> Step:
        text = line.text
        if sign in _EARLY:
            self.headless = False
        if sign in _FOREIGN and current.before(Stage.KERNEL):
            self.foreign = text
        self.scripted |= sign in _SCRIPTS
        self._other |= sign in _OTHER_INITS
        self._hands_over |= sign in _HAND_OVER
        self._initrd_managed |= sign in _MANAGERS or (sign in _SCRIPTS and line.by.startswith("systemd"))
        if _MANAGER_OF_INITRD.match(text):
            self._managed = True
        since = sign.since
        if _MANAGER.match(text) and self.scripted:
            since = Stage.INITRD  # a script hands over to the only manager that there is
        new = current.before(sign.stage) and not current.before(since) and not sign.until.before(current)
        self._guessed |= new and sign in _GUESSED
        stays = sign.restart and sign.stage is not Stage.USERSPACE
        return Step(
            stage=sign.stage if new and not stays else None,
            restart=sign.restart and not current.before(since),
            alive=sign in _SPOKEN,
            ready=sign.ready and not current.before(since),
            forgives=sign.forgives,
        )

    def _outside(self, line: NormalLine) -> bool:
        """Whether a manager speaks that is the system's: the initrd is a script's, or was never heard."""
        self._initrd_managed |= line.by.startswith(("dracut", "ignition"))
        speaks = (self.scripted and (line.status or line.spinner)) or (self._guessed and line.text.startswith("["))
        if not speaks or self._initrd_managed:
            return False
        self._initrd_managed = bool(_INITRD_UNIT.match(line.text))
        return not self._initrd_managed

    def _welcome(self, current: Stage, system: str) -> Stage | None:
        initrd = bool(_OF_INITRD.search(system)) or self._managed
        self._managed = False
        self._hands_over |= initrd
        self._initrd_managed |= initrd
        stage = Stage.INITRD if initrd else Stage.USERSPACE
        return stage if current.before(stage) else None


def _stamped(current: Stage, line: NormalLine) -> Stage | None:
    """Return that the kernel speaks, where its time stamp is what says so first."""
    return Stage.KERNEL if line.stamp is not None and current.before(Stage.KERNEL) else None


_CRASH_KERNEL = re.compile(r"(?:Kernel c|C)ommand line: (?:.{0,900} )?elfcorehdr=")


def dumps(line: NormalLine) -> bool:
    """Whether a kernel says that it was started to save what is left of another (kdump), whose end that is."""
    return line.stamp is not None and bool(_CRASH_KERNEL.match(line.text))


def restarted(current: Stage, line: NormalLine, *, ended: bool = False) -> bool:
    """Whether `line` can only come from another boot than the one that reached `current`, or has `ended`.

    For machines that send no reset event.
    """
    if not current.before(Stage.BOOTLOADER) and _BANNER_AGAIN.match(line.text):
        return True
    if current.before(Stage.KERNEL):
        return False
    if _FIRMWARE_AGAIN.match(line.text):
        return True
    late = ended or not current.before(Stage.INITRD)
    return late and line.stamp == 0 and bool(_KERNEL_AGAIN.match(line.text))


def introduces(line: NormalLine) -> bool:
    """Whether firmware says who it is, which it does once in a boot: where it did so twice, the machine restarted."""
    return bool(_ONCE.match(line.text))
