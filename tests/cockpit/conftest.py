"""Machines for the cockpit: fake ones, whose console says what a test has them say, at the clock's own time."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

import pytest

from vmtests.boot.follow import Follower, Watch
from vmtests.boot.stages import Stage
from vmtests.cockpit.port import Way, Wire
from vmtests.cockpit.session import Session
from vmtests.errors import HostError
from vmtests.testing import FakeVm, ManualClock, recording
from vmtests.testing.consoles import READY_TOKEN
from vmtests.vm.vm import Vm


class TypedVm(FakeVm):
    """A fake machine that says what it is told to, and whose lines can be taken: `guest_end` has what was typed."""

    def __init__(self, results: Path, watch: Watch) -> None:
        results.mkdir(parents=True, exist_ok=True)
        super().__init__(results=results)
        self._watch = watch
        self.ended = threading.Event()
        self.guest_end = socket.socket()
        self.pictures = 0

    def __enter__(self) -> Self:
        self.follower = self._stack.enter_context(
            Follower(self.results, power_on=time.monotonic(), ready_token=READY_TOKEN, watch=self._watch)
        )
        self._on = True
        return self

    def _boot(self) -> None:
        self._on = True

    def say(self, data: bytes) -> None:
        """Write on the console."""
        self.follower.feed(data)

    @contextlib.contextmanager
    def line(self) -> Iterator[socket.socket]:
        """Give the serial line."""
        self.guest_end.close()
        ours, self.guest_end = socket.socketpair()
        self.guest_end.settimeout(10)
        with ours:
            yield ours

    def screenshot(self) -> Path:
        """Take a picture."""
        self.pictures += 1
        return self.results / f"screenshot-{self.pictures}.png"

    def close(self) -> None:
        """End."""
        super().close()
        self.guest_end.close()
        self.ended.set()


class TypedHands:
    """Makes such machines, and remembers what was asked for."""

    title = "reference · tcg (test)"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.vms: list[TypedVm] = []
        self.made = threading.Semaphore(0)
        self.asked: list[tuple[str, ...]] = []
        self.kept: dict[str, bool] = {str(stage): False for stage in Stage}
        self.fails: str = ""

    @contextlib.contextmanager
    def boot(self, watch: Watch, /, *, debug: bool = False) -> Iterator[Vm]:
        """Give one."""
        if self.fails:
            raise HostError(self.fails)
        self.asked.append(("boot", *(["debug"] if debug else [])))
        vm = TypedVm(self._directory / f"{len(self.vms) + 1}", watch)
        self.vms.append(vm)
        with vm:
            self.made.release()
            yield vm

    def points(self) -> Mapping[str, bool]:
        """Return them."""
        return dict(self.kept)

    @contextlib.contextmanager
    def go_back(self, point: str, watch: Watch, /) -> Iterator[Vm]:
        """Give one, as if it went on."""
        with self.boot(watch) as vm:
            self.asked[-1] = ("go back", point)
            yield vm

    def keep_stage(self, vm: Vm, stage: Stage, /) -> bool:
        """Keep it."""
        assert vm is self.vms[-1]
        self.asked.append(("keep", str(stage)))
        self.kept[str(stage)] = True
        return True

    def keep(self, vm: Vm, /) -> str:
        """Keep it."""
        assert vm is self.vms[-1]
        self.kept["1: here"] = True
        return "1: here"

    def sysrq(self, vm: Vm, key: str, /) -> None:
        """Send it."""
        assert vm is self.vms[-1]
        self.asked.append(("sysrq", key))

    def pause(self, vm: Vm, /, *, still: bool) -> None:
        """Stop it."""
        assert vm is self.vms[-1]
        self.asked.append(("pause", str(still)))

    def gdb(self, vm: Vm, /) -> str:
        """Return the line."""
        assert vm is self.vms[-1]
        return "gdb -ex 'target remote /run/x/gdb.sock' kernel.elf"

    def said(self, vm: Vm, way: Way, /) -> bytes:
        """Return what was said last."""
        return b"login: " if way is Way.CONSOLE else b"sh-5.2# "

    def debug_line(self, vm: Vm, /) -> Wire:
        """Return one whose other end is closed."""
        ours, theirs = socket.socketpair()
        theirs.close()
        return ours


@pytest.fixture
def hands(tmp_path: Path) -> TypedHands:
    """What makes machines."""
    return TypedHands(tmp_path)


@pytest.fixture
def session(hands: TypedHands, tmp_path: Path) -> Iterator[Session]:
    """A session whose first machine is there."""
    with Session(hands, tmp_path, usual={Stage.KERNEL: 3.25}) as session:
        assert hands.made.acquire(timeout=10)
        yield session


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[Stage, bytes]:
    """A recorded console that got ready, cut behind the line with which each stage begins."""
    found: dict[Stage, bytes] = {}
    clock = ManualClock()
    results = tmp_path_factory.mktemp("parts")
    with Follower(results, clock=clock, power_on=clock.now, ready_token=READY_TOKEN) as follower:
        for line in recording("reference-ready").console.splitlines(keepends=True):
            follower.feed(line)
            found[follower.stage] = found.get(follower.stage, b"") + line
    return found
