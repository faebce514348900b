"""One boot from power-on to its verdict: no clock, no lock, no files; times are seconds since power-on."""

import re
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from vmtests.boot.budgets import QUOTED, Budgets, over
from vmtests.boot.console import Line
from vmtests.boot.course import BARE, FRAME, LOGIN_PROMPT, SHELL_PROMPT, SHOWS, Course
from vmtests.boot.explain import Knowledge
from vmtests.boot.hang import PATIENCE, Opinion
from vmtests.boot.jobs import JOBS_LIMIT, JOBS_NAMED, Jobs
from vmtests.boot.judge import Judge
from vmtests.boot.machine_rules import FIRMWARE_SPOKE, SILENCES
from vmtests.boot.readiness import Readiness
from vmtests.boot.stages import NormalLine, Stage, normalise
from vmtests.boot.timeline import Timeline
from vmtests.boot.verdict import STARVED, Cause, Evidence, Verdict
from vmtests.boot.waits import Waits, remaining, waited_for
from vmtests.contract import ANY
from vmtests.errors import Owner
from vmtests.machine.events import MachineEvent
from vmtests.text import TEXT_LIMIT

# A menu that repaints its clock gets on by nothing. (An address of PCI, or a MAC, is no time.)
_CLOCK = re.compile(r"(?<![\w:.])\d{1,2}:\d{2}(?::\d{2})?(?![\w:.])")
_REMEMBERED = 64  # lines; what was printed lately is no progress when it comes again
_WRAPS = re.compile(r"error: .{0,400}[^.!]$")
_WRAPPED = 400  # characters of a line that a loader wrapped
_TIMED = frozenset({Cause.DEVICE_TIMEOUT, Cause.KERNEL_HANG, Cause.NO_PROGRESS, Cause.QEMU_SILENT})
_TIMED_OUT = re.compile(r"\[ {0,2}TIME {0,2}\] Timed out ")
_LATE = 0.5  # of a boot's time: it took twice as long; what a guest waits for has several times of what it needs


