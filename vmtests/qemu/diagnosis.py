"""Gathering `diagnosis/` after a boot has failed: all that machine, guest and disk can still tell, in bounded time.

The verdict is given before anything here begins. Nothing here raises for what a broken guest does: `index.json`
says of every file whether it was got, and why not.
"""

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from vmtests import progress
from vmtests.boot.console import Line
from vmtests.boot.stages import Stage
from vmtests.boot.verdict import Cause, Verdict
from vmtests.errors import GuestError, VmtestsError
from vmtests.guest import diagnosis as questions
from vmtests.guest.login import SEEN, Prompt, prompt
from vmtests.guest.serial import SerialShell
from vmtests.host.tools import Toolbox
from vmtests.image import journal
from vmtests.machine.qemu import CONSOLE_PORT, DEBUG_PORT
from vmtests.qemu.examine import SYNC, Examined, QemuDoctor

SECONDS = 12.0
"""Seconds that a guest with KVM gets to answer; a shell has to be found in a third of them."""

# A shell's prompt at the end; the firmware writes to the second port too.
_PROMPT = re.compile(rb"[#$] (?:\x1b\[[0-9;?]{0,16}[A-Za-z])*$")
_LOCKED = "the root account is locked"
_NO_GUEST = frozenset({Cause.KERNEL_PANIC, Cause.QEMU_EXITED, Cause.QEMU_STOPPED, Cause.POWERED_OFF})
"""Causes after which no shell of the guest can answer."""


class Patient(Examined, Protocol):
    """What a diagnosis needs of a machine: see `QemuMachine`."""

    @property
    def alive(self) -> bool:
        """Whether it is on."""

    def serial(self, port: int = ...) -> socket.socket:
        """Return a socket on a serial port."""

    def written(self, port: int, limit: int = ...) -> bytes:
        """Return the last bytes that were written to a serial port."""


@dataclass(slots=True, kw_only=True)
class Diagnosis:
    """The directory that is filled, and what became of each thing that was wanted, by name."""

    directory: Path
    found: dict[str, str] = field(default_factory=dict)

    def note(self, name: str, outcome: str) -> None:
        """Say what became of `name`, and write the index anew."""
        self.found[name] = outcome
        with contextlib.suppress(OSError):  # a full disk: what was found is known all the same
            self._write()

    def _write(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "index.json").write_text(json.dumps(self.found, indent=2) + "\n")


def gather(machine: Patient, verdict: Verdict, lines: Sequence[Line], directory: Path, *, scale: float) -> Diagnosis:
    """Fill `directory` from a machine whose boot failed, while it is still on; `lines` are its console's last."""
    diagnosis = Diagnosis(directory=directory)
    with progress.step("diagnosis"):
        if not machine.alive:
            diagnosis.note("machine", "it is off")
            return diagnosis
        doctor = QemuDoctor(machine, directory, scale=scale)
        _attempt(diagnosis, "registers and screen", doctor.keep)
        if verdict.stage.before(Stage.INITRD) or verdict.cause in _NO_GUEST:
            diagnosis.note("shell", f"none is tried: the boot ended in {verdict.stage}, {verdict.cause}")
        else:
            _ask(machine, lines, diagnosis, scale)
        if prompt(machine.written(CONSOLE_PORT, SEEN)) is Prompt.STRANGE:
            diagnosis.note("sync", "nothing is typed at a prompt of somebody else's")
        elif not verdict.stage.before(Stage.SWITCH_ROOT):
            # What journald wrote is in the guest's page cache; the disk is read when the machine is off.
            _attempt(diagnosis, "sync", lambda: doctor.sysrq(SYNC))
    return diagnosis


def read_disk(disk: Path, diagnosis: Diagnosis, toolbox: Toolbox, *, since: float) -> None:
    """Read the journal off the disk of a machine that has ended; `since` is when it was switched on (epoch)."""
    target = diagnosis.directory / "journal-on-disk.export"
    with progress.step("journal on the disk"):
        try:
            size = journal.export(disk, target, toolbox, since=since)
        except VmtestsError as error:
            diagnosis.note(target.name, error.message)
        else:
            diagnosis.note(target.name, f"{size} bytes")


def _ask(machine: Patient, lines: Sequence[Line], diagnosis: Diagnosis, scale: float) -> None:
    """Gather in the debug shell, else in whatever shell is on the console."""
    deadline = time.monotonic() + SECONDS * scale
    for port, name in _ports(machine, lines, diagnosis):
        with contextlib.closing(machine.serial(port)) as serial, _cut_off(serial, deadline):
            # Left by the closed line and not by the shell's own end: a guest that hangs does not answer that.
            shell = SerialShell(serial, answer_timeout=SECONDS * scale / 3)
            try:
                limit = min(SECONDS * scale / 3, deadline - time.monotonic())
                shell.login(seen=machine.written(port, SEEN), grace=limit / 2, timeout=limit)
            except VmtestsError as error:
                diagnosis.note(f"shell on {name}", error.message)
                continue
            diagnosis.note(f"shell on {name}", "entered")
            chosen: questions.Shell = shell
            try:
                shell.run("echo fit", SECONDS * scale / 3)
            except GuestError:
                chosen = questions.PlainShell(serial)
            for file, outcome in questions.gather(chosen, diagnosis.directory, deadline):
                diagnosis.note(file, outcome)
            return


@contextlib.contextmanager
def _cut_off(connection: socket.socket, deadline: float) -> Iterator[None]:
    """Shut a connection down at the deadline, which ends every wait on it: an output may take minutes to come."""

    def shut() -> None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(deadline - time.monotonic(), 0.0), shut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _ports(machine: Patient, lines: Sequence[Line], diagnosis: Diagnosis) -> list[tuple[int, str]]:
    ports = []
    if _PROMPT.search(machine.written(DEBUG_PORT)):
        ports.append((DEBUG_PORT, "ttyS1"))
    if any(_LOCKED in line.text for line in lines):
        diagnosis.note("shell on ttyS0", "the root account is locked; boot with the module debug")
    else:
        ports.append((CONSOLE_PORT, "ttyS0"))
    return ports


def _attempt(diagnosis: Diagnosis, name: str, action: Callable[[], object]) -> None:
    try:
        action()
    except VmtestsError as error:
        diagnosis.note(name, error.message)
    else:
        diagnosis.note(name, "done")
