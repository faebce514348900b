"""How the guest of an instance is reached: at its external address, and by Google's gateway to its serial ports."""

import contextlib
import socket
import time
from collections.abc import Callable, Iterator

from vmtests.errors import GuestError
from vmtests.gce import access
from vmtests.gce.cloud import Cloud
from vmtests.gce.guest import HostKeys, serial_shell
from vmtests.gce.instance import Instance
from vmtests.gce.serialport import SerialFollower
from vmtests.guest.agent import Agent
from vmtests.guest.guest import Guest
from vmtests.guest.serial import SerialShell

CONSOLE, SECOND = 1, 2
"""The serial ports, as the API counts."""

_HOST_KEYS_SECONDS = 60.0
_SHELL_SECONDS = 60.0
_ATTRIBUTES_SECONDS = 6.0  # ten questions a minute are allowed ("Guest attributes")


class GceReach:
    """Reaches the guest of `instance`.

    `port` follows its console, on which `keys` are found. `wait_ready` returns when the guest is, `is_ready` tells
    whether it is. `scale` stretches what the guest gets to answer.
    """

    def __init__(
        self,
        cloud: Cloud,
        instance: Instance,
        port: SerialFollower,
        keys: HostKeys,
        *,
        scale: float,
        wait_ready: Callable[[], object],
        is_ready: Callable[[], bool],
    ) -> None:
        self._cloud = cloud
        self._instance = instance
        self._port = port
        self._keys = keys
        self._scale = scale
        self._wait_ready = wait_ready
        self._is_ready = is_ready
        self._address = ""
        self._lines = contextlib.ExitStack()
        self._line: socket.socket | None = None

    @property
    def ssh_address(self) -> tuple[str, int]:
        """The instance's external address."""
        if not self._address:
            self._address = self._instance.address
        return self._address, access.ssh_port(self._cloud)

    def moved(self) -> None:
        """Learn that the instance was stopped: it gets another address."""
        self._address = ""

    def wait_sshd(self) -> None:
        """Wait until the guest is ready."""
        self._wait_ready()

    def open_shell(self, guest: Guest, /) -> SerialShell:
        """Start a root shell on the second serial port over ssh, and log in there through Google's gateway."""
        guest.ssh.run(serial_shell("ttyS1")).check()
        self._line = self._type_on(guest, SECOND)
        shell = SerialShell(self._line, answer_timeout=30.0 * self._scale)
        shell.login(timeout=_SHELL_SECONDS * self._scale)
        return shell

    @contextlib.contextmanager
    def line(self, guest: Guest, /) -> Iterator[socket.socket]:
        """Give the second serial port with a root shell on it if the guest is ready for that, else the console."""
        line: socket.socket | None = None
        if self._is_ready():
            with contextlib.suppress(GuestError):
                guest.shell.release()
                line = self._line
        try:
            yield line or self._type_on(guest, CONSOLE)
        finally:
            guest.hang_up()

    def open_agent(self, guest: Guest, /) -> Agent | None:
        """Return None: there is no port for one."""
        del guest
        return None

    def find_host_keys(self, guest: Guest, /) -> tuple[str, ...]:  # noqa: ARG002 - the guest is not asked
        """Return them from the serial console, or from the guest attributes that the guest agent writes."""
        deadline = time.monotonic() + _HOST_KEYS_SECONDS * self._scale
        pause = self._cloud.pace.poll if self._cloud.settings.emulated else _ATTRIBUTES_SECONDS
        while True:
            self._port.drain()
            if self._keys.lines:
                return self._keys.lines
            if found := self._instance.guest_attributes("hostkeys"):
                return tuple(f"{kind} {key}" for kind, key in found.items())
            if time.monotonic() > deadline:
                raise GuestError(
                    "the guest has told no ssh host key, neither by guest attributes nor on the serial console",
                    hint="the image needs google-startup-scripts.service, or a guest agent that sets host keys",
                )
            time.sleep(pause)

    def interrupt(self) -> None:
        """End what waits on the second serial port."""
        if (line := self._line) is not None:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the lines."""
        self._lines.close()
        self._line = None

    def _type_on(self, guest: Guest, port: int) -> socket.socket:
        """Open a serial port by Google's gateway."""
        at = access.gateway(self._cloud, self._instance.thing.place)
        return self._lines.enter_context(access.serial_line(at, self._instance.thing, port, guest.key))
