"""The machine that a person is at, one after the other: one thread does all that is done with it."""

import contextlib
import queue
import socket
import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vmtests.boot.console import Line
from vmtests.boot.follow import Follower, Watch
from vmtests.boot.stages import Stage
from vmtests.boot.verdict import Verdict
from vmtests.cockpit.port import Act, Hands, Row, State, Taken, Told, Way
from vmtests.errors import GuestError, HostError, InputError, of_host
from vmtests.host.alongside import alongside
from vmtests.vm.vm import Vm

POINTS = tuple(stage for stage in Stage if stage not in {Stage.FIRMWARE, Stage.READY})
"""The stages at whose beginning a boot that is recorded is kept."""

_SHOWN = 5000  # lines that are kept to be shown
_KEYS = "0123456789bcdefhijklmnopqrstuvwxyz"

Begin = Callable[[Watch], AbstractContextManager[Vm]]


class _Called(Exception):  # noqa: N818 - no error: the person wants something
    """Ends a wait for the boot."""


class _Next(Exception):  # noqa: N818
    """Ends a machine, for the next one."""

    def __init__(self, begin: Begin, keep: Collection[Stage], says: str) -> None:
        super().__init__()
        self.begin, self.keep, self.says = begin, keep, says


class Session:
    """A `Cockpit` in this process, a context manager.

    The first machine boots, or goes on from `point`, where none is kept if `anew`; with `record` it is kept where each
    stage begins. With `follow` its boot is waited for here, and not by somebody else. `says` is said first; `usual`
    are seconds that stages took in earlier runs. `watch` is told of the boot too. After `stop` the last machine, `vm`,
    is its caller's until the context ends; None where it could not be made, or was left by an error, which is `error`.
    """

    def __init__(
        self,
        hands: Hands,
        results: Path,
        *,
        point: str | None = None,
        anew: bool = False,
        record: bool = False,
        usual: Mapping[Stage, float] | None = None,
        follow: bool = True,
        says: str = "",
        watch: Watch | None = None,
    ) -> None:
        self._hands = hands
        self._results = results
        self._usual = usual or {}
        self._next: _Next | None = _Next(hands.boot, POINTS if record else (), says)
        if point is not None:
            self._next = self._to(point, anew=anew)
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._stack = contextlib.ExitStack()
        self._taken = contextlib.ExitStack()
        self._follower: Follower | None = None
        self._lines: deque[Line] = deque(maxlen=_SHOWN)
        self._total = self._machine = 0
        self._last: Line | None = None
        self._keep: set[Stage] = set()
        self._stopping, self._follows = False, follow
        self._also = watch
        self._broken: Exception | None = None
        self._decided = threading.Event()
        self._busy = self._says = ""
        self._on = self._still = False
        self.vm: Vm | None = None
        self.error: Exception | None = None
        self._working = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            self._worked = self._working.enter_context(alongside(self._work, self._end))
        except BaseException:  # the thread may have made a machine
            self._stack.close()
            raise
        self._worked.add_done_callback(lambda _: self._decided.set())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._stack.close()

    def wait(self) -> None:
        """Wait until the boot is decided, or no machine could be made; raises what `watch` has raised."""
        self._decided.wait()
        if self._broken is not None:
            raise self._broken
        if self._worked.done():  # before anybody has told it to end
            self._worked.result()

    def stop(self) -> None:
        """Leave the machine, which goes on, to the caller."""
        self._working.close()

    def _end(self) -> None:
        self._stopping = True
        self._call(self._taken.close)

    @property
    def verdict(self) -> Verdict | None:
        """The verdict on the last machine: what happened after it was ready counts."""
        if (follower := self._follower) is None:
            return None
        return follower.failure_after_ready or follower.verdict

    # For the person, from any thread.

    def state(self, since: int, /) -> State:
        """Return what is to be shown."""
        with self._lock:
            self._pump()
            follower, new = self._follower, self._total - since
            lines = tuple(self._lines)[-new:] if new > 0 else ()
            if follower is None:
                rows = tuple(Row(stage=s, seconds=None, budget=0.0, usual=self._usual.get(s)) for s in Stage)
                boot, stage, t, left, waits, told, partial = 1, Stage.FIRMWARE, 0.0, None, "", None, ""
            else:
                pulse, boot, partial = follower.pulse, follower.boot, follower.partial[:200]
                stage, t, left, waits = pulse.stage, pulse.t, pulse.left, pulse.waits_for
                rows, told = self._rows(follower, t), _told(self.verdict)
            return State(
                title=self._hands.title,
                results=str(self._results if self.vm is None else self.vm.results),
                machine=self._machine,
                boot=boot,
                stage=stage,
                t=t,
                left=left if self._on else None,
                waits_for=waits,
                rows=rows,
                told=told,
                lines=lines,
                total=self._total,
                partial=partial,
                on=self._on,
                still=self._still,
                points=self._hands.points(),
                busy=self._busy,
                says=self._says,
            )

    def ask(self, act: Act, word: str = "", /) -> Future[str]:
        """Have the machine's thread do something."""
        return self._ask(lambda: self._do(act, word))

    def take(self, way: Way, columns: int, lines: int, /) -> Future[Taken]:
        """Take a line; the one that was taken before is given back."""
        return self._ask(lambda: self._take(way, columns, lines))

    def _ask(self, what: Callable[[], Any]) -> Future[Any]:
        answer: Future[Any] = Future()

        def do() -> None:
            try:
                answer.set_result(what())
            except _Next as change:
                answer.set_result(change.says)
                raise
            except Exception as error:  # noqa: BLE001 - whoever asked raises it
                answer.set_exception(of_host(error) or error)

        self._call(do)
        return answer

    def _call(self, do: Callable[[], None]) -> None:
        self._calls.put(do)
        if (follower := self._follower) is not None:
            follower.wake()

    def _rows(self, follower: Follower, t: float) -> tuple[Row, ...]:
        timeline, budgets, rows = follower.timeline, follower.budgets, []
        over = follower.verdict is not None
        for stage in Stage:
            seconds = timeline.seconds.get(stage)
            if stage is timeline.stage and not over:
                seconds = max(t - timeline.starts[stage], 0.0)
            rows.append(Row(stage=stage, seconds=seconds, budget=budgets.seconds(stage), usual=self._usual.get(stage)))
        return tuple(rows)

    def _pump(self) -> None:
        """Take the lines that came; with the lock held."""
        if (follower := self._follower) is None:
            return
        lines = follower.lines
        last = next((place for place in range(len(lines) - 1, -1, -1) if lines[place] is self._last), -1)
        new = lines[last + 1 :]
        self._lines.extend(new)
        self._total += len(new)
        if new:
            self._last = new[-1]

    # In the machine's thread.

    def _work(self) -> None:
        while self._next is not None and not self._stopping:
            change, self._next = self._next, None
            self._stack.close()
            try:
                self._begin(change)
                self._stay()
            except _Next as change:
                self._next = change
            except Exception as error:  # noqa: BLE001 - who waits would wait for ever
                self.error = of_host(error) or error
                self._says = str(self.error)
                self._on = False
                self._decided.set()
                self._idle()
        while not self._calls.empty():  # whoever asked is told
            with contextlib.suppress(_Next):
                self._calls.get()()

    def _begin(self, change: _Next) -> None:
        self.vm, self.error, self._on = None, None, False
        self._busy, self._keep = "the machine is made", set(change.keep)
        with self._lock:
            self._machine += 1
        try:
            self.vm = self._stack.enter_context(change.begin(self._watch))
        finally:
            self._busy = ""
        self._meet(self.vm.follower)
        if self._still:  # so will be who takes the place of a machine that stands still
            self._hands.pause(self.vm, still=True)
        self._on, self._says = True, change.says

    def _meet(self, follower: Follower) -> None:
        with self._lock:
            if self._follower is not follower:
                self._pump()
                self._follower, self._last = follower, None

    def _watch(self, follower: Follower) -> None:
        self._meet(follower)
        if self._also is not None and self._broken is None:
            try:
                self._also(follower)
            except Exception as error:  # noqa: BLE001 - a closed pipe, say: whoever waits gets it
                self._broken = error
                self._decided.set()
        if not self._calls.empty():
            raise _Called

    def _stay(self) -> None:
        """Follow the machine, and do what is asked, until somebody asks for another one."""
        while not self._stopping:
            try:
                if self._on and (self._follows or self._machine > 1):
                    self._follow()
            except _Called:
                pass
            self._calls.get()()

    def _idle(self) -> None:
        try:
            while not self._stopping:
                self._calls.get()()
        except _Next as change:
            self._next = change

    def _follow(self) -> None:
        vm = self._vm()
        while self._keep:
            stage = min(self._keep, key=lambda stage: stage.position)
            if vm.follower.wait_stage(stage):
                if self._still:  # whoever keeps it lets it go on: that has time until the person does
                    raise _Called
                self._busy = f"kept where {stage} begins"
                try:
                    kept = self._hands.keep_stage(vm, stage)
                    if not kept:
                        self._says = f"{stage} is not kept: somebody else goes on from the one that is there"
                finally:
                    self._busy = ""
            self._keep.discard(stage)
        vm.wait_verdict()
        self._meet(vm.follower)  # it may have been made anew
        self._decided.set()

    def _vm(self) -> Vm:
        if self.vm is None:
            raise GuestError("there is no machine", hint="rewind, or quit")
        return self.vm

    def _running(self) -> Vm:
        vm = self._vm()
        if not self._on:
            raise GuestError("the machine is off", hint="power it on first")
        return vm

    def _do(self, act: Act, word: str) -> str:
        self._busy = f"{act} {word}".strip()
        try:
            match act:
                case Act.SYSRQ:
                    if len(word) != 1 or word not in _KEYS:
                        raise InputError(f"{word!r} is no key of sysrq", hint="h has the kernel list them")
                    self._hands.sysrq(self._running(), word)
                    return f"sysrq {word} was sent on the console; a kernel that takes it there answers"
                case Act.PICTURE:
                    return str(self._running().screenshot())
                case Act.SNAPSHOT:
                    return f"kept: {self._hands.keep(self._running())}; rewind goes back to it"
                case Act.GDB:
                    return self._hands.gdb(self._running())
                case Act.PAUSE:
                    return self._pause()
                case Act.POWER:
                    return self._power()
                case Act.DEBUG:
                    boot = self._hands.boot
                    raise _Next(lambda watch: boot(watch, debug=True), (), "booted anew, with a shell in stage 1")
                case Act.REWIND:
                    self._rewind(word)
        finally:
            self._busy = ""
        return ""

    def _pause(self) -> str:
        vm, still = self._running(), not self._still
        self._hands.pause(vm, still=still)
        self._still = still
        return "the guest stands still; the same key lets it go on, and gdb's `continue`" if still else "it goes on"

    def _power(self) -> str:
        vm, self._still = self._vm(), False
        self._taken.close()
        if self._on:
            with contextlib.suppress(HostError):  # it may have ended by itself
                vm.power_cut()
            self._on = False
            return "the power is cut; the same key gives it back"
        vm.begin_power_on()
        self._meet(vm.follower)
        self._on = True
        return "powered on again, on the same disk"

    def _rewind(self, point: str) -> None:
        points = self._hands.points()
        if point not in points:
            raise InputError(f"{point!r} is nothing to go back to", hint=", ".join(points))
        self._taken.close()
        raise self._to(point, anew=False)

    def _to(self, point: str, *, anew: bool) -> _Next:
        """Return what begins a machine that goes on from a point, and keeps one there first if there is none."""
        if self._hands.points().get(point) and not anew:
            go_back = self._hands.go_back
            return _Next(lambda watch: go_back(point, watch), (), f"going back to {point}")
        stages = () if point == Stage.FIRMWARE else (Stage(point),)
        return _Next(self._hands.boot, stages, f"booting anew to {point}: no machine was kept there")

    def _take(self, way: Way, columns: int, lines: int) -> Taken:
        vm = self._running()
        self._taken.close()
        self._busy = f"{way} is opened"
        try:
            said = b"" if way is Way.SSH else self._hands.said(vm, way)
            with contextlib.ExitStack() as stack:
                match way:
                    case Way.CONSOLE:
                        wire: Any = stack.enter_context(vm.line())
                    case Way.DEBUG:
                        wire = stack.enter_context(contextlib.closing(self._hands.debug_line(vm)))
                    case Way.SSH:
                        if vm.verdict is None or not vm.verdict.ready:
                            raise GuestError("ssh has to wait until the guest is ready")
                        wire = stack.enter_context(vm.ssh.shell(columns, lines))
                if isinstance(wire, socket.socket):
                    wire.settimeout(None)
                    stack.callback(_shut, wire)  # before it is closed: somebody reads it
                self._taken = stack.pop_all()
        finally:
            self._busy = ""
        mine = self._taken
        return Taken(said=said, wire=wire, give_back=lambda: self._call(mine.close))


def _shut(wire: socket.socket) -> None:
    with contextlib.suppress(OSError):
        wire.shutdown(socket.SHUT_RDWR)


def _told(verdict: Verdict | None) -> Told | None:
    if verdict is None:
        return None
    evidence = tuple(f"{e.t:.2f} {e.source}: {e.text}" for e in verdict.evidence if not e.context)
    return Told(word=verdict.word, sentence=verdict.sentence, hint=verdict.hint, evidence=evidence)
