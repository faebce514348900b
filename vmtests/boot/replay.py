"""The judge on a recording: a console's bytes, of whatever collector, through the same `Attempt` as a live boot."""

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from vmtests.boot.attempt import Attempt
from vmtests.boot.budgets import Budgets
from vmtests.boot.console import Line
from vmtests.boot.course import dumps, introduces, restarted
from vmtests.boot.explain import Knowledge
from vmtests.boot.machine_rules import BOOT_LOOP, LOOP_RESETS, PLANS
from vmtests.boot.readiness import ANY_RUN
from vmtests.boot.scanner import Scanner
from vmtests.boot.shape import Undress
from vmtests.boot.skim import BOOTS, Skim
from vmtests.boot.stages import Stage, normalise, torn
from vmtests.boot.timeline import Timeline
from vmtests.boot.verdict import Verdict

_HEADS = 3  # lines that show where a stage began
_EARLIER = 20
_BINARY = 0.3  # of the characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What a recording tells: the last boot's verdict, the first lines of its stages, how the boots before ended."""

    verdict: Verdict
    lines: tuple[Line, ...]
    earlier: tuple[Verdict, ...]
    boots: int

    def to_json(self) -> dict[str, object]:
        """Return the verdict with `boots` and `earlier`, as `vmtests explain --json` prints it."""
        return {
            **self.verdict.to_json(),
            "boots": self.boots,
            "earlier": [{"verdict": v.word, "stage": str(v.stage), "sentence": v.sentence} for v in self.earlier],
        }


