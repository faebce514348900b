"""One life of QEMU, from power-on to its exit, and how it ended."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vmtests.errors import HostError, hint_of
from vmtests.host.process import SandboxedProcess
from vmtests.machine.events import EXIT, RESET, MachineEvent
from vmtests.machine.listener import Listener
from vmtests.machine.qmp import Qmp
from vmtests.machine.wires import Wires
from vmtests.text import printable

_STDERR_TAIL = 16 << 10  # bytes of QEMU's standard error that are kept in memory
_STDERR_LINE = 1000  # characters of one line of it
_SIGNALLED = 128  # bubblewrap exits with this and the number of the signal that ended its child


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How QEMU ended: exit status, or the negative number of a signal, and the end of its standard error."""

    returncode: int
    stderr: str


class MachineExitError(HostError):
    """QEMU ended while somebody waited for it."""

    def __init__(self, end: Exit, command: Path) -> None:
        lines = [line for line in end.stderr.splitlines() if line.strip()]
        said = f": {lines[-1]}" if lines else ", without a word on standard error"
        hint = hint_of(said) or f"its command line is in {command}"
        super().__init__(f"QEMU ended with status {end.returncode}{said}", hint=hint)
        self.exit = end
        self.command = command


class ResumeError(HostError):
    """QEMU does not go on from a template."""


@contextlib.contextmanager
def resuming() -> Iterator[None]:
    """Raise ResumeError for any HostError of the block."""
    try:
        yield
    except HostError as error:
        raise ResumeError(error.message, hint=error.hint) from error


class Life:
    """One QEMU process and its sockets; what it says, and its end, is told to `listener`, which may be replaced."""

    def __init__(self, listener: Listener, stderr_log: Path) -> None:
        self.exited = threading.Event()
        self.exit: Exit | None = None
        self.process: SandboxedProcess | None = None
        self.qmp: Qmp | None = None
        self.ram = -1
        self.listener = listener
        self._stderr = bytearray()
        self._stderr_log = stderr_log.open("ab", buffering=0)
        self.wires = Wires(name="wires", on_dead=self.kill)

    def kill(self) -> None:
        """End QEMU at once; returns without waiting."""
        if self.process is not None:
            self.process.kill()

    def on_stderr(self, data: bytes) -> None:
        """Keep what QEMU says on standard error."""
        # A full disk loses the log; the tail is kept, and QEMU must not wait.
        with contextlib.suppress(OSError):
            self._stderr_log.write(data)
        self._stderr += data
        del self._stderr[:-_STDERR_TAIL]

    def on_qmp(self, message: Mapping[str, object]) -> None:
        """Hand an event on through the reader, so that it comes after the bytes that came before it."""
        data = message.get("data")
        detail = (
            {key: value for key, value in data.items() if isinstance(value, str | int)}
            if isinstance(data, dict)
            else {}
        )
        event = MachineEvent(name=str(message["event"]), detail=detail, t=time.monotonic())
        self.wires.post(lambda: self._tell(event))

    def _tell(self, event: MachineEvent) -> None:
        if event.name == RESET and event.detail.get("reason") == "host-qmp-system-reset":
            self.listener.new_boot("reset")
        else:
            self.listener.event(event)

    def abandon(self) -> None:
        """Give everything back when QEMU could not even be started."""
        self.wires.join()
        self._close()

    def _close(self) -> None:
        self._stderr_log.close()
        if self.ram >= 0:
            os.close(self.ram)
            self.ram = -1

    def on_exit(self, returncode: int) -> None:
        """Tell everybody, in the thread of the process, when every byte has been read."""
        self.wires.join()
        self._close()
        if returncode > _SIGNALLED:
            returncode = _SIGNALLED - returncode
        self.exit = Exit(returncode=returncode, stderr=_printable(bytes(self._stderr)))
        detail: dict[str, str | int] = {"returncode": returncode, "stderr": self.exit.stderr}
        try:
            self.listener.event(MachineEvent(name=EXIT, detail=detail, t=time.monotonic()))
        finally:
            self.exited.set()


def _printable(data: bytes) -> str:
    """Return text with only printable characters and line ends."""
    return "\n".join(printable(line, _STDERR_LINE) for line in data.decode(errors="replace").splitlines())
