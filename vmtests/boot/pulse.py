"""Where a boot is, while it goes on."""

from dataclasses import dataclass

from vmtests.boot.console import Line
from vmtests.boot.stages import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """Where a boot is, `t` seconds after power-on.

    `waits_for` is what systemd said that it waits for, or empty. `left` is how many seconds of the stage's budget are
    left without progress; None once the boot has its verdict.
    """

    stage: Stage
    t: float
    last: Line | None
    waits_for: str
    left: float | None

    @property
    def last_words(self) -> str:
        """The last line and its age."""
        if self.last is None:
            return "nothing was printed"
        return f'the last line, {self.t - self.last.t:.0f} s old, is "{self.last.text[:120]}"'

    def __str__(self) -> str:
        words = [f"{self.stage}: {self.last_words}"]
        if self.waits_for:
            words.append(self.waits_for)
        if self.left is not None:
            words.append(f"{self.left:.0f} s left to get on")
        return "; ".join(words)
