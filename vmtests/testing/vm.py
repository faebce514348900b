"""A machine that boots as a recorded one did, and answers what it was told to."""

import socket
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self

from vmtests.boot.follow import Follower
from vmtests.boot.verdict import Verdict
from vmtests.errors import GuestError, InputError
from vmtests.guest.agent import Agent
from vmtests.guest.guest import Guest
from vmtests.guest.keys import Key
from vmtests.guest.result import OUTPUT_LIMIT, Result
from vmtests.guest.serial import SerialShell
from vmtests.image.image import Image
from vmtests.image.inspect import Inspection
from vmtests.image.source import Format
from vmtests.testing.clock import ManualClock
from vmtests.testing.consoles import READY_TOKEN, Recording, play, recording
from vmtests.vm.vm import Vm

Answer = Callable[[str], Result | str] | Result | str
"""What a command gives: a result, its standard output, or a function that is told the command and returns one."""


class FakeVm(Vm):
    """A machine that prints a recorded console when it is powered on, and whose guest gives the answers it was told.

    `console` is a name as in `recordings()`, a `Recording`, or bytes. `answers` has what each command gives; a
    command that is not there raises LookupError. `ran` has the commands in their order. All of its time is that of
    `clock`. A context manager; `results` is a directory of its own unless one is named.
    """

    def __init__(
        self,
        console: str | bytes | Recording = "reference-ready",
        answers: Mapping[str, Answer] | None = None,
        *,
        image: Image | None = None,
        results: Path | None = None,
    ) -> None:
        self._directory = tempfile.TemporaryDirectory() if results is None else None
        results = Path(self._directory.name) if results is None and self._directory else results
        assert results is not None
        super().__init__(image or _no_image(results), results)
        self.guest = Guest(_NoWay(), Key(path=results / "none", public=""), scale=1.0)
        if isinstance(console, bytes):
            console = Recording(name="", console=console, expected={})
        self._recording = recording(console) if isinstance(console, str) else console
        self.answers = dict(answers or {})
        self.clock = ManualClock()
        self.ran: list[str] = []
        self._on = False

    @property
    def scale(self) -> float:
        """As fast as a machine with KVM."""
        return 1.0

    def __enter__(self) -> Self:
        self.follower = self._stack.enter_context(
            Follower(
                self.results,
                clock=self.clock,
                power_on=self.clock.now,
                load=lambda: 1.0,
                ready_token=READY_TOKEN,
            )
        )
        self._boot()
        return self

    def _boot(self) -> None:
        self._on = True
        play(self.follower, self._recording, self.clock)

    def close(self) -> None:
        """End it; a directory of its own is removed."""
        self._on = False
        self._stack.close()
        if self._directory is not None:
            self._directory.cleanup()

    def diagnose(self, verdict: Verdict) -> None:
        """Gather nothing: there is no machine."""

    def keep(self) -> None:
        """Keep nothing: there is no guest to tell it."""

    def run(
        self, command: str, /, timeout: float = 120.0, *, stdin: bytes | None = None, limit: int = OUTPUT_LIMIT
    ) -> Result:
        """Return the answer to a command; raises LookupError when there is none, GuestError as any machine does."""
        del timeout, stdin, limit
        if not self._on:
            raise GuestError("the machine is off")
        if (failure := self.follower.failure_after_ready) is not None:
            raise GuestError(failure.sentence, hint=failure.hint)
        self.ran.append(command)
        try:
            answer = self.answers[command]
        except KeyError:
            raise LookupError(f"the fake machine has no answer to {command!r}") from None
        if callable(answer):
            answer = answer(command)
        if isinstance(answer, Result):
            return answer
        return Result.of(command, stdout=answer.encode(), stderr=b"", exit_code=0, duration=0.0)

    # Power.

    def begin_reboot(self) -> None:
        """Print the console again, as a new boot; raises GuestError as any machine that is off."""
        if not self._on:
            raise GuestError("the machine is off")
        self.follower.new_boot("reboot")
        self._boot()

    def power_cut(self) -> None:
        """Answer nothing until it is powered on again."""
        self._on = False

    def begin_power_on(self) -> None:
        """Print the console again, as a new boot."""
        self.follower.new_boot("power-on")
        self._boot()

    # What only a machine has.

    @property
    def second_console(self) -> bytes:
        """Nothing."""
        return b""

    def screenshot(self) -> Path:
        """Raise GuestError."""
        raise _has_none("screen")

    def fork(self, name: str = "") -> "FakeVm":
        """Raise InputError."""
        del name
        raise InputError("a fake machine cannot be forked", hint="make another one")


class _NoWay:
    """No way into a guest that there is not: a `Reach`."""

    @property
    def ssh_address(self) -> tuple[str, int]:
        raise _has_none("address")

    def wait_sshd(self) -> None:
        raise _has_none("sshd")

    def open_shell(self, guest: Guest, /) -> SerialShell:
        del guest
        raise _has_none("serial shell")

    def line(self, guest: Guest, /) -> AbstractContextManager[socket.socket]:
        del guest
        raise _has_none("serial line")

    def open_agent(self, guest: Guest, /) -> Agent | None:
        """Return None: there is no port for one."""
        del guest
        return None

    def find_host_keys(self, guest: Guest, /) -> tuple[str, ...]:
        del guest
        raise _has_none("host key")

    def interrupt(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        pass


def _has_none(what: str) -> GuestError:
    return GuestError(f"a fake machine has no {what}", hint="what it answers is said by `answers`, for `run`")


def _no_image(directory: Path) -> Image:
    inspection = Inspection(path=directory, format=Format.RAW, size=0, checks=())
    return Image(name="fake", path=directory, modules=None, inspection=inspection)