class Replay:
    """Takes a recording piece by piece; `explanation` may be asked for at any time."""

    def __init__(self, *, knowledge: Knowledge | None = None, ready: re.Pattern[str] | None = None) -> None:
        self._knowledge, self._ready = knowledge, ready
        self._scanner = Scanner()
        self._undress = Undress()
        self._earlier: deque[Verdict] = deque(maxlen=_EARLIER)
        self._boots = 0
        self._seen = self._odd = 0
        self._fed = self._counted = 0
        self._grown = 0.0
        self._restarts = self._plans = 0  # in a row, of boots that did not get ready; those that were planned
        self._crashed: tuple[Verdict, Attempt, list[Line], float, int, int] | None = None
        self._begin()

    def _begin(self) -> None:
        self._boots += 1
        self._introduced = False
        self._t = 0.0
        self._clock: datetime | None = None
        self._heads: list[Line] = []
        self._attempt = Attempt(
            Timeline(boot=self._boots),
            Budgets(),
            lambda: 1.0,
            ANY_RUN,
            knowledge=self._knowledge,
            ready=self._ready,
        )

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self._fed += len(data)
        self._take(line for scanned in self._scanner.feed(data) for line in self._undress.feed(scanned.text))

    def finish(self) -> Explanation:
        """Take the end of the recording, and return what it tells."""
        rest = [line for scanned in self._scanner.finish() for line in self._undress.feed(scanned.text)]
        self._take([*rest, *self._undress.finish()])
        verdict = self._attempt.finish(self._t)
        lines = tuple(self._heads)
        if verdict.unknown and self._earlier and self._attempt.stage.before(Stage.KERNEL):
            # The machine goes round: what is shown of the last boot is its firmware only.
            before = self._earlier[-1]
            if before.word == "failed":
                self._earlier.pop()
                verdict = replace(before, sentence=f"{before.sentence}; then the machine restarted")
        if verdict.unknown and self._restarts - self._plans >= LOOP_RESETS:
            failed = [one for one in [*self._earlier][-self._restarts :] if one.word == "failed"][-1:]
            verdict = replace(
                verdict,
                unknown=False,
                cause=BOOT_LOOP.cause,
                owner=BOOT_LOOP.owner,
                sentence=": ".join(
                    [BOOT_LOOP.sentence.format(count=self._restarts), *(one.sentence for one in failed)]
                ),
                evidence=failed[0].evidence if failed else verdict.evidence,
                hint=failed[0].hint if failed else BOOT_LOOP.hint,
            )
        if self._seen and self._odd > _BINARY * self._seen:
            verdict = replace(
                verdict,
                ready=False,
                unknown=True,
                cause=None,
                owner=None,
                sentence="cannot tell: this is no text of a console",
                hint="give the serial console's log itself: text, or text packed with gzip",
                evidence=(),
            )
        return Explanation(verdict=verdict, lines=lines, earlier=tuple(self._earlier), boots=self._boots)

    def decided(self, seconds: float) -> Explanation | None:
        """Return what is decided of a recording that still grows, `seconds` after it was first looked at."""
        self._take(self._undress.finish())
        attempt = self._attempt
        if self._fed != self._counted:
            self._counted, self._grown = self._fed, seconds
        quiet = seconds - self._grown
        if (partial := self._scanner.partial) and quiet > 0:
            attempt.prompt(self._undress.bare(partial), self._t)
        attempt.tick(self._t + quiet, budget=True)
        if attempt.verdict is None:
            return None
        return Explanation(
            verdict=attempt.verdict, lines=tuple(self._heads), earlier=tuple(self._earlier), boots=self._boots
        )

    def _take(self, lines: Iterable[tuple[str, datetime | None]]) -> None:
        for whole, clock in lines:
            self._seen += len(whole)
            self._odd += whole.count("\ufffd")
            for text in torn(whole):
                self._line(text, clock)

    def _line(self, text: str, clock: datetime | None) -> None:
        normal = normalise(text)
        attempt = self._attempt
        introduced = introduces(normal)
        again = introduced and self._introduced
        if not attempt.quoting and (again or restarted(attempt.stage, normal, ended=attempt.suspicious)):
            ended = attempt.finish(self._t)
            self._crashed = (ended, attempt, self._heads, self._t, self._restarts, self._plans)
            was_ready = attempt.verdict is not None and attempt.verdict.ready
            self._plans = 0 if was_ready else min(self._plans + attempt.planned, PLANS)
            self._restarts = 0 if was_ready else self._restarts + 1
            if self._boots < BOOTS or not ended.unknown:  # of many, not all were looked at
                self._earlier.append(ended)
            self._begin()
            attempt = self._attempt
        elif self._crashed is not None and dumps(normal):
            # What was begun is no boot, but the end of the one before.
            ended, self._attempt, self._heads, self._t, self._restarts, self._plans = self._crashed
            self._boots, self._crashed = self._boots - 1, None
            if self._earlier and self._earlier[-1] is ended:
                self._earlier.pop()
            return
        self._introduced |= introduced
        if normal.stamp is not None:
            self._t = max(self._t, normal.stamp)
        elif clock is not None:
            self._clock = self._clock or clock
            self._t = max(self._t, (clock - self._clock).total_seconds())
        line = attempt.line(normal, text, self._t)
        if line is not None and sum(head.stage is line.stage for head in self._heads) < _HEADS:
            self._heads.append(line)


def explain(
    chunks: Iterable[bytes], *, knowledge: Knowledge | None = None, ready: re.Pattern[str] | None = None
) -> Explanation:
    """Judge a recording; what is neither near its ends nor a line that anybody knows is passed over."""
    replay = Replay(knowledge=knowledge, ready=ready)
    seen = Skim(chunks, ready)
    for chunk in _text(seen):
        replay.feed(chunk)
    told = replay.finish()
    return replace(told, boots=told.boots + seen.boots)


def _text(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a recording as UTF-8, and escapes that a collector spelled as what they were."""
    for chunk in chunks:
        if b"[" in chunk:
            for spelled in (b"^[[", b"#033[", b"\\x1b[", b"\\u001b[", b"\\033[", b"\\e["):
                if spelled in chunk:
                    chunk = chunk.replace(spelled, b"\x1b[")
        yield chunk
