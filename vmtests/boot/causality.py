"""From findings to the one that explains the others.

A finding ends a boot, explains another, or is forgiven by what came later. Of what was found before the end the root
is the cause: the reason that the kernel or a program gave for the object (a device, a mount) whose failure took with
it what the boot needs, whatever was printed first.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vmtests.boot.rules import EventRule, Layer, LineRule
from vmtests.boot.stages import Stage
from vmtests.boot.verdict import Cause, Evidence

# systemd's targets without which no boot goes on, and what they are made of: bootup(7).
_NEEDED = re.compile(
    r"something that (?:.*(?:Local File Systems|Initrd|initrd|sysroot|Root File System|Switch Root|System "
    r"Initialization"
    r"|Basic System|D-Bus System|Ignition|Multi-User System|Default Target|Local Encrypted Volumes))"
)

# Those behind which nothing else is started: what only ends a login on a screen is not among them.
_LAST = re.compile(
    r"something that (?:.*(?:Local File Systems|Initrd Root|Initrd File Systems|initrd-|Switch Root|System "
    r"Initialization|Basic System|Multi-User System|Default Target)).* needs failed"
)

_DISK = re.compile(r"/dev/(?P<disk>(?:nvme\d+n|mmcblk|md|loop)\d+|[a-z]{1,8})(?:p?\d+)?")
_UNREADABLE = re.compile(r"error(?:, | on )dev")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A rule that matched, when, in which stage, and with what sentence; `subject` is what it is about."""

    rule: LineRule | EventRule
    stage: Stage
    sentence: str
    subject: str
    evidence: tuple[Evidence, ...]

    @property
    def t(self) -> float:
        """When it was found, in seconds since power-on."""
        return self.evidence[-1].t

    def rule_in(self, stages: frozenset[Stage]) -> bool:
        """Whether its line can come in `stages` only."""
        return isinstance(self.rule, LineRule) and self.rule.stages <= stages


def chain(found: Sequence[Finding], *, notes: bool = True) -> list[Finding]:
    """Return what led to the end, the root first; empty when there was no clue, but for notes where they count."""
    clues = [clue for clue in found if clue.rule.layer is not Layer.NOTE]
    if not clues:
        return list(found[:2]) if notes else []
    # The manager tells of what waited before it tells of what failed.
    all_lost = [i for i, clue in enumerate(clues) if needed(clue)]
    told = (i for i in all_lost if any(one.rule.layer in {Layer.OBJECT, Layer.UNIT} for one in clues[:i]))
    lost = next(told, all_lost[0] if all_lost else None)
    before = clues if lost is None else clues[:lost]
    objects = [clue for clue in before if clue.rule.layer is Layer.OBJECT]
    units = [clue for clue in before if clue.rule.layer is Layer.UNIT]
    # The first explains; what was asked for last is what the boot was about.
    near = list(dict.fromkeys([*objects[:1], *objects[-1:]])) or units[:3]
    if lost is not None:  # what the manager names right before the first thing that fails for it
        near = objects[-1:] or units[-1:] or list(clues[lost : lost + 1])
    reasons = [
        clue for clue in clues if clue.rule.layer is Layer.REASON and all(_explains(clue, one) for one in near[:1])
    ]
    if near and reasons:
        at = next(i for i, clue in enumerate(clues) if clue is near[0])
        last = max((i for i, clue in enumerate(clues[:at]) if clue.rule.layer is not Layer.REASON), default=-1)
        reasons = [
            *(clue for clue in clues[last + 1 : at] if clue in reasons),
            *(clue for clue in clues[at:] if clue in reasons),
            *reversed([clue for clue in clues[: last + 1] if clue in reasons]),
        ]
    return [*reasons[:1], *near] or list(clues[:1])


def _explains(reason: Finding, failed: Finding) -> bool:
    """Whether a reason can be that of what failed: a device does not stay away for an error of another disk."""
    if failed.rule.cause is not Cause.DEVICE_TIMEOUT or reason.rule.fatal or reason.rule.cause is Cause.MODULE_MISSING:
        return True
    if (named := _DISK.fullmatch(failed.subject)) is None:  # a link: to any disk whose blocks could not be read
        return failed.subject in reason.sentence or bool(_UNREADABLE.search(reason.sentence))
    return bool(re.search(rf"\b{named['disk']}(?:p?\d+)?\b", reason.sentence))


def needed(found: Finding) -> bool:
    """Whether what failed takes with it something that a system is not up without."""
    return bool(_NEEDED.match(found.sentence))


def ends(found: Finding) -> bool:
    """Whether what failed is something without which no boot goes on, so that it needs no other sign of an end."""
    return bool(_LAST.match(found.sentence))


def in_order(evidence: Iterable[Evidence]) -> tuple[Evidence, ...]:
    """Return evidence by time, each once: what says something for one finding may be the context of another."""
    listed = list(evidence)
    says = {item: item for item in listed if not item.context}
    return tuple(sorted((says.get(item, item) for item in dict.fromkeys(listed)), key=lambda item: item.t))
