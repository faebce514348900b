"""A QEMU that is started before a fork asks for it, since its start is most of the time that a fork takes."""

import contextlib
import threading

from vmtests.machine.qemu import QemuMachine


class Standby:
    """A machine that a thread starts, up to its guest's first instruction.

    Closing it ends the machine, unless `take` has returned it.
    """

    def __init__(self, machine: QemuMachine) -> None:
        self._machine: QemuMachine | None = machine
        self._failed = True
        self._thread = threading.Thread(target=self._load, args=(machine,), name="standby", daemon=True)
        self._thread.start()

    def _load(self, machine: QemuMachine) -> None:
        # Who needs a machine that cannot be made, for whatever reason, tries it once more, and is told why.
        with contextlib.suppress(Exception):
            machine.spawn()
            machine.load()
            self._failed = False

    def take(self) -> QemuMachine | None:
        """Return the machine, which the caller moves and enters; None when there is none, or it could not be made."""
        machine, self._machine = self._machine, None
        if machine is None:
            return None
        self._thread.join()
        if self._failed or not machine.alive:
            self._end(machine)
            return None
        return machine

    def close(self) -> None:
        """End the machine, and remove what it left in the results."""
        if (machine := self.take()) is not None:
            self._end(machine)

    def _end(self, machine: QemuMachine) -> None:
        machine.close()
        # Where nothing could be written there is nothing to remove.
        with contextlib.suppress(OSError):
            machine.forget()
