"""A machine that is followed while it boots, and that commands are run in, wherever it is.

`qemu.vm.QemuVm` is one under QEMU, `gce.vm.GceVm` one on Compute Engine; `vm.laboratory.Laboratory` makes them.
"""

import abc
import contextlib
import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import msgspec

from vmtests.boot.console import Line
from vmtests.boot.follow import Follower
from vmtests.boot.timeline import Timeline
from vmtests.boot.verdict import Verdict
from vmtests.errors import GuestError, InputError, VmtestsError
from vmtests.guest.facts import Facts, Mounts, Units
from vmtests.guest.guest import Guest
from vmtests.guest.keys import Key
from vmtests.guest.result import OUTPUT_LIMIT, Result
from vmtests.guest.serial import SerialShell
from vmtests.image.image import Image
from vmtests.image.inspect import Inspection

if TYPE_CHECKING:
    from vmtests.guest.ssh import Ssh

KEEP_SECONDS = 10.0
"""Seconds that a guest with KVM gets to tell what a report shows of it."""

_LAST_LINES = 12
_POWERED = frozenset({"follower", "guest", "qemu", "instance"})
# What systemd says of its jobs, in both stages, and every warning.
_KEPT = {
    "mountinfo.txt": "cat /proc/self/mountinfo",
    "journal.export": "journalctl -b -q -o export --no-pager -n 4000 --output-fields="
    "MESSAGE,UNIT,JOB_TYPE,JOB_RESULT,PRIORITY,SYSLOG_IDENTIFIER,_TRANSPORT,_RUNTIME_SCOPE,"
    "_SOURCE_MONOTONIC_TIMESTAMP _PID=1 + PRIORITY=0 + PRIORITY=1 + PRIORITY=2 + PRIORITY=3 + PRIORITY=4",
}


class BootError(VmtestsError):
    """A boot that did not get ready; `verdict` says why, and `lines` are the last of its stage."""

    def __init__(
        self, verdict: Verdict, results: Path, inspection: Inspection | None = None, console: Sequence[Line] = ()
    ) -> None:
        breaches = [
            f"; the image: {breach}"
            for breach in (() if inspection is None else inspection.breaches[:3])
            if str(breach) not in verdict.sentence
        ]
        super().__init__(
            f"boot {verdict.word} in {verdict.stage}: {verdict.sentence}{''.join(breaches)}",
            hint=f"{verdict.hint}; the console is {results / 'console.log'}",
        )
        self.verdict = verdict
        self.exit_code = verdict.exit_status
        self.lines = tuple(line for line in console if line.stage is verdict.stage)[-_LAST_LINES:]
        if verdict.owner is not None:
            self.owner = verdict.owner

    @property
    def report(self) -> str:
        """The sentence, the hint, and the last lines of the stage in which the boot failed."""
        last = [f"  {line.t:7.2f} {line.text}" for line in self.lines]
        return "\n".join([str(self), *([f"the last lines of stage {self.verdict.stage}:"] if last else []), *last])


