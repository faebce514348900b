"""How the guest of a machine under QEMU is reached: on its serial console, and by a port that QEMU forwards."""

import contextlib
import socket
from collections.abc import Iterator

from vmtests.guest.guest import Guest
from vmtests.guest.serial import SerialShell
from vmtests.guest.ssh import HOST_KEYS_COMMAND
from vmtests.machine.qemu import QemuMachine


class QemuReach:
    """Reaches the guest of `machine`; `scale` stretches what it gets to answer (1 for KVM)."""

    def __init__(self, machine: QemuMachine, *, scale: float) -> None:
        self._machine = machine
        self._scale = scale
        self._lines = contextlib.ExitStack()

    @property
    def ssh_address(self) -> tuple[str, int]:
        """The port of this host that leads to the guest's sshd."""
        return "127.0.0.1", self._machine.ssh_port

    def wait_sshd(self) -> None:
        """Do nothing: host keys are asked for on the serial console, which waits for the guest."""

    def open_shell(self, guest: Guest, /) -> SerialShell:  # noqa: ARG002 - there is one way
        """Log in on the serial console."""
        shell = self._shell()
        shell.login(timeout=60.0 * self._scale)
        return shell

    def go_on(self, prepared: str) -> SerialShell:
        """Return the shell that waits in a kept guest, which is told what time it is.

        The generation id that QEMU gives to each fork has renewed its random numbers.
        """
        shell = self._shell()
        shell.take_over(prepared)
        shell.wake()
        return shell

    def _shell(self) -> SerialShell:
        serial = self._lines.enter_context(contextlib.closing(self._machine.serial()))
        return SerialShell(serial, answer_timeout=30.0 * self._scale)

    @contextlib.contextmanager
    def line(self, guest: Guest, /) -> Iterator[socket.socket]:
        """Give the serial console, on which a shell that commands were run in is the person's now."""
        if guest.has_shell:
            guest.shell.release()
        guest.hang_up()
        with contextlib.closing(self._machine.serial()) as line:
            yield line

    def find_host_keys(self, guest: Guest, /) -> tuple[str, ...]:
        """Ask for them on the serial console."""
        return tuple(guest.shell.run(HOST_KEYS_COMMAND).check().lines)

    def close(self) -> None:
        """Close the lines."""
        self._lines.close()
