"""How the guest of a machine under QEMU is reached: on its serial console, and by a port that QEMU forwards."""

import contextlib
import socket
from collections.abc import Iterator

from vmtests.errors import GuestError, InputError
from vmtests.guest.agent import Agent
from vmtests.guest.guest import Guest, NoCardError
from vmtests.guest.keys import HOST_KEYS_COMMAND
from vmtests.guest.login import SEEN
from vmtests.guest.serial import SerialShell
from vmtests.machine.qemu import AGENT_PORT, CONSOLE_PORT, QemuMachine

_GRACE = 5.0  # seconds, without KVM so many times more, for what comes right after the guest is up
_SCAN = 15.0
# A line behind the header is a route, and an address (Linux, net/ipv4/fib_trie.c); loopback has none there.
_NETWORK = (
    "n=0; while [ $n -lt {seconds} ]; do {{ read -r head; read -r route; }} </proc/net/route && exit 0; "
    "n=$((n+1)); sleep 1; done; exit 1"
)


class QemuReach:
    """Reaches the guest of `machine`; `scale` stretches what it gets to answer (1 for KVM).

    With `agent` the machine has a port for QEMU's guest agent.
    """

    def __init__(self, machine: QemuMachine, *, scale: float, agent: bool = False) -> None:
        self._agent = agent
        self._machine = machine
        self._scale = scale
        self._lines = contextlib.ExitStack()
        self._serial: socket.socket | None = None

    @property
    def ssh_address(self) -> tuple[str, int]:
        """The port of this host that leads to the guest's sshd."""
        try:
            return "127.0.0.1", self._machine.ssh_port
        except InputError as error:
            raise NoCardError(error.message, hint=error.hint) from error

    def wait_sshd(self) -> None:
        """Do nothing: host keys are asked for on the serial console, which waits for the guest."""

    def open_shell(self, guest: Guest, /) -> SerialShell:
        """Log in on the serial console."""
        shell = self._shell()
        seen = self._machine.written(CONSOLE_PORT, SEEN)
        shell.login(guest.login, seen=seen, grace=_GRACE * self._scale, timeout=60.0 * self._scale)
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
        self._serial = self._lines.enter_context(contextlib.closing(self._machine.serial()))
        return SerialShell(self._serial, answer_timeout=30.0 * self._scale)

    def open_agent(self, guest: Guest, /) -> Agent | None:  # noqa: ARG002 - it takes commands of whoever has its port
        """Find QEMU's guest agent on its virtio port; None where the machine has no such port."""
        if not self._agent:
            return None
        line = self._lines.enter_context(contextlib.closing(self._machine.serial(AGENT_PORT)))
        agent = Agent(line, scale=self._scale)
        agent.connect(_GRACE * self._scale)
        return agent

    @contextlib.contextmanager
    def line(self, guest: Guest, /) -> Iterator[socket.socket]:
        """Give the serial console, on which a shell that commands were run in is the person's now."""
        if guest.has_shell:
            guest.shell.release()
        guest.hang_up()
        with contextlib.closing(self._machine.serial()) as line:
            yield line

    def find_host_keys(self, guest: Guest, /) -> tuple[str, ...]:
        """Ask for them on the serial console; where nobody gets in there, at the port, which leads to no other guest.

        Raises GuestError, too, when the guest has no network by which ssh could reach it.
        """
        try:
            shell = guest.shell
        except GuestError:
            from vmtests.guest.ssh import scan_host_key

            return scan_host_key(*self.ssh_address, _SCAN * self._scale, lost=lambda: guest.lost)
        keys = tuple(shell.run(HOST_KEYS_COMMAND).check().lines)
        if not shell.run(_NETWORK.format(seconds=round(_GRACE * self._scale)), 4 * _GRACE * self._scale).ok:
            raise GuestError("the guest has no network, by which ssh could reach it")
        return keys

    def interrupt(self) -> None:
        """End what waits on the serial console."""
        if (serial := self._serial) is not None:
            with contextlib.suppress(OSError):
                serial.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the lines."""
        self._serial = None
        self._lines.close()
