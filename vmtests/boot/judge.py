"""From lines and events to a finding: pure, without clock or thread; times are seconds since power-on."""

import functools
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from vmtests.boot.causality import Finding, chain, ends, in_order, needed
from vmtests.boot.course import FRAME, anonymous
from vmtests.boot.machine_rules import ABSENT_DEVICE, INITRD_SHELL
from vmtests.boot.machine_rules import RULES as EVENT_RULES
from vmtests.boot.rules import LOADING, EventRule, Layer, LineRule, Weight
from vmtests.boot.speakers import LINE_RULES, SPEAKERS
from vmtests.boot.stages import SHUTDOWN, NormalLine, Stage
from vmtests.boot.verdict import Cause, Evidence, Verdict
from vmtests.boot.waits import path
from vmtests.machine.events import MachineEvent
from vmtests.text import TEXT_LIMIT

_CLUES = 64
_OF_ONE_RULE = 8
_BEFORE = 4
_AFTER = 12
_GRACE_LIMIT = 5.0  # seconds after the first finding, whatever more is found

_SHELLS = frozenset({Cause.EMERGENCY_SHELL, Cause.DEFAULT_TARGET_MISSING})
_MANAGED = frozenset(rule for speaker in SPEAKERS if speaker.name == "systemd" for rule in speaker.failures)
_HOME = {id(rule): speaker.stage for speaker in SPEAKERS for rule in speaker.failures}
# systemd.special(7): whatever is mounted without `nofail` is there when local-fs.target is reached.
_MOUNTED = re.compile(r"\[OK\] Reached target (?:local-fs\.target|Local File Systems)\b")
_OPTIONAL = frozenset({Cause.MOUNT_FAILED, Cause.DEVICE_TIMEOUT, Cause.FSCK_FAILED})
_OF_INITRD = re.compile(
    r"\binitrd|\bInitrd|/?\bsysroot\b|\bdracut\b|\bIgnition \(|\b[Oo][Ss][Tt]ree[- ][Pp]repare|/mnt-root|/new_root"
)
_NEXT_KERNEL = re.compile(r"kexec_core: Starting new kernel$")
"""What comes is another kernel's; whether it stamps its lines is not known yet (kernel/kexec_core.c)."""
_ANSWERED = re.compile(r"Crypt|Unlock|First ?[Bb]oot|Found device|Encrypted|Switch Root|Local File Systems|Multi-User")
# What systemd, OpenRC, sysvinit's scripts and BusyBox' say of what they do, or did.
_GOES_ON = re.compile(
    r"\[OK\] |(?:Starting|Mounting|Activating) |.{0,200}(?:\[ ?ok ?\]|\.{3} ?(?:done|ok)\.?|: OK)(?: .{0,80})?$",
    re.IGNORECASE,
)
# What the manager says of a unit that failed before, and runs at last.
_MENDED = re.compile(
    r"\[OK\] (?:Started|Finished|Mounted|Found device|Reached target|Listening on|Activated swap) "
    r"(?:\S+\.[a-z]+ - |\S*(?:…|\.{3}|\ufffd)\S* ?- )?(?P<what>.+?)\.?$"
)


@dataclass(frozen=True, slots=True)
class _Rules:
    """The rules of a stage, and one pattern that matches wherever any of theirs does: few lines need a second look."""

    rules: tuple[LineRule, ...]
    any: re.Pattern[str]

    @classmethod
    def of(cls, stage: Stage, *, late: bool) -> Self:
        """Return the rules that count in `stage`; `late` says that a boot may be further than it seems."""

        def counts(rule: LineRule) -> bool:
            if stage in rule.stages or not stage.before(Stage.INITRD):
                return stage in rule.stages
            last = max(rule.stages, key=lambda one: one.position)
            # A quiet boot says nothing between its loader and what goes wrong.
            return not last.before(stage) and (late or not rule.general_words)

        rules = tuple(rule for rule in LINE_RULES if counts(rule))
        return cls(rules, re.compile("|".join(anonymous(rule.pattern) for rule in rules) or r"(?!)"))


@functools.cache
def _rules(stage: str, late: bool) -> _Rules:
    """Return the rules of a stage when they are first wanted: to compile all of them takes a second."""
    return _Rules.of(Stage(stage), late=late)


class _Values(dict[str, str]):
    """Values for a sentence; what is not known is left out."""

    def __missing__(self, key: str) -> str:
        return ""