class Attempt:
    """What is known of one boot; `load` is asked when a budget is about to end (see budgets.load_factor).

    `token` and `ready` are those of `readiness.Readiness`.

    `knowledge` is what is known of the image: a device that it does not have is not waited for, and a verdict says
    what inspection says.

    Where somebody examines the guest, the end of a budget is no verdict yet: `stuck` is the stage then, until
    `conclude` is called.

    `late` tells for how many seconds in all the machine could have run and got no processor of the host: what came too
    late in such a boot is not the image's fault.
    """

    def __init__(
        self,
        timeline: Timeline,
        budgets: Budgets,
        load: Callable[[], float],
        token: str = "",
        knowledge: Knowledge | None = None,
        late: Callable[[], float] = float,
        ready: re.Pattern[str] | None = None,
    ) -> None:
        self._late = late
        self._late_before = late()
        self._token = token
        unit = ANY.units.ready if knowledge is None else knowledge.ready_unit
        self._readiness = Readiness(token, ready, budgets.settle_seconds, unit)
        self._knowledge = knowledge
        self._waits = Waits(knowledge)
        self._examinations = 0
        self._stuck_at = 0.0
        self.stuck: Stage | None = None
        self.provoked = False
        self.quoting = False
        """Whether a shell shows a log: what is printed is not this boot's."""
        self.timeline = timeline
        self.verdict: Verdict | None = None
        self.failure_after_ready: Verdict | None = None
        self.last_line: Line | None = None
        self._budgets = budgets
        self._load = load
        self._load_seen = 1.0
        self._judge = Judge()
        self._jobs = Jobs()
        self._course = Course()
        self._open = ""
        self._managed = self._status = self._bare = False
        self.planned = False  # whether a restart was said to come
        self._recent: deque[str] = deque(maxlen=_REMEMBERED)
        self._waits_for = ""
        self._waited: dict[str, float] = {}  # what systemd said that it waits for since the guest got on, and when
        self._waits_until = 0.0  # when the last of it ends by itself
        self._last_output = self._last_progress = 0.0

    @property
    def stage(self) -> Stage:
        """The stage the boot is in."""
        return self.timeline.stage

    @property
    def may_restart(self) -> bool:
        """Whether a restart can be part of a good boot: firmware takes on settings by it, a guest may say it will."""
        known = self._knowledge is not None and self._knowledge.explains(self.stage, Cause.UNEXPECTED_RESET)
        return self.planned or (self.stage.before(Stage.KERNEL) and not (self.suspicious or known))

    @property
    def failure(self) -> Verdict | None:
        """The failure of this boot, before or after it was ready."""
        if self.verdict is not None and not self.verdict.ready:
            return self.verdict
        return self.failure_after_ready

    @property
    def suspicious(self) -> bool:
        """Whether something was found that ends the boot, and its grace runs."""
        return self._judge.deadline is not None

    def line(self, normal: NormalLine, text: str, t: float) -> Line | None:
        """Take a line of the console; returns it with its stage, None for the repaint of a known spinner."""
        if normal.stamp is None or not self._readiness.prompted:  # drivers have something to say at any time
            self._last_output = t
        if normal.spinner:
            return self._spinner(normal, text, t)
        self._quotes(text)
        if self.verdict is None and not self.quoting:
            self._advance(normal, t)
        if self.failure is None and not self.provoked and not self.quoting:
            self._judged(normal, text, t)
        stage = self.stage
        line = Line(t=t, text=text, stage=stage)
        if not self.provoked and not FRAME.fullmatch(text):
            self.last_line = line
        said = _CLOCK.sub("", normal.text)
        if said not in self._recent:
            self._recent.append(said)
            self.progress(t)
            if not self.provoked:  # systemd says it again within seconds, unless a getty has the console by then
                self._wait_ends()
        if self.verdict is None:
            self._waits.line(normal.text, stage)
            self._jobs.line(normal.text)
            self.timeline.units.line(normal.text, t, stage)
            self._look_for_target(normal, line)
            self._look_for_shell(normal, line)
        return line

    def _quotes(self, text: str) -> None:
        if self.stage.before(Stage.USERSPACE):
            return
        if SHOWS.match(text):
            self.quoting = True
        elif self.quoting and (SHELL_PROMPT.match(text) or LOGIN_PROMPT.match(text)):
            self.quoting = False

    def _judged(self, normal: NormalLine, text: str, t: float) -> None:
        current = self.stage
        self._judge.hands_over = self._course.hands_over
        late = (current is Stage.KERNEL or self._course.headless) and self.verdict is None
        stage = self._judge.line(normal, text, t, current, late=late)
        if normal.stamp is None and self._open:
            # What one writer began and another tore, or a loader wrapped at the end of its screen.
            whole = self._open + ("" if "`" in self._open or self._open.endswith(": ") else " ") + normal.text
            self._open = ""
            self._judge.line(normalise(whole), whole, t, current, late=late)
            if stage.before(Stage.KERNEL) and "error: " in whole and whole[-1] not in ".!" and len(whole) < _WRAPPED:
                self._open = whole
        elif normal.stamp is None and (text.endswith(": ") or _WRAPS.match(normal.text)):
            self._open = text if text.endswith(": ") else normal.text
        if self.verdict is None and current.before(stage):
            self.timeline.enter(stage, t)

    def _look_for_target(self, normal: NormalLine, line: Line, *, whole: bool = True) -> None:
        bare = bool(BARE.match(normal.text))
        if self._bare and (whole or not bare):
            self._bare = False
            self._readiness.retract()  # it was no prompt, or somebody typed
        heard, stage = self._readiness.hear(line), line.stage
        if heard not in (None, Stage.READY) and stage.before(heard):  # the system is quiet, or too busy
            self._enter(heard, line.t)
        failing = self.suspicious or self._judge.failing
        shell = not self._judge.rescuing and self._course.shell(stage, normal.text, failing) and not (bare and whole)
        if heard is None and self._readiness.asks(normal, shell=shell):
            self._bare = bare
            self._up(line, getty=True)

    def _look_for_shell(self, normal: NormalLine, line: Line, *, whole: bool = True) -> None:
        if (
            not self.provoked
            and not (whole and BARE.match(normal.text))
            and self._course.rescue(line.stage, normal.text)
        ):
            self._judge.shell(Evidence(t=line.t, source=line.source, text=line.text[:TEXT_LIMIT]), line.stage)

    def _up(self, line: Line, *, getty: bool) -> None:
        """Take a line that says that the system is up."""
        if self.stage.before(Stage.USERSPACE):
            self._enter(Stage.USERSPACE, line.t)
        if not self._judge.broken or not getty:
            self._judge.recovered()
        self._readiness.up(line, getty=getty, last=self._course.other_init)

    def prompt(self, text: str, t: float) -> None:
        """Take a line that has not ended yet."""
        normal = normalise(text)
        self._judge.hands_over = self._course.hands_over
        if self.failure is None:
            late = self.stage is Stage.KERNEL or self._course.headless
            self._judge.prompt(normal, text, t, self.stage, late=late and self.verdict is None)
        told = bool(self._token) and self._token in text  # the rest of that line is still to come
        if self.verdict is None and not told:
            line = Line(t=t, text=text, stage=self.stage)
            self._look_for_target(normal, line, whole=False)
            self._look_for_shell(normal, line, whole=False)

    def event(self, event: MachineEvent, t: float) -> None:
        """Take an event of the machine."""
        if self.failure is None:
            self._judge.event(event, t, self.stage)

    def progress(self, t: float) -> None:
        """Say that the guest got on."""
        if self.provoked:
            return  # it talks because it was made to
        self._last_progress = t
        self._load_seen = 1.0

    @property
    def waits_for(self) -> str:
        """What systemd said last that it waits for; empty where it said nothing."""
        return self._waits_for

    def left(self, t: float) -> float:
        """Seconds of the budget that are left at `t`."""
        return max(self._budget_end() - t, 0.0)

    def age(self, t: float) -> float:
        """Seconds since the last progress."""
        return max(t - self._last_progress, 0.0)

    def tick(self, t: float, *, budget: bool = False, examined: bool = False) -> None:
        """Give the verdict if it is time; `budget` says whether silence counts as well, `examined` whether
        somebody looks at a guest that is stuck.
        """
        if self.failure is not None:
            return
        if self._judge.deadline is not None:
            if t >= self._judge.deadline:
                self._fail(t)
        elif self.verdict is not None or self._settled(t) or not budget:
            return
        elif (whole := self._budgets.whole) is not None and t >= whole:
            self.timeline.end(t)
            self.verdict = over(self.stage, self.last_line, t, whole, self.timeline.seconds)
        elif not self.stuck and t >= self._budget_end():
            self._load_seen = max(self._load_seen, self._load())
            if examined:
                self.stuck, self._stuck_at = self.stage, t
            elif not self.left(t):
                self._stuck(t, Opinion())

    def finish(self, t: float) -> Verdict:
        """Return the verdict on a boot of which no more is to come; the end of a recording is no silence."""
        if self.failure_after_ready is None and self._judge.deadline is not None:
            self._fail(t)
        elif self.verdict is None and not self._settled(t + self._readiness.silence()):
            self.timeline.end(t)
            self.verdict = self._explained(self._ended(t))
        verdict = self.failure_after_ready or self.verdict
        assert verdict is not None
        return verdict

    def _ended(self, t: float) -> Verdict:
        stage, last = self._place, self.last_line
        if last is None:
            said = "nothing else was printed" if self._waits_for else "nothing was printed"
        else:
            said = f'the recording ends in stage {stage} behind "{last.text.strip()[:QUOTED]}"'
        if waited := waited_for(self._waits_for):
            said += f", where the boot waits for {waited[:QUOTED]}"
        silent = FIRMWARE_SPOKE if stage is Stage.FIRMWARE and not self._course.headless else SILENCES[stage].hint
        if (known := self._judge.silent(t, self.timeline.seconds, stage, said)) is not None:
            return replace(known, hint=f"{known.hint}; {silent}" if known.unknown else known.hint)
        told = f"nothing failed as far as it is shown, and {said}"
        if other := self._course.foreign:
            told = f'another system than Linux speaks ("{other[:QUOTED]}"), and {said}'
        evidence = [Evidence(t=last.t, source=last.source, text=last.text[:TEXT_LIMIT])] if last else []
        running = [*self._jobs.running][-JOBS_NAMED:]
        if running:
            evidence.append(Evidence(t=t, source="jobs", text=f"not seen to end: {', '.join(running)}"[:TEXT_LIMIT]))
        return Verdict(
            ready=False,
            stage=stage,
            cause=None,
            sentence=f"cannot tell how this boot went on: {told}",
            evidence=tuple(evidence),
            hint="only boots of Linux are known" if other else silent,
            owner=None,
            evidence_to_verdict_s=0.0,
            seconds=self.timeline.seconds,
            unknown=True,
        )

    @property
    def _place(self) -> Stage:
        """Where the boot is that was not heard from its begin: status lines are those of a system's manager."""
        return Stage.USERSPACE if self._status and self.stage.before(Stage.INITRD) else self.stage

    @property
    def moved_on(self) -> bool:
        """Whether the guest got on since it was called stuck, or has found another end."""
        if self.failure is not None or self.suspicious or self.verdict is not None:
            return True
        return self.stage is not self.stuck or self._last_progress > self._stuck_at

    def conclude(self, opinion: Opinion, t: float) -> None:
        """Take the doctor's opinion on a guest that is `stuck`: it goes on, or this is the verdict."""
        moved_on = self.moved_on
        self.stuck, self.provoked = None, False
        # A monitor that gets no processor does not answer, either.
        unsure = opinion.cause is None or (opinion.cause is Cause.QEMU_SILENT and self._starved(t))
        if moved_on or (unsure and not opinion.idle and self.left(t)):
            return  # on a loaded host a silence means nothing yet, but what holds the guest up may be plain
        self._examinations += 1
        if opinion.moving and self._examinations < PATIENCE:
            self.progress(t)
        else:
            self._stuck(t, opinion)

    def deadline(self) -> float | None:
        """When `tick` may have something to say although nothing comes; None when it never will."""
        if self.failure is not None:
            return None
        if self._judge.deadline is not None:
            return self._judge.deadline
        if self.verdict is not None:
            return None
        ends = [] if self._budgets.whole is None else [self._budgets.whole]
        if self.stuck is None:
            ends.append(self._budget_end())
            if self._readiness.settles:
                ends.append(self._readiness.settle_end(self._last_output))
        return min(ends, default=None)

    def _spinner(self, normal: NormalLine, text: str, t: float) -> Line | None:
        if self.failure is None and (device := self._waits.spinner(text, normal.text, self.stage)) is not None:
            self._judge.absent(device, Evidence(t=t, source="console", text=text), self.stage)
        if self.verdict is None and self._course.take(self.stage, normal).stage is Stage.USERSPACE:
            self._enter(Stage.USERSPACE, t)
        if left := remaining(normal.text):
            self._waits_until = max(self._waits_until, t + left)
        name, _, _ = normal.text.rpartition(" (")
        if name == self._waits_for:
            return None
        self._waits_for, self._status = name, True
        if len(self._waited) < JOBS_LIMIT:
            self._waited.setdefault(name, t)
        return Line(t=t, text=text, stage=self.stage)

    def _wait_ends(self) -> None:
        self._waits_for, self._waits_until = "", 0.0
        self._waited.clear()

    def _advance(self, normal: NormalLine, t: float) -> None:
        step = self._course.take(self.stage, normal)
        self._status |= normal.status
        self.planned |= step.restart and not (self.suspicious or self._judge.failing)
        self._judge.forget(step.forgives)
        if step.alive:
            self._judge.goes_on()
            self._judge.unpacked()
        self._managed |= not self.stage.before(Stage.USERSPACE) and normal.text.startswith("[OK] Reached target ")
        if step.stage is not None:
            # A status line of the system, where its manager's greeting was not heard.
            self._enter(step.stage, t, late=self.stage.before(Stage.INITRD) and normal.status)
        up = (step.ready or not self.stage.before(Stage.USERSPACE)) and self._readiness.open
        rescuing = self._judge.rescuing
        if up and self._readiness.reached(normal.text, any_unit=step.ready, rescuing=rescuing):
            self._up(Line(t=t, text=normal.text, stage=self.stage), getty=False)

    def _enter(self, stage: Stage, t: float, *, late: bool = False) -> None:
        self.timeline.enter(stage, t)
        self.progress(t)
        self._judge.forgive(stage, late=late)
        if stage is Stage.USERSPACE:
            self._jobs.clear()  # those of the initrd's manager
            self._wait_ends()

    def _budget_end(self) -> float:
        seconds = self._budgets.seconds(self.stage) * self._load_seen
        begin, since = self.timeline.starts[self.stage], self._last_progress
        if self.stage not in {Stage.INITRD, Stage.SWITCH_ROOT}:  # which cannot do without what they wait for
            since = max(since, self._waits_until)
        return min(since + seconds, begin + seconds * self._budgets.patience)

    def _settled(self, t: float) -> bool:
        if self._readiness.prompted and self._managed and self._judge.broken:
            return False  # a prompt, but no system to call ready
        if self._bare and self._jobs.running:
            return False
        settled = self._readiness.settled(t, self._last_output, self._jobs.running)
        if settled is None or (line := self._readiness.target) is None:
            return False
        sentence, ready_at = settled
        self.timeline.enter(Stage.READY, ready_at)
        self._judge.forgive(Stage.READY)
        target = Evidence(t=line.t, source=line.source, text=line.text)
        self.verdict = Verdict(
            ready=True,
            stage=Stage.READY,
            cause=None,
            sentence=sentence,
            evidence=(target,),
            hint="",
            owner=None,
            evidence_to_verdict_s=max(t - target.t, 0.0),
            seconds=self.timeline.seconds,
            failed_units=self._readiness.failed_units,
        )
        return True

    def _fail(self, t: float) -> None:
        self.timeline.end(t)
        failure = self._judge.verdict(t, self.timeline.seconds)
        if failure.stage is self.stage:
            failure = replace(failure, stage=self._place)
        if self.verdict is None:
            self.verdict = self._concluded(failure, t)
        else:
            self.failure_after_ready = failure

    def _stuck(self, t: float, opinion: Opinion) -> None:
        stage, age = self.stage, self.age(t)
        silence = SILENCES[stage]
        if age >= self._budgets.seconds(stage):
            sentence = f"stage {stage} made no progress for {age:.0f} s"
        else:
            sentence = f"stage {stage} did not end in {t - self.timeline.starts[stage]:.0f} s"
        self.timeline.end(t)
        for name, since in self._waited.items():
            self._judge.line(normalise(name), name, since, stage, late=True)
        known = self._judge.silent(t, self.timeline.seconds, stage, sentence)
        if opinion.cause is None and known is not None and not known.unknown:
            self.verdict = self._concluded(replace(known, evidence_to_verdict_s=age), t)
            return
        evidence = [item for clue in self._judge.clues for item in clue.evidence[-1:]]
        if (last := self.last_line) is None:
            sentence += ", and nothing was printed"
        else:
            sentence += f'; the last line, {t - last.t:.0f} s old, is "{last.text[:QUOTED]}"'
            evidence.append(Evidence(t=last.t, source=last.source, text=last.text[:QUOTED]))
        if running := [name for name in self._jobs.running if name not in self._waits_for][:JOBS_NAMED]:
            evidence.append(Evidence(t=t, source="jobs", text=f"not seen to end: {', '.join(running)}"[:QUOTED]))
        if self._waits_for:
            sentence += f"; {self._waits_for[:QUOTED]}"
        if opinion.says:
            sentence += f"; {opinion.says}"
        evidence += [Evidence(t=t, source=source, text=text) for source, text in opinion.evidence]
        # Words that nobody knows are no reason to blame anybody, nor is an init whose gettys are on other consoles.
        unheard = stage is Stage.FIRMWARE and self.last_line is not None and self._course.headless
        elsewhere = stage is Stage.USERSPACE and opinion.idle and self._course.other_init and not self._judge.clues
        unknown = (unheard or elsewhere) and not opinion.cause
        if elsewhere and unknown:
            sentence += "; it may be up, with nobody to log in on this console"
        verdict = Verdict(
            ready=False,
            stage=stage,
            cause=opinion.cause or Cause.NO_PROGRESS,
            sentence=sentence,
            evidence=tuple(dict.fromkeys(evidence)),
            hint=opinion.hint or silence.hint,
            owner=None if unknown else opinion.owner or silence.owner,
            unknown=unknown,
            evidence_to_verdict_s=age,
            seconds=self.timeline.seconds,
        )
        self.verdict = self._explained(verdict) if opinion.idle else self._concluded(verdict, t)

    def _explained(self, verdict: Verdict) -> Verdict:
        return verdict if self._knowledge is None else self._knowledge.explain(verdict)

    def _starved(self, t: float) -> bool:
        late = self._late() - self._late_before
        return late > 0 and late >= _LATE * t

    def _concluded(self, verdict: Verdict, t: float) -> Verdict:
        """Return the verdict, explained; on a boot that took too long, with the host to blame where the guest had not
        the time.
        """
        timed = verdict.cause in _TIMED or any(_TIMED_OUT.match(item.text) for item in verdict.evidence)
        accused = self._knowledge is not None and self._knowledge.accuses(verdict)
        verdict = self._explained(verdict)
        if accused or not timed or not self._starved(t):
            return verdict
        late = self._late() - self._late_before
        told = f"for {late:.0f} of {t:.0f} s the host had no processor for the machine"
        return replace(
            verdict,
            sentence=f"{verdict.sentence}; {told}",
            evidence=(*verdict.evidence, Evidence(t=t, source=STARVED, text=told)),
            hint="try again when the host has less to do, or with fewer machines at a time",
            owner=Owner.HOST,
        )
