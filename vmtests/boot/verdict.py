"""What came of a boot, in a form for people and for programs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from vmtests.boot.stages import Stage
from vmtests.causes import Cause as Cause
from vmtests.errors import Owner, at_named


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A line that led to the verdict: seconds since power-on, where it was seen, printable text.

    `context` is that it only stands beside a line that says something.
    """

    t: float
    source: str
    text: str
    context: bool = field(default=False, compare=False)

    def to_json(self) -> dict[str, object]:
        """Return the fields by name, the time in milliseconds' precision."""
        return {"t": round(self.t, 3), "source": self.source, "text": self.text}


STARVED = "host"
"""Source of the evidence that the host had no processor for the machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Ready, or failed and why, or `unknown`: nobody can tell from what was seen.

    `stage` is where the boot was, `sentence` says what happened, `hint` what can be done, `owner` who has to
    act (None when ready or unknown). `evidence_to_verdict_s` is the time in seconds from the line or event that
    decided to the verdict; `seconds` the time in each stage.
    """

    ready: bool
    stage: Stage
    cause: Cause | None
    sentence: str
    evidence: tuple[Evidence, ...]
    hint: str
    owner: Owner | None
    evidence_to_verdict_s: float
    seconds: Mapping[Stage, float] = field(default_factory=dict)
    unknown: bool = False
    failed_units: tuple[str, ...] = ()
    """Units that have failed: by the guest's own word where it got ready, else by its journal, if that was got."""

    @property
    def word(self) -> str:
        """`ready`, `failed` or `unknown`."""
        return "ready" if self.ready else "unknown" if self.unknown else "failed"

    @property
    def exit_status(self) -> int:
        """What a command exits with: 0 when ready, 1 when the image is at fault, 2 when something else is, or
        nobody can tell.
        """
        return 0 if self.ready else 1 if self.owner is Owner.IMAGE else 2

    @property
    def starved(self) -> bool:
        """Whether the host had no processor for the machine: such a boot says little about the image."""
        return any(item.source == STARVED for item in self.evidence)

    def unsure(self) -> "Verdict":
        """Return the same as what is last known of a boot of which nobody can tell how it ended."""
        return replace(self, unknown=True, owner=None, sentence=f"cannot tell how this boot went on: {self.sentence}")

    def to_json(self) -> dict[str, object]:
        """Return the verdict as `vmtests boot --json` prints it."""
        return {
            "verdict": self.word,
            "stage": str(self.stage),
            "cause": None if self.cause is None else str(self.cause),
            "sentence": self.sentence,
            "evidence": [evidence.to_json() for evidence in self.evidence],
            "hint": self.hint,
            "failed_units": list(self.failed_units),
            "owner": None if self.owner is None else str(self.owner),
            "seconds": {str(stage): seconds for stage, seconds in self.seconds.items()},
            "evidence_to_verdict_s": round(self.evidence_to_verdict_s, 3),
        }


def keep(path: Path, verdict: Verdict) -> None:
    """Write a verdict's `to_json()` to `path`; raises InputError when it cannot be there, HostError on a full disk."""
    try:
        path.write_text(json.dumps(verdict.to_json(), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise at_named(f"{path} cannot be written", error, "name another directory with --vm-results") from error