class Judge:
    """Collects what speaks for a failure.

    The first finding that can end a boot opens a grace; within it a weightier one takes its place, and lines
    become evidence. `deadline` is when the grace ends.
    """

    def __init__(self) -> None:
        self._clues: list[Finding] = []
        self._finding: Finding | None = None
        self._since = 0.0
        self._symptoms: list[Finding] = []
        self._recent: deque[Evidence] = deque(maxlen=_BEFORE)
        self._after: list[Evidence] = []
        self._asked: Finding | None = None
        self._stamped = False
        self._going_down = False
        self._mounted = False  # all that the system needs of file systems
        self.hands_over = True
        """Whether an initrd is there to find another system: a shell in it is one to rescue."""
        self.deadline: float | None = None

    def forgive(self, stage: Stage, *, late: bool = False) -> None:
        """Forget what the boot, which has come to `stage`, went on in spite of.

        `late` says that it came there before, as far as is known of a console that begins in the middle.
        """
        self.goes_on()
        if stage is Stage.KERNEL:
            self._clues = [clue for clue in self._clues if not clue.rule_in(LOADING)]
            if self._finding is not None and self._finding.rule_in(LOADING):
                self._drop()
        elif not stage.before(Stage.USERSPACE):
            self._clues = [clue for clue in self._clues if late and clue.stage is Stage.USERSPACE]
            if (
                self._finding is not None
                and not (late and self._finding.stage is Stage.USERSPACE)
                and self._finding.rule.weight in {Weight.SYMPTOM, Weight.WAIT}
            ):
                self._drop()

    def forget(self, causes: frozenset[Cause]) -> None:
        """Forget clues of `causes`: something else took the place of what failed."""
        self._clues = [clue for clue in self._clues if clue.rule.cause not in causes]

    def goes_on(self) -> None:
        """Take it that the boot gets on: an oops was that of one process, and explains what lacks; a stall is over."""
        found = self._finding
        if found is not None and isinstance(found.rule, LineRule) and found.rule.survived:
            self._drop()
            if self._new(found):
                self._clues.append(found)

    def unpacked(self) -> None:
        """Take it that an init of the initrd speaks: what the kernel complained of was not what matters."""
        self._clues = [
            replace(clue, rule=replace(clue.rule, layer=Layer.NOTE, fatal=False))
            if clue.rule.cause is Cause.INITRD_INVALID
            else clue
            for clue in self._clues
        ]

    @property
    def broken(self) -> bool:
        """Whether something failed that a system needs, and nothing mended it."""
        optional = _OPTIONAL if self._mounted and not any(map(needed, self._clues)) else frozenset()
        return any(clue.rule.layer is Layer.OBJECT and clue.rule.cause not in optional for clue in self._clues)

    @property
    def rescuing(self) -> bool:
        """Whether a shell to repair the system was announced: a prompt behind it is that shell's."""
        return self._finding is not None and self._finding.rule.cause in _SHELLS

    @property
    def failing(self) -> bool:
        """Whether something failed that may be why the boot stands still."""
        return any(clue.rule.fatal for clue in self._clues)

    def recovered(self) -> None:
        """Take it that the system is up: whatever was an end before it was none."""
        self.goes_on()
        if self._finding is not None and self._finding.rule.weight in {Weight.SYMPTOM, Weight.WAIT}:
            self._drop()

    @property
    def clues(self) -> tuple[Finding, ...]:
        """Failures that have not ended the boot so far, oldest first."""
        return tuple(self._clues)

    def line(self, normal: NormalLine, text: str, t: float, stage: Stage, *, late: bool = False) -> Stage:
        """Take a line of the console: as it is matched and as it was printed; returns the stage that speaks.

        `late` says that what came before was not seen, so that the boot may be further than `stage`.
        """
        if normal.stamp is not None:
            self._stamped = True
        elif self._finding is not None and self._finding.rule.weight is Weight.WAIT and _answers(normal):
            self._drop()  # somebody answered
        if self._finding is not None and _GOES_ON.match(normal.text):
            self.goes_on()
        self._mounted |= stage is Stage.USERSPACE and bool(_MOUNTED.match(normal.text))
        if SHUTDOWN.match(normal.text):
            self._going_down = True
        elif _NEXT_KERNEL.match(normal.text):
            self._going_down = self._stamped = False
        evidence = Evidence(t=t, source="console", text=text[:TEXT_LIMIT])
        if (found := self._match(normal, stage, late)) is not None:
            rule, match = found
            place = self._place(rule, normal, stage)
            self._found(rule, match.groupdict(), evidence, place)
            if not (place is Stage.USERSPACE and rule in _MANAGED):  # which the initrd's manager says, too
                stage = place
        else:
            self._follow(evidence)
            if self._clues and (mended := _MENDED.match(normal.text)):
                self._clues = [clue for clue in self._clues if clue.subject != mended["what"]]
        self._recent.append(evidence)
        return stage

    def prompt(self, normal: NormalLine, text: str, t: float, stage: Stage, *, late: bool = False) -> None:
        """Take a line that has no newline yet."""
        if self._finding is not None:
            return
        for rule in _rules(stage.value, late).rules:
            if rule.rescue and not (self.hands_over or self.failing):
                continue
            if rule.prompt and (match := rule.pattern.match(normal.text)):
                evidence = Evidence(t=t, source="console", text=text.rstrip()[:TEXT_LIMIT])
                self._found(rule, match.groupdict(), evidence, self._place(rule, normal, stage))
                return

    def absent(self, device: str, evidence: Evidence, stage: Stage) -> None:
        """Take a wait for a device that does not exist."""
        if self._finding is None:
            self._found(ABSENT_DEVICE, {"device": device}, evidence, stage)

    def shell(self, evidence: Evidence, stage: Stage) -> None:
        """Take the prompt of a shell in an initrd."""
        if self._finding is None:
            self._found(INITRD_SHELL, {}, evidence, stage)

    def event(self, event: MachineEvent, t: float, stage: Stage) -> None:
        """Take an event of the machine; those that no rule names are nothing to judge."""
        for rule in EVENT_RULES:
            if rule.name == event.name and all(
                pattern.search(str(event.detail.get(key, ""))) for key, pattern in rule.when.items()
            ):
                for line in event.stderr:
                    self._recent.append(Evidence(t=t, source="stderr", text=line))
                self._found(rule, event.values, Evidence(t=t, source="event", text=event.text), stage)
                if rule.ending and self.deadline is not None:
                    self.deadline = min(self.deadline, t + rule.grace)
                return

    def verdict(self, now: float, seconds: Mapping[Stage, float]) -> Verdict:
        """Return the verdict on what was found, given at `now`; raises ValueError without a finding."""
        final = self._finding
        if final is None:
            raise ValueError("nothing was found")
        links = [final]
        if self._asked is not None and final.rule.cause in _SHELLS and not chain(self._clues, notes=False):
            links = [self._asked]
        elif final.rule.weight in {Weight.SYMPTOM, Weight.WAIT}:
            links = [*(chain(self._clues, notes=False) or self._symptoms[:1]), final]
        if final.rule is INITRD_SHELL and links == [final]:  # which may be all that this initrd is for
            said = "nothing before it says why"
            return self._verdict(links, now, seconds, final.stage, self._since, said).unsure()
        return self._verdict(links, now, seconds, final.stage, self._since)

    def silent(self, now: float, seconds: Mapping[Stage, float], stage: Stage, said: str) -> Verdict | None:
        """Return the verdict on a boot that says no more, `said` how it ended; None when nothing failed in it."""
        if not (links := chain(self._clues)):
            return None
        verdict = self._verdict(links, now, seconds, stage, links[-1].t, said)
        if any(link.rule.fatal for link in links[:2]) or any(ends(clue) for clue in self._clues):
            return verdict
        return verdict.unsure()

    def _verdict(
        self,
        links: Sequence[Finding],
        now: float,
        seconds: Mapping[Stage, float],
        stage: Stage,
        since: float,
        said: str = "",
    ) -> Verdict:
        root = links[0]
        told = dict.fromkeys(link.sentence for link in links)
        # "X failed" adds nothing to "X failed: why".
        sentence = ", then ".join(one for one in told if not any(other.startswith(f"{one}: ") for other in told))
        findings = [*self._clues, *self._symptoms, *links]
        return Verdict(
            ready=False,
            stage=_blamed(root, stage),
            cause=root.rule.cause,
            sentence=f"{sentence}; {said}" if said else sentence,
            evidence=in_order(e for part in (*(f.evidence for f in findings), self._after) for e in part),
            hint=root.rule.hint,
            owner=root.rule.owner,
            evidence_to_verdict_s=max(now - since, 0.0),
            seconds=seconds,
        )

    def _match(self, normal: NormalLine, stage: Stage, late: bool) -> tuple[LineRule, re.Match[str]] | None:
        known = _rules(stage.value, late)
        if not known.any.match(normal.text):
            return None
        for rule in known.rules:
            if rule.kernel and self._stamped and normal.stamp is None:
                continue
            if self._going_down and not rule.kernel:
                continue
            # Firmware and boot loaders have neither the kernel's clock nor a pid of the boot's; what another program
            # says may be theirs, which it runs.
            running = normal.stamp is not None or (normal.by and not normal.quoted)
            if running and _HOME.get(id(rule), stage).before(Stage.KERNEL):
                continue
            if rule.rescue and not (self.hands_over or self.failing):
                continue
            if normal.quoted and rule.weight is not Weight.CLUE:
                continue
            if match := rule.pattern.match(normal.text):
                return rule, match
        return None

    def _place(self, rule: LineRule, normal: NormalLine, stage: Stage) -> Stage:
        """Return the stage of who speaks, where the boot is further than was seen."""
        if not stage.before(Stage.INITRD):
            return stage
        home = _HOME.get(id(rule), stage)
        if rule in _MANAGED:
            words = [normal.text, *(clue.sentence for clue in self._clues)]
            home = Stage.INITRD if any(_OF_INITRD.search(text) for text in words) else Stage.USERSPACE
        elif rule.general_words and home is not Stage.BOOTLOADER:  # whose words the firmware does not use
            return stage
        return home if stage.before(home) else stage

    def _follow(self, evidence: Evidence) -> None:
        if self._finding is not None and len(self._after) < _AFTER:
            self._after.append(replace(evidence, context=True))

    def _drop(self) -> None:
        self._finding = self.deadline = None
        self._symptoms.clear()
        self._after.clear()

    def _found(
        self, rule: LineRule | EventRule, values: Mapping[str, str | None], evidence: Evidence, stage: Stage
    ) -> None:
        shown = _Values({key: value[:TEXT_LIMIT] for key, value in values.items() if value is not None})
        if "device" in shown:
            shown["device"] = path(shown["device"])
        finding = Finding(
            rule=rule,
            stage=stage,
            sentence=" ".join(rule.sentence.format_map(shown).split()).rstrip(": "),
            subject=shown["unit"] or shown["where"] or shown["device"],
            evidence=(*(replace(item, context=item.source != "stderr") for item in self._recent), evidence),
        )
        current = self._finding
        if isinstance(rule, LineRule) and rule.asked:
            self._asked = finding
            return
        if rule.weight is Weight.CLUE:
            if current is not None and rule.layer is not Layer.REASON:
                self._follow(evidence)  # what fails after the end is not why it came
            elif self._new(finding):
                self._clues.append(finding)
            return
        if current is not None and (
            current.rule.weight is Weight.CAUSE
            or rule.weight is Weight.WAIT
            or (rule.weight is Weight.SYMPTOM and current.rule.cause is rule.cause)
        ):
            self._follow(evidence)
            return
        if current is None:
            self._since = finding.t
        if rule.weight is Weight.SYMPTOM:
            self._symptoms.append(finding)
        self._finding = finding
        grace = rule.grace
        if isinstance(rule, LineRule) and rule.patience is not None and not self.failing:
            grace = rule.patience
        deadline = max(self.deadline or 0.0, finding.t + grace)
        limit = grace if rule.weight is Weight.WAIT else max(grace, _GRACE_LIMIT)
        self.deadline = min(deadline, self._since + limit)

    def _new(self, finding: Finding) -> bool:
        same = [clue for clue in self._clues if clue.rule is finding.rule]
        known = any(clue.sentence == finding.sentence for clue in same)
        return not known and len(same) < _OF_ONE_RULE and len(self._clues) < _CLUES


def _answers(normal: NormalLine) -> bool:
    """Whether a line behind a prompt can only come when somebody answered: the manager has other things to tell."""
    if normal.status:
        return bool(_ANSWERED.search(normal.text))
    return not FRAME.fullmatch(normal.text)


def _blamed(root: Finding, stage: Stage) -> Stage:
    place = root.rule.place if isinstance(root.rule, LineRule) else None
    return place if place is not None and stage is Stage.USERSPACE else stage
