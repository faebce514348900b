"""Following a machine: bytes and events in, stages and a verdict out.

Reader threads push what the machine gives; whoever wants to know waits on one condition, and a failure ends
every wait at once. Nothing here knows what kind of machine it is.
"""

import re
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from vmtests.boot.attempt import Attempt
from vmtests.boot.budgets import Budgets, load_factor
from vmtests.boot.clock import Clock, SystemClock
from vmtests.boot.console import ConsoleLog, Line
from vmtests.boot.course import restarted
from vmtests.boot.explain import Knowledge
from vmtests.boot.hang import Doctor, Opinion
from vmtests.boot.machine_rules import LOOP_RESETS, PLANS
from vmtests.boot.past import Past
from vmtests.boot.pulse import Pulse
from vmtests.boot.scanner import ScannedLine, Scanner
from vmtests.boot.stages import Stage, normalise, torn
from vmtests.boot.timeline import Timeline
from vmtests.boot.verdict import Verdict, keep
from vmtests.boot.waiter import Waiter
from vmtests.errors import GuestError, VmtestsError
from vmtests.machine.events import HELD, RESET, SHUTDOWN, STOP, MachineEvent

SLICE = 65536
"""Bytes that are scanned under one hold of the lock."""

HEARTBEAT = 1.0
"""Seconds between two calls of a `Watch` while nothing comes."""

Watch = Callable[["Follower"], None]
"""Called in the thread that waits for a boot, whenever something has happened, and every HEARTBEAT seconds."""

_PROMPT_LIMIT = 200  # bytes; a longer line without newline is no prompt
_EVENTS = 100
_LEAST_WAIT = 0.001  # seconds; a rounding error must not make a busy loop

Found = TypeVar("Found")


