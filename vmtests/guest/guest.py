"""A guest that runs, and the ways into it: ssh, a root shell on a serial line, and QEMU's guest agent."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from vmtests.errors import GuestError, Owner
from vmtests.guest.agent import Agent
from vmtests.guest.keys import Key
from vmtests.guest.login import Login
from vmtests.guest.result import OUTPUT_LIMIT, Result
from vmtests.guest.serial import SerialShell

if TYPE_CHECKING:
    from vmtests.guest.ssh import Ssh

_CONNECT_SECONDS = 60.0
_LEAVE_SECONDS = 30.0
_SSH, _SERIAL, _AGENT = "over ssh", "on the serial line", "through the guest agent"


class NoWayInError(GuestError):
    """The guest is up, and nobody gets into it."""

    exit_code = 2


class NoCardError(GuestError):
    """The machine has no network card, as was asked for: other ways lead into the guest."""

    owner = Owner.INPUT
    exit_code = 2


class Reach(Protocol):
    """How the guest of one machine is reached; each target has its own. All methods raise GuestError."""

    @property
    def ssh_address(self) -> tuple[str, int]:
        """Where the guest's sshd is reached: host and port."""

    def wait_sshd(self) -> None:
        """Wait until there is an sshd to be asked, where that is not known otherwise."""

    def open_shell(self, guest: "Guest", /) -> SerialShell:
        """Open a serial line and log in as root."""

    def open_agent(self, guest: "Guest", /) -> Agent | None:
        """Find QEMU's guest agent; None where there can be none."""

    def line(self, guest: "Guest", /) -> AbstractContextManager[socket.socket]:
        """Give a person a serial line, with a shell if there is one."""

    def find_host_keys(self, guest: "Guest", /) -> tuple[str, ...]:
        """Return the public host keys of the guest's sshd, by a way that no other guest can use."""

    def interrupt(self) -> None:
        """End what waits on a line that was opened; may be called from another thread."""

    def close(self) -> None:
        """Close what was opened; it may be opened again."""