class Vm(abc.ABC):
    """A machine that is followed, and that commands are run in; a context manager, powered on.

    It has a machine, the boot that is followed (`follower`), a `guest`, and what is known of its image.
    """

    follower: Follower

    guest: Guest

    def __init__(self, image: Image, results: Path) -> None:
        self.image = image
        self.results = results
        self._stack = contextlib.ExitStack()

    if not TYPE_CHECKING:  # to type checkers all of it is there

        def __getattr__(self, name: str) -> object:
            """Raise InputError for what a machine has from `with` on."""
            if name in _POWERED:
                raise InputError("the machine is not powered on", hint="use it in a `with` block")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    @abc.abstractmethod
    def scale(self) -> float:
        """How many times slower the machine is than one with KVM (1.0): what it is given in time is that much more."""

    @abc.abstractmethod
    def __enter__(self) -> Self:
        """Power on."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abc.abstractmethod
    def close(self) -> None:
        """End the machine; its results stay."""

    # Following.

    def wait_verdict(self) -> Verdict:
        """Wait for the verdict on this boot."""
        return self.follower.wait_verdict()

    def wait_ready(self) -> Verdict:
        """Wait until the guest is ready; raises BootError with the verdict when it does not get there.

        What the machine can still tell is in `diagnosis/` by then.
        """
        verdict = self.wait_verdict()
        if not verdict.ready:
            self.diagnose(verdict)
            raise BootError(self.verdict or verdict, self.results, self.image.inspection, self.console)
        return verdict

    @abc.abstractmethod
    def diagnose(self, verdict: Verdict) -> object:
        """Gather in `diagnosis/` what a machine whose boot failed can still tell."""

    @property
    def verdict(self) -> Verdict | None:
        """The verdict on this boot; None until it is known."""
        return self.follower.verdict

    @property
    def timeline(self) -> Timeline:
        """When this boot entered each stage."""
        return self.follower.timeline

    @property
    def console(self) -> tuple[Line, ...]:
        """The last lines of the console, over all boots of this machine."""
        return self.follower.lines

    @property
    @abc.abstractmethod
    def second_console(self) -> bytes:
        """What the guest has written to its second serial port."""

    @abc.abstractmethod
    def screenshot(self) -> Path:
        """Write the screen to a file and return its path."""

    # In the guest.

    @property
    def key(self) -> Key:
        """The ssh key that the guest lets in."""
        return self.guest.key

    @property
    def ssh_address(self) -> tuple[str, int]:
        """Where the guest's sshd is reached: host and port."""
        return self.guest.ssh_address

    @property
    def shell(self) -> SerialShell:
        """A root shell on a serial line, found at the first use of each boot; raises GuestError."""
        with self._in_guest():
            return self.guest.shell

    def line(self) -> AbstractContextManager[socket.socket]:
        """Give a socket on a serial line, for a person to type on; a shell waits there where one is open.

        Meanwhile commands use another line; where there is none they use this one again afterwards.

        Raises GuestError, HostError.
        """
        return self.guest.line()

    @property
    def host_keys(self) -> tuple[str, ...]:
        """The public host keys of the guest's sshd, found at the first use of each boot, and not over the network."""
        with self._in_guest():
            return self.guest.host_keys

    @property
    def ssh(self) -> "Ssh":
        """A connection to the guest's sshd, opened at the first use of each boot.

        Its host key was read on the console before, so that another guest that answers is refused.
        """
        with self._in_guest():
            return self.guest.ssh

    def run(
        self,
        command: str,
        /,
        timeout: float = 120.0,
        *,
        stdin: bytes | None = None,
        limit: int = OUTPUT_LIMIT,
    ) -> Result:
        """Run a shell command as root, over ssh or on the serial line, whichever works.

        `timeout` is in seconds, `stdin` what it reads; an output of more than `limit` bytes is a GuestError.

        Raises NoWayInError when neither does, GuestError when the guest failed or does not answer.

        Where a shell is open on the serial line, as in a fork, commands run there until `ssh` is used or the machine
        is restarted.
        """
        with self._in_guest():
            return self.guest.run(command, timeout, stdin=stdin, limit=limit)

    @contextlib.contextmanager
    def _in_guest(self) -> Iterator[None]:
        """Run a block that asks the guest; where the guest has failed, that is raised, and not what the block met."""
        self._check_alive()
        try:
            yield
        except GuestError:
            self._check_alive()
            raise

    def _check_alive(self) -> None:
        if (failure := self.follower.failure_after_ready) is not None:
            raise GuestError(failure.sentence, hint=failure.hint)

    @property
    def facts(self) -> Facts:
        """What the guest knows about itself."""
        return Facts(self)

    @property
    def mounts(self) -> Mounts:
        """The guest's mounts, as they are now; `mounts.json` keeps them for the report."""
        mounts = self.facts.mounts()
        with contextlib.suppress(OSError):
            (self.results / "mounts.json").write_bytes(msgspec.json.encode(list(mounts)))
        return mounts

    @property
    def units(self) -> Units:
        """The units of the guest's systemd, as they are now."""
        return self.facts.units()

    def say_what_is_booted(self, machine: str) -> None:
        """Write `booted.json`: the image, by name and place, and the kind of machine, in words."""
        known = {"image": self.image.name, "path": str(self.image.path), "machine": machine}
        with contextlib.suppress(OSError):
            self.results.mkdir(parents=True, exist_ok=True)
            (self.results / "booted.json").write_text(json.dumps(known), encoding="utf-8")

    def keep(self) -> None:
        """Keep what a report shows of a booted guest: `mountinfo.txt`, and its jobs' journal as `journal.export`.

        What it does not tell in KEEP_SECONDS (times `scale`) is left out.
        """
        for file, command in _KEPT.items():
            with contextlib.suppress(VmtestsError, OSError):
                told = self._nearest().run(command, KEEP_SECONDS * self.scale)
                if told.ok:
                    (self.results / file).write_bytes(told.stdout_bytes)

    def _nearest(self) -> "Vm | SerialShell":
        """Return what runs a command with the least preparation."""
        return self

    # Power.

    def reboot(self) -> Verdict:
        """Reboot cleanly from inside and wait until the guest is ready again; raises BootError."""
        self.begin_reboot()
        return self.wait_ready()

    def begin_reboot(self) -> None:
        """Tell the guest to reboot cleanly, for who has other things to do before `wait_ready`."""
        self.guest.enter()
        self.follower.new_boot("reboot")
        self.guest.leave("systemctl --no-block reboot || reboot")

    @abc.abstractmethod
    def power_cut(self) -> None:
        """Take the power away at once: what the guest had not synced is lost."""

    def power_on(self) -> Verdict:
        """Give it back, on the same disk, and wait until the guest is ready; raises BootError."""
        self.begin_power_on()
        return self.wait_ready()

    @abc.abstractmethod
    def begin_power_on(self) -> None:
        """Give it back, for who has other things to do before `wait_ready`."""

    # More of it.

    @abc.abstractmethod
    def fork(self, name: str = "") -> Self:
        """Return a copy of this machine as it is now, with its memory, devices and disk; use it with `with`.

        This one goes on. The copy's results go below `name`. Raises InputError where the target cannot fork a machine,
        HostError when it cannot be kept.
        """
