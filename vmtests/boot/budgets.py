"""How long a stage may be silent."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vmtests.boot.console import Line
from vmtests.boot.stages import Stage
from vmtests.boot.verdict import Cause, Evidence, Verdict

LOAD_LIMIT = 4.0
"""A loaded host gets at most so many times the time of an idle one."""

QUOTED = 120
"""Characters of a line in a sentence."""

_PRESSURE = re.compile(r"some avg10=(\d{1,3}\.\d+)")

# Seconds on an idle host with KVM. The longest silence of a good boot is the unpacking of a large initrd.
_DEFAULTS = {
    Stage.FIRMWARE: 20.0,
    Stage.BOOTLOADER: 20.0,
    Stage.KERNEL: 20.0,
    Stage.INITRD: 30.0,
    Stage.SWITCH_ROOT: 30.0,
    Stage.USERSPACE: 45.0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """Seconds without progress after which a stage counts as stuck, and `settle`, those of silence after
    which jobs whose end was not seen no longer count; both times `scale` (1 for KVM on hardware, 4 for TCG).

    A stage also ends after `patience` budgets in which the guest did print: complaints that go round for
    ever are no boot. `whole` is the limit that a person has set for all stages together, in seconds from power-on.
    """

    stages: Mapping[Stage, float] = field(default_factory=lambda: dict(_DEFAULTS))
    scale: float = 1.0
    settle: float = 2.0
    patience: float = 10.0
    whole: float | None = None

    def seconds(self, stage: Stage) -> float:
        """Seconds that `stage` may be silent on an idle host."""
        return self.stages.get(stage, _DEFAULTS[Stage.USERSPACE]) * self.scale

    @property
    def settle_seconds(self) -> float:
        """Seconds of silence after the last target, on an idle host."""
        return self.settle * self.scale


def over(stage: Stage, last: Line | None, t: float, whole: float, seconds: Mapping[Stage, float]) -> Verdict:
    """Return the verdict on a boot that takes longer than somebody wants to wait, which nobody is to blame for."""
    evidence = []
    sentence = f"the boot did not get ready in the {whole:g} s that it was given; it is in stage {stage}"
    if last is not None:
        sentence += f', where the last line, {t - last.t:.0f} s old, is "{last.text[:QUOTED]}"'
        evidence.append(Evidence(t=last.t, source=last.source, text=last.text[:QUOTED]))
    return Verdict(
        ready=False,
        stage=stage,
        cause=Cause.TIME_LIMIT,
        sentence=sentence,
        evidence=tuple(evidence),
        hint="give it more time; the seconds in each stage tell where it went",
        owner=None,
        evidence_to_verdict_s=max(t - whole, 0.0),
        seconds=seconds,
    )


def load_factor(proc: Path = Path("/proc")) -> float:
    """Return how many times longer a process takes now than on an idle host, between 1 and LOAD_LIMIT.

    The larger of two estimates: the share of the last ten seconds in which some task waited for a processor
    (Documentation/accounting/psi.rst of Linux), and the run queue per processor (proc_loadavg(5)). What
    cannot be read counts as idle.
    """
    factor = 1.0
    try:
        if match := _PRESSURE.match((proc / "pressure" / "cpu").read_text()):
            factor = 1 / max(1 - float(match[1]) / 100, 1 / LOAD_LIMIT)
    except OSError:
        pass  # a kernel without pressure stall information
    try:
        load = float((proc / "loadavg").read_text().split()[0])
        factor = max(factor, load / (os.cpu_count() or 1))
    except (OSError, ValueError, IndexError):
        pass
    return min(max(factor, 1.0), LOAD_LIMIT)