class Guest:
    """A guest, boot after boot: what was found out about one boot is forgotten by `hang_up`.

    `key` is the ssh key that the guest lets in. `scale` stretches what the guest gets to answer (1 for KVM). With
    `by_serial` commands are run on the serial line, until ssh is used or the guest is restarted. `login` is who logs
    in where that is not root with our key. A way that has failed is not tried again in the same boot.
    """

    def __init__(
        self, reach: Reach, key: Key, *, scale: float, by_serial: bool = False, login: Login | None = None
    ) -> None:
        self.key = key
        self.login = login or Login()
        self._failed: dict[str, GuestError] = {}
        self._reach = reach
        self._scale = scale
        self._by_serial = by_serial
        self._ssh: Ssh | None = None
        self._connecting: Ssh | None = None
        self._interruption: threading.Thread | None = None
        self._shell: SerialShell | None = None
        self._agent: Agent | None = None
        self._host_keys: tuple[str, ...] = ()

    def know(self, shell: SerialShell | None, host_keys: tuple[str, ...]) -> None:
        """Go on with a shell that is logged in, if there is one, and with host keys that were found before."""
        self._shell, self._host_keys = shell, host_keys

    @property
    def by_serial(self) -> bool:
        """Whether the next command is run on the serial line."""
        return self._by_serial and self._ssh is None

    @property
    def lost(self) -> bool:
        """Whether no answer is to be waited for in this boot."""
        return self._interruption is not None

    @property
    def has_shell(self) -> bool:
        """Whether a shell is logged in on the serial line."""
        return self._shell is not None

    @property
    def ssh_address(self) -> tuple[str, int]:
        """Where the guest's sshd is reached: host and port."""
        return self._reach.ssh_address

    @property
    def shell(self) -> SerialShell:
        """A root shell on a serial line, found at the first use of each boot."""
        if self._shell is None:
            with self._once(_SERIAL):
                self._shell = self._reach.open_shell(self)
        return self._shell

    @property
    def host_keys(self) -> tuple[str, ...]:
        """The public host keys of the guest's sshd, found at the first use of each boot, and not over the network."""
        if not self._host_keys:
            self._host_keys = self._reach.find_host_keys(self)
        return self._host_keys

    @property
    def ssh(self) -> "Ssh":
        """A connection to the guest's sshd, opened at the first use of each boot.

        The host's key is known before, so that no other guest can answer.
        """
        if self._ssh is None:
            from vmtests.guest.ssh import Ssh  # paramiko takes its time, and many a boot needs none

            with self._once(_SSH):
                self._reach.wait_sshd()
                self._connecting = Ssh(*self.ssh_address, self.key, self.host_keys, login=self.login)
                self._connecting.connect(_CONNECT_SECONDS * self._scale)
                self._ssh = self._connecting
        return self._ssh

    @contextlib.contextmanager
    def _once(self, way: str) -> Iterator[None]:
        """Open a way, unless that has failed in this boot: it would fail again, and take its time."""
        if self.lost:
            raise GuestError("the guest is gone")
        if (failed := self._failed.get(way)) is not None:
            raise failed
        try:
            yield
        except GuestError as error:
            self._failed[way] = error
            raise

    @property
    def agent(self) -> Agent | None:
        """QEMU's guest agent, found at the first use of each boot; None where there can be none."""
        if self._agent is None:
            with self._once(_AGENT):
                self._agent = self._reach.open_agent(self)
        return self._agent

    @property
    def _way(self) -> "Ssh | SerialShell | Agent":
        """The way by which the next command is run; raises NoWayInError."""
        if self.by_serial:
            return self.shell
        with contextlib.suppress(GuestError):
            return self.ssh
        with contextlib.suppress(GuestError):
            return self.shell
        with contextlib.suppress(GuestError):
            if (agent := self.agent) is not None:
                return agent
        told = "; ".join(f"{way}: {error.message}" for way, error in self._failed.items())
        raise NoWayInError(
            f"nobody gets into the guest, {told}",
            hint=next((error.hint for error in self._failed.values() if error.hint), "--login USER:PASSWORD"),
        )

    def line(self) -> AbstractContextManager[socket.socket]:
        """Give a person a serial line, with a shell if there is one; commands are run on others, or after it again.

        Raises GuestError, HostError.
        """
        return self._reach.line(self)

    def enter(self) -> None:
        """Find the way by which commands are run; raises NoWayInError."""
        assert self._way

    def run(
        self,
        command: str,
        /,
        timeout: float = 120.0,
        *,
        stdin: bytes | None = None,
        limit: int = OUTPUT_LIMIT,
    ) -> Result:
        """Run a shell command as root, over ssh where that works, else on the serial line, else through the agent.

        Raises NoWayInError when none does, and GuestError when the guest does not answer.
        """
        return self._way.run(command, timeout, stdin=stdin, limit=limit)

    def leave(self, command: str) -> None:
        """Run a command that restarts the guest or ends it, and close every way into it.

        Raises NoWayInError; the way may go before an answer comes.
        """
        way = self._way
        with contextlib.suppress(GuestError):
            if isinstance(way, SerialShell):
                way.leave(command)
            else:
                way.run(command, _LEAVE_SECONDS)
        self.hang_up()

    def interrupt(self) -> None:
        """End what waits for the guest's answer, in whichever thread, with a GuestError: none will come.

        Returns at once; the guest is to be left by `hang_up` afterwards.
        """
        if self._interruption is None:
            self._interruption = threading.Thread(target=self._interrupt, name="interruption", daemon=True)
            self._interruption.start()

    def _interrupt(self) -> None:
        if self._connecting is not None:
            self._connecting.close()
        self._reach.interrupt()

    def hang_up(self) -> None:
        """Close every way into the guest, which restarts or is left."""
        if self._interruption is not None:
            self._interruption.join()
            self._interruption = None
        if self._connecting is not None:
            self._connecting.close()
        self._ssh = self._connecting = self._shell = None
        self._by_serial = False
        self._host_keys = ()
        self._failed.clear()
        self._reach.close()
