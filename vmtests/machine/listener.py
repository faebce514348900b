"""What a running machine tells, and to whom."""

from typing import Protocol

from vmtests.machine.events import MachineEvent


class Listener(Protocol):
    """Hears everything that a machine says.

    A machine calls it from one thread at a time, in the order in which things happened. It must not block:
    as long as it does, nobody reads the guest's console and the guest waits.
    """

    def feed(self, data: bytes, /) -> None:
        """Take raw bytes of the first serial port."""

    def feed_firmware(self, data: bytes, /) -> None:
        """Take raw bytes of the firmware's debug port."""

    def event(self, event: MachineEvent, /) -> None:
        """Take an event: QEMU's own by its QMP name (`SHUTDOWN`, `GUEST_PANICKED`), or `exit`.

        A `RESET` is the guest's own doing; one that was asked for through the machine is a new boot.
        """

    def new_boot(self, reason: str, /) -> None:
        """Learn that what follows is another boot: `power-on` (not for the first) or `reset`."""

    def expect_end(self) -> None:
        """Learn that the machine is about to be switched off on purpose."""


class Nobody:
    """Hears a machine whose guest has not run yet: a `Listener`."""

    def feed(self, data: bytes, /) -> None:
        """Hear nothing."""

    def feed_firmware(self, data: bytes, /) -> None:
        """Hear nothing."""

    def event(self, event: MachineEvent, /) -> None:
        """Hear nothing."""

    def new_boot(self, reason: str, /) -> None:
        """Hear nothing."""

    def expect_end(self) -> None:
        """Hear nothing."""
