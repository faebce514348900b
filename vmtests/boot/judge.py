"""From lines and events to a finding: pure, without clock or thread; times are seconds since power-on."""

import re
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from vmtests.boot.patterns import EVENT_RULES, LINE_RULES
from vmtests.boot.patterns_system import ABSENT_DEVICE
from vmtests.boot.rules import EventRule, LineRule, Weight
from vmtests.boot.stages import SHUTDOWN, NormalLine, Stage
from vmtests.boot.verdict import Cause, Evidence, Verdict
from vmtests.machine.events import MachineEvent
from vmtests.text import TEXT_LIMIT

_CLUES = 8
_CONSEQUENCES = frozenset({Cause.MOUNT_FAILED, Cause.UNIT_FAILED})
_BEFORE = 4
_AFTER = 12
_GRACE_LIMIT = 5.0  # seconds after the first finding, whatever more is found


@dataclass(frozen=True, slots=True)
class _Rules:
    """The rules of a stage, and one pattern that matches wherever any of theirs does: few lines need a second look."""

    rules: tuple[LineRule, ...]
    any: re.Pattern[str]

    @classmethod
    def of(cls, stage: Stage) -> Self:
        rules = tuple(rule for rule in LINE_RULES if stage in rule.stages)
        return cls(rules, re.compile("|".join(_anonymous(rule.pattern) for rule in rules) or r"(?!)"))


def _anonymous(pattern: re.Pattern[str]) -> str:
    """Return a pattern that can stand beside others: two groups of one name cannot."""
    flag = "i" if pattern.flags & re.IGNORECASE else ""
    return f"(?{flag}:{re.sub('[(][?]P<[a-z]+>', '(?:', pattern.pattern)})"


_RULES = {stage.value: _Rules.of(stage) for stage in Stage}


class _Values(dict[str, str]):
    """Values for a sentence; what is not known is left out."""

    def __missing__(self, key: str) -> str:
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A rule that matched, when, in which stage, and with what sentence."""

    rule: LineRule | EventRule
    stage: Stage
    sentence: str
    evidence: tuple[Evidence, ...]

    @property
    def t(self) -> float:
        """When it was found, in seconds since power-on."""
        return self.evidence[-1].t


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
        self._stamped = False
        self._going_down = False
        self.deadline: float | None = None

    def forgive(self) -> None:
        """Forget clues: the boot went on in spite of them."""
        self._clues.clear()

    @property
    def clues(self) -> tuple[Finding, ...]:
        """Failures that have not ended the boot so far, oldest first."""
        return tuple(self._clues)

    def line(self, normal: NormalLine, text: str, t: float, stage: Stage) -> None:
        """Take a line of the console: as it is matched and as it was printed."""
        if normal.stamp is not None:
            self._stamped = True
        if SHUTDOWN.match(normal.text):
            self._going_down = True
        evidence = Evidence(t=t, source="console", text=text[:TEXT_LIMIT])
        if (found := self._match(normal, stage)) is not None:
            rule, match = found
            self._found(rule, match.groupdict(), evidence, stage)
        else:
            self._follow(evidence)
        self._recent.append(evidence)

    def prompt(self, text: str, t: float, stage: Stage) -> None:
        """Take a line that has no newline yet."""
        if self._finding is not None:
            return
        for rule in _RULES[stage.value].rules:
            if rule.prompt and (match := rule.pattern.match(text)):
                evidence = Evidence(t=t, source="console", text=text.rstrip()[:TEXT_LIMIT])
                self._found(rule, match.groupdict(), evidence, stage)
                return

    def absent(self, device: str, evidence: Evidence, stage: Stage) -> None:
        """Take a wait for a device that does not exist."""
        if self._finding is None:
            self._found(ABSENT_DEVICE, {"device": device}, evidence, stage)

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
        root = final
        if final.rule.weight is Weight.SYMPTOM:
            root = next(iter(self._clues), self._symptoms[0])
        sentence = final.sentence
        if root is not final:
            between = next((clue for clue in self._clues[1:] if clue.rule.cause in _CONSEQUENCES), root)
            chain = dict.fromkeys((root.sentence, between.sentence, sentence))
            sentence = ", then ".join(chain)
        findings = [*self._clues, *self._symptoms, final]
        return Verdict(
            ready=False,
            stage=final.stage,
            cause=root.rule.cause,
            sentence=sentence,
            evidence=_in_order(e for part in (*(f.evidence for f in findings), self._after) for e in part),
            hint=root.rule.hint,
            owner=root.rule.owner,
            evidence_to_verdict_s=max(now - self._since, 0.0),
            seconds=seconds,
        )

    def _match(self, normal: NormalLine, stage: Stage) -> tuple[LineRule, re.Match[str]] | None:
        known = _RULES[stage.value]
        if not known.any.match(normal.text):
            return None
        for rule in known.rules:
            if rule.kernel and self._stamped and normal.stamp is None:
                continue
            if self._going_down and not rule.kernel:
                continue
            if match := rule.pattern.match(normal.text):
                return rule, match
        return None

    def _follow(self, evidence: Evidence) -> None:
        if self._finding is not None and len(self._after) < _AFTER:
            self._after.append(evidence)

    def _found(
        self, rule: LineRule | EventRule, values: Mapping[str, str | None], evidence: Evidence, stage: Stage
    ) -> None:
        shown = _Values({key: value[:TEXT_LIMIT] for key, value in values.items() if value is not None})
        finding = Finding(
            rule=rule,
            stage=stage,
            sentence=rule.sentence.format_map(shown),
            evidence=(*self._recent, evidence),
        )
        current = self._finding
        if rule.weight is Weight.CLUE:
            if current is not None:
                self._follow(evidence)  # what fails after the end is not why it came
            elif len(self._clues) < _CLUES:
                self._clues.append(finding)
            return
        if current is not None and (
            current.rule.weight is Weight.CAUSE or (rule.weight is Weight.SYMPTOM and current.rule.cause is rule.cause)
        ):
            self._follow(evidence)
            return
        if current is None:
            self._since = finding.t
        if rule.weight is Weight.SYMPTOM:
            self._symptoms.append(finding)
        self._finding = finding
        deadline = max(self.deadline or 0.0, finding.t + rule.grace)
        self.deadline = min(deadline, self._since + _GRACE_LIMIT)


def _in_order(evidence: Iterable[Evidence]) -> tuple[Evidence, ...]:
    return tuple(sorted(dict.fromkeys(evidence), key=lambda item: item.t))