class Follower:
    """Follows one machine, boot after boot.

    `results` is the directory of the logs (see ConsoleLog; `name` tells machines apart that share it). `power_on` is
    the time of power-on on `clock`; None counts from the first byte. With `expect_reset` a restart is a new boot, no
    failure. `load` is sampled when a budget is about to end. A line with `ready_token` comes from a guest that has no
    job left. `knowledge` is what is known of the image. `doctor` is asked about a guest that made no progress for its
    budget, before that is a verdict. `late` tells for how many seconds in all the machine could have run and got no
    processor of the host. `on_failure` is told at once when a guest fails that had been ready; it must not wait. With
    `past` the machine goes on from where another was kept, and so do its seconds.

    `feed`, `feed_firmware` and `event` may be called from any thread and never wait for the guest or for those who
    wait. Raises HostError when the logs cannot be made.
    """

    def __init__(
        self,
        results: Path,
        *,
        clock: Clock | None = None,
        budgets: Budgets | None = None,
        expect_reset: bool = False,
        name: str = "",
        power_on: float | None = None,
        load: Callable[[], float] = load_factor,
        watch: Watch | None = None,
        ready_token: str = "",
        knowledge: Knowledge | None = None,
        past: Past | None = None,
        doctor: Doctor | None = None,
        late: Callable[[], float] = float,
        on_failure: Callable[[], None] | None = None,
    ) -> None:
        self._watch = watch
        self._doctor = doctor
        self._late = late
        self._on_failure = on_failure
        self._alarm = threading.Timer(0.0, tuple)  # never started
        self._in_examination = False
        self._ready_token = ready_token
        self._knowledge = knowledge
        self._clock = clock or SystemClock()
        self._budgets = budgets or Budgets()
        self._expect_reset = expect_reset
        self._load = load
        self._results = results
        self._prefix = f"{name}." if name else ""
        self._log = ConsoleLog(results, name)
        self._changed = threading.Condition()
        self._waiters: list[Waiter] = []
        self._events: deque[MachineEvent] = deque(maxlen=_EVENTS)
        self._scanner = Scanner()
        self._restarts = self._plans = 0
        self._held: float | None  # since when the guest does not run, and its time stands still
        self._leaving = False  # whether a guest that was told to reboot still talks of going down, its kernel too
        self._ending = False
        self._boot = self._log.next_boot
        if past is None:
            self._begin(power_on, "power-on")
        else:
            self._go_on(past)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take what is left of the last line, write the timeline and close the logs."""
        self._alarm.cancel()
        with self._changed:
            self._tick()
            self._finish_lines()
            self._tick()
            self._write_timeline()
            self._log.close()
            self._changed.notify_all()

    def feed(self, data: bytes) -> None:
        """Take bytes of the console."""
        for start in range(0, len(data), SLICE):
            with self._changed:
                self._feed(data[start : start + SLICE])
                self._changed.notify_all()

    def feed_firmware(self, data: bytes) -> None:
        """Take bytes of the firmware's debug port, which show that it lives; few builds of OVMF write there."""
        for start in range(0, len(data), SLICE):
            part = data[start : start + SLICE]
            with self._changed:
                self._tick()
                now = self._now(first_byte=True)
                self._log.firmware(part)
                if self._attempt.stage.before(Stage.KERNEL):
                    self._attempt.progress(now)
                self._logged([])
                self._tick()
                self._changed.notify_all()

    def event(self, event: MachineEvent) -> None:
        """Take an event of the machine."""
        with self._changed:
            self._tick()
            self._hold(event)
            self._note(event)
            if event.name == RESET:
                self._finish_lines()
                self._reset(event)
            elif event.name == SHUTDOWN and self._expect_reset and event.detail.get("reason") == "guest-reset":
                self._ending |= not self._attempt.suspicious
            if event.name != RESET and not self._ending:
                self._attempt.event(event, self._now())
            self._tick()
            self._changed.notify_all()

    def new_boot(self, reason: str) -> None:
        """Begin another boot, which a test asked for: new timeline and verdict, same files.

        To be called before the guest is told to reboot, or when its new process was started.
        """
        with self._changed:
            self._restarts, self._plans = -1, 0  # that of a reboot is still to come, and is no failure
            self._leaving = reason == "reboot"
            self._next_boot(self._clock.monotonic(), reason)
            self._changed.notify_all()

    def expect_end(self) -> None:
        """Say that the machine is switched off on purpose: no event is a failure until `new_boot`."""
        with self._changed:
            self._ending = True

    @property
    def verdict(self) -> Verdict | None:
        """The verdict on this boot; None until it is known. A failure after ready does not change it."""
        with self._changed:
            self._tick()
            return self._attempt.verdict

    def amend(self, verdict: Verdict) -> None:
        """Put a verdict that knows more in the place of this boot's."""
        with self._changed:
            self._attempt.verdict = verdict
            self._write_timeline()

    @property
    def failure_after_ready(self) -> Verdict | None:
        """What happened to a guest that had been ready."""
        with self._changed:
            self._tick()
            return self._attempt.failure_after_ready

    @property
    def stage(self) -> Stage:
        """The stage the boot is in."""
        with self._changed:
            return self._attempt.stage

    @property
    def timeline(self) -> Timeline:
        """The timeline of this boot."""
        with self._changed:
            return self._attempt.timeline

    @property
    def pulse(self) -> Pulse:
        """Where the boot is just now; as text it is one line."""
        with self._changed:
            attempt, now = self._attempt, self._now()
            left, waits = None if attempt.verdict is not None else attempt.left(now), attempt.waits_for[:120]
            return Pulse(stage=attempt.stage, t=now, last=attempt.last_line, waits_for=waits, left=left)

    @property
    def budgets(self) -> Budgets:
        """How long each stage may be silent."""
        return self._budgets

    def wake(self) -> None:
        """Have the watch called now, in the thread that waits for this boot."""
        with self._changed:
            self._changed.notify_all()

    @property
    def boot(self) -> int:
        """The number of this boot in the logs, from 1."""
        return self._boot

    @property
    def lines(self) -> tuple[Line, ...]:
        """The last lines of the console, over all boots."""
        with self._changed:
            return self._log.lines

    @property
    def partial(self) -> str:
        """The line that has not ended yet, such as a prompt."""
        with self._changed:
            return self._scanner.partial

    @property
    def events(self) -> tuple[MachineEvent, ...]:
        """The last events of the machine; `LOG_CUT` says that a log could not be written any more."""
        with self._changed:
            return tuple(self._events)

    def wait_verdict(self) -> Verdict:
        """Wait for the verdict; that a stage made no progress for its budget is one, too."""
        return self._wait_for(lambda attempt: attempt.verdict)

    def wait_stage(self, stage: Stage) -> bool:
        """Wait until the boot is in `stage` or beyond; False when it has its verdict and never got there."""
        self._wait_for(lambda attempt: attempt.verdict or not attempt.stage.before(stage) or None)
        return not self.stage.before(stage)

    def wait_line(self, regex: str | re.Pattern[str], timeout: float) -> Line:
        """Return the first line in which `regex` is found, of the unfinished one and all that come.

        Raises GuestError when the boot fails, or the guest fails after it was ready, or `timeout` seconds
        passed.
        """
        waiter = Waiter(re.compile(regex))
        with self._changed:
            end = self._now() + timeout
            boot = self._boot
            self._waiters.append(waiter)
            if partial := self._scanner.partial:
                waiter.look(Line(t=self._now(), text=partial, stage=self._attempt.stage))
        try:
            while True:
                with self._changed:
                    self._tick(budget=True)
                    if waiter.found is not None:
                        return waiter.found
                    if (failure := self._attempt.failure) is not None:
                        raise GuestError(failure.sentence, hint=failure.hint)
                    if boot != self._boot:
                        boot, end = self._boot, self._now() + timeout
                    if self._now() >= end:
                        raise GuestError(
                            f"no line with {waiter.pattern.pattern!r} came in {timeout:g} s; {self.pulse.last_words}",
                            hint=f"the console is in {self._results}",
                        )
                    deadline = self._attempt.deadline()
                    if not (stuck := self._stuck()):
                        self._wait(end if deadline is None else min(deadline, end))
                self._examine() if stuck else self._heartbeat()
        finally:
            with self._changed:
                self._waiters.remove(waiter)

    # What follows is called without the lock.

    def _wait_for(self, found: Callable[[Attempt], Found | None]) -> Found:
        while True:
            with self._changed:
                self._tick(budget=True)
                if (what := found(self._attempt)) is not None:
                    return what
                if not (stuck := self._stuck()):
                    self._wait(self._attempt.deadline())
            self._examine() if stuck else self._heartbeat()

    def _examine(self) -> None:
        """Ask the doctor about a guest that is stuck: first what can be seen, then what it says for itself."""
        doctor, attempt = self._doctor, self._attempt
        assert doctor is not None
        opinion = Opinion()
        try:
            opinion = doctor.look(attempt.stage)
            if opinion.moving or opinion.cause is not None:
                return
            with self._changed:
                if attempt.moved_on or (attempt.left(self._now()) and not opinion.idle):
                    return
                attempt.provoked, since = True, self._now()
            told = doctor.provoke(lambda: [normalise(line.text).text for line in self.lines if line.t > since])
            opinion = opinion.followed_by(told)
        except VmtestsError as error:
            opinion = opinion.followed_by(Opinion(evidence=(("doctor", error.message),)))
        finally:
            with self._changed:
                self._in_examination = False
                attempt.conclude(opinion, self._now())
                self._tick()
                self._changed.notify_all()

    # What follows is called with the lock held, except _heartbeat.

    def _stuck(self) -> bool:
        """Whether this thread has to have the guest examined: one does, and the others wait."""
        if self._attempt.stuck is None or self._in_examination:
            return False
        self._in_examination = True
        return True

    def _begin(self, power_on: float | None, reason: str) -> None:
        self._ending = False
        self._start_clock(power_on)
        text = f"boot {self._boot}: {reason}"
        self._logged([Line(t=0.0, text=text, stage=Stage.FIRMWARE, source="event")])

    def _go_on(self, past: Past) -> None:
        if past.logged:
            self._boot -= 1
        # The verdict may have come before the last lines.
        ended = max([past.ended, *(line.t for line in past.lines[-1:])])
        self._start_clock(self._clock.monotonic() - ended)
        if past.verdict is None:
            # What was said before is known to the judge, and whoever waits for it.
            for line in past.lines:
                self._attempt.line(normalise(line.text), line.text, line.t)
        self._attempt.timeline = past.timeline(self._boot)
        self._attempt.verdict = past.verdict
        if past.logged:
            self._log.remember(past.lines)
        else:
            self._logged(list(past.lines))
        text = f"boot {self._boot}: goes on from where it was kept"
        self._logged([Line(t=ended, text=text, stage=self._attempt.stage, source="event")])
        self._write_timeline()

    def _next_boot(self, power_on: float, reason: str) -> None:
        self._finish_lines()
        self._write_timeline()
        self._boot += 1
        self._begin(power_on, reason)

    def _start_clock(self, power_on: float | None) -> None:
        self._zero = self._clock.monotonic() if power_on is None else power_on
        self._zero_known, self._held = power_on is not None, None
        timeline = Timeline(boot=self._boot, started=self._clock.wall())
        self._attempt = Attempt(timeline, self._budgets, self._load, self._ready_token, self._knowledge, self._late)
        self._partial_seen = ""

    def _hold(self, event: MachineEvent | None) -> None:
        """Let no time pass for a guest that somebody has stopped: a debugger, or who keeps the machine."""
        if event is not None and event.name == STOP and event.detail.get("status") in HELD:
            self._held = self._held or self._clock.monotonic()
        elif self._held is not None and (event is None or event.name != STOP):
            self._zero += self._clock.monotonic() - self._held
            self._held = None

    def _now(self, *, first_byte: bool = False) -> float:
        now = self._held or self._clock.monotonic()
        if first_byte and not self._zero_known:
            self._zero, self._zero_known = now, True
        return max(now - self._zero, 0.0)

    def _feed(self, part: bytes) -> None:
        self._hold(None)
        self._tick()
        now = self._now(first_byte=True)
        self._log.raw(part)
        self._take(self._scanner.feed(part), now)
        partial = self._scanner.partial if self._scanner.partial_size <= _PROMPT_LIMIT else ""
        if partial != self._partial_seen:
            self._partial_seen = partial
            self._attempt.prompt(partial, self._now())
            line = Line(t=self._now(), text=partial, stage=self._attempt.stage)
            for waiter in self._waiters if partial else ():
                waiter.look(line)
        self._tick()

    def _finish_lines(self) -> None:
        self._take(self._scanner.finish(), self._now())

    def _take(self, scanned: list[ScannedLine], now: float) -> None:
        lines = []
        for text in (part for item in scanned for part in torn(item.text)):
            normal = normalise(text)
            if not self._attempt.quoting and restarted(self._attempt.stage, normal):
                self._reset(MachineEvent(name=RESET, detail={"seen": "console"}, t=self._clock.monotonic()))
                now = self._now()
            if (line := self._attempt.line(normal, text, now)) is not None:
                lines.append(line)
                for waiter in self._waiters:
                    waiter.look(line)
        self._logged(lines)

    def _reset(self, event: MachineEvent) -> None:
        attempt = self._attempt
        if self._ending or attempt.failure is not None:
            return
        leaving, self._leaving = self._leaving, False
        early = leaving or attempt.may_restart
        if not (early or self._expect_reset) or (attempt.suspicious and not leaving):
            attempt.event(event, self._now())
            return
        self._plans = min(self._plans + attempt.planned, PLANS)
        self._restarts = 0 if attempt.verdict is not None else self._restarts + 1
        if self._restarts - self._plans >= LOOP_RESETS:
            attempt.event(MachineEvent(name="BOOT_LOOP", detail={"count": self._restarts}, t=event.t), self._now())
        elif early:
            self._start_clock(event.t)  # and a reboot that was asked for begins here
        else:
            self._next_boot(event.t, "reset")

    def _note(self, event: MachineEvent) -> None:
        self._events.append(event)
        self._logged([Line(t=self._now(), text=event.text, stage=self._attempt.stage, source="event")])

    def _logged(self, lines: list[Line]) -> None:
        self._log.add(lines, self._boot)
        while (error := self._log.take_error()) is not None:
            self._cut(error)

    def _cut(self, error: str) -> None:
        self._events.append(MachineEvent(name="LOG_CUT", detail={"error": error}, t=self._clock.monotonic()))

    def _tick(self, *, budget: bool = False) -> None:
        before = (self._attempt.verdict, self._attempt.failure_after_ready)
        self._attempt.tick(self._now(), budget=budget, examined=self._doctor is not None)
        if before != (self._attempt.verdict, self._attempt.failure_after_ready):
            self._write_timeline()
            self._changed.notify_all()
        if self._on_failure is not None and self._attempt.verdict is not None:
            self._watch_for_failure(self._on_failure, known=before[1] is not None)

    def _watch_for_failure(self, tell: Callable[[], None], *, known: bool) -> None:
        """Tell of a guest's failure after it was ready, also where nothing more is heard of it."""
        if self._attempt.failure_after_ready is not None:
            if not known:
                tell()
        elif (deadline := self._attempt.deadline()) is not None and not self._alarm.is_alive():
            self._alarm = threading.Timer(max(deadline - self._now(), 0.0), lambda: self.failure_after_ready)
            self._alarm.daemon = True
            self._alarm.start()

    def _write_timeline(self) -> None:
        name = "timeline.json" if self._boot == 1 else f"timeline-{self._boot}.json"
        try:
            self._attempt.timeline.write(self._results / f"{self._prefix}{name}")
            if self._attempt.verdict is not None:
                keep(self._results / f"{self._prefix}{name.replace('timeline', 'verdict')}", self._attempt.verdict)
        except VmtestsError as error:
            self._cut(error.message)

    def _wait(self, deadline: float | None) -> None:
        timeout = None if deadline is None else max(deadline - self._now(), _LEAST_WAIT)
        if self._watch is not None or self._held is not None:
            timeout = HEARTBEAT if timeout is None or self._held else min(timeout, HEARTBEAT)
        self._clock.wait(self._changed, timeout)

    def _heartbeat(self) -> None:
        if self._watch is not None:
            self._watch(self)
