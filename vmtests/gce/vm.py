"""A machine on Compute Engine, as tests and programs use any machine."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from vmtests import progress
from vmtests.boot.budgets import Budgets
from vmtests.boot.explain import Knowledge
from vmtests.boot.follow import Follower
from vmtests.boot.verdict import Verdict
from vmtests.errors import GuestError
from vmtests.gce import access
from vmtests.gce.errors import CloudError
from vmtests.gce.guest import HostKeys, serial_shell
from vmtests.gce.instance import Instance, Order
from vmtests.gce.serialport import SerialFollower, SerialReader
from vmtests.guest.serial import SerialShell
from vmtests.guest.ssh import Key, Ssh
from vmtests.machine.events import SHUTDOWN, MachineEvent
from vmtests.vm import Image, Vm, Watch

if TYPE_CHECKING:
    from vmtests.gce.lab import GceLab

_PORT, _SECOND_PORT = 1, 2  # as the API counts
_HOST_KEYS_SECONDS = 60.0
_SHELL_SECONDS = 60.0
_ATTRIBUTES_SECONDS = 6.0  # ten questions a minute are allowed ("Guest attributes")
_RUNNING = "RUNNING"
_REASONS = {"preempted": "it was preempted", "deleted": "somebody, or its time limit, deleted it"}


@dataclass(slots=True)
class _Ear:
    """Hears the first serial port."""

    follower: Follower
    keys: HostKeys

    def feed(self, data: bytes, /) -> None:
        """Take bytes."""
        self.keys.feed(data)
        self.follower.feed(data)

    def event(self, event: MachineEvent, /) -> None:
        """Learn of a gap."""
        self.follower.event(event)


class GceVm(Vm):
    """An instance of its own, from the image; deleted when it is left."""

    def __init__(
        self,
        lab: "GceLab",
        image: Image,
        order: Order,
        token: str,
        key: Key,
        results: Path,
        *,
        watch: Watch | None = None,
    ) -> None:
        super().__init__(image, results, key)
        self.order = order
        self._lab = lab
        self._token = token
        self._watch = watch
        self._keys = HostKeys(token)
        self._lines = contextlib.ExitStack()
        self._off = threading.Event()
        self._address = ""

    @property
    def scale(self) -> float:
        """A shared processor, and seconds until the API tells what was said; an emulator has no KVM, maybe."""
        return self._lab.scale

    def __enter__(self) -> Self:
        try:
            name = self.results.name if self.results != self._lab.results else "vm"
            self.instance: Instance = self._lab.insert(self.order, name)
            self._stack.callback(self.instance.delete)
            self.follower = self._stack.enter_context(
                Follower(
                    self.results,
                    budgets=Budgets(scale=self.scale),
                    # When the power came on nobody tells; the first byte is what is known.
                    ready_token=self._token,
                    knowledge=Knowledge(self._lab.contract, self.image.inspection),
                    watch=self._watch,
                )
            )
            reader = SerialReader(lambda start: self.instance.serial(start, _PORT))
            ear = _Ear(self.follower, self._keys)
            self._port = SerialFollower(reader, ear, self._went_off, self._lab.poll_pace)
            self._stack.enter_context(self._port)
            self._stack.callback(self._save)
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Save the consoles and delete the instance; a failure to delete it is left to the end of the run."""
        self._hang_up()
        try:
            self._stack.close()
        except CloudError as error:
            progress.stderr().print(f"vmtests: {error.message}")

    def _save(self) -> None:
        """Keep what the serial ports have said: they are gone with the instance."""
        if not self._off.is_set():
            self.follower.expect_end()
            with contextlib.suppress(CloudError):
                self._port.drain()
            with contextlib.suppress(CloudError):
                _ = self.second_console
        self._port.pause()

    def _went_off(self) -> None:
        """Find out why the instance does not run, in the thread of the serial port."""
        if self._off.is_set():
            return
        try:
            by = self.instance.ended_by()
            if by == "guest" and self.instance.status == _RUNNING:
                self._port.resume()  # it was only a moment
                return
        except CloudError:
            by = "guest"
        self._off.set()
        event, reason = (SHUTDOWN, "guest-shutdown") if by == "guest" else ("CLOUD_END", _REASONS[by])
        self.follower.event(MachineEvent(name=event, detail={"reason": reason}, t=time.monotonic()))

    # Following.

    def diagnose(self, verdict: Verdict) -> dict[str, str]:
        """Keep the screen and the second serial port in `diagnosis/`, and return what became of each."""
        del verdict
        directory = self.results / "diagnosis"
        directory.mkdir(exist_ok=True)
        found: dict[str, str] = {}
        try:
            path = self.screenshot()
            found["screenshot"] = path.rename(directory / path.name).name
        except CloudError as error:
            found["screenshot"] = error.message
        try:
            (directory / "ttyS1.log").write_bytes(self.second_console)
            found["ttyS1"] = "ttyS1.log"
        except CloudError as error:
            found["ttyS1"] = error.message
        return found

    @property
    def second_console(self) -> bytes:
        """What is kept of it, at most a megabyte; also in `ttyS1.log`."""
        data = self.instance.serial(0, _SECOND_PORT).data
        (self.results / "ttyS1.log").write_bytes(data)
        return data

    def screenshot(self) -> Path:
        """Write the screen to a JPEG or PNG file and return its path."""
        data = self.instance.screenshot()
        path = self.results / ("screenshot.png" if data.startswith(b"\x89PNG") else "screenshot.jpg")
        path.write_bytes(data)
        return path

    # In the guest.

    @property
    def ssh(self) -> Ssh:
        """A connection to the guest's sshd, opened at the first use of each boot, when the guest is ready."""
        if self._ssh is None:
            self.wait_ready()
        return super().ssh

    @property
    def ssh_address(self) -> tuple[str, int]:
        """The instance's external address."""
        if not self._address:
            self._address = self.instance.address
        return self._address, self._lab.ssh_port

    @property
    def shell(self) -> SerialShell:
        """A root shell on the second serial port, through Google's gateway; it is started over ssh."""
        if self._shell is None:
            self.ssh.run(serial_shell("ttyS1")).check()
            self._line = self._type_on(_SECOND_PORT)
            shell = SerialShell(self._line, answer_timeout=30.0 * self.scale)
            shell.login(timeout=_SHELL_SECONDS * self.scale)
            self._shell = shell
        return self._shell

    @contextlib.contextmanager
    def line(self) -> Iterator[socket.socket]:
        """Give the second serial port with a root shell on it if the guest is ready for that, else the console."""
        line: socket.socket | None = None
        if self.verdict is not None and self.verdict.ready:
            with contextlib.suppress(GuestError):
                self.shell.release()
                line = self._line
        try:
            yield line or self._type_on(_PORT)
        finally:
            self._hang_up()

    def _type_on(self, port: int) -> socket.socket:
        """Open a serial port by Google's gateway; `_hang_up` closes it."""
        at = access.gateway(self._lab.session.cloud, self.instance.thing.place)
        return self._lines.enter_context(access.serial_line(at, self.instance.thing, port, self.key))

    def _find_host_keys(self) -> tuple[str, ...]:
        """Return them from the serial console, or from the guest attributes that the guest agent writes."""
        deadline = time.monotonic() + _HOST_KEYS_SECONDS * self.scale
        pause = self._lab.session.cloud.pace.poll if self._lab.settings.emulated else _ATTRIBUTES_SECONDS
        while True:
            self._port.drain()
            if self._keys.lines:
                return self._keys.lines
            if found := self.instance.guest_attributes("hostkeys"):
                return tuple(f"{kind} {key}" for kind, key in found.items())
            if time.monotonic() > deadline:
                raise GuestError(
                    "the guest has told no ssh host key, neither by guest attributes nor on the serial console",
                    hint="the image needs google-startup-scripts.service, or a guest agent that sets host keys",
                )
            time.sleep(pause)

    # Power.

    def begin_reboot(self) -> None:
        """Tell the guest to reboot cleanly, for who has other things to do before `wait_ready`."""
        self._drain()
        super().begin_reboot()

    def power_cut(self) -> None:
        """Push the reset button by the API: what the guest had not synced is lost, and it boots at once."""
        self._hang_up()
        self._drain()
        self.follower.new_boot("power cut")
        self.instance.reset()

    def begin_power_on(self) -> None:
        """Do nothing: after `power_cut` it boots already."""

    def reset(self) -> Verdict:
        """Push the reset button by the API, and wait until the guest is ready again; raises BootError."""
        self.power_cut()
        return self.power_on()

    def stop_start(self) -> Verdict:
        """Stop the instance cleanly by the API, start it, and wait until it is ready; raises BootError."""
        self._hang_up()
        self.follower.expect_end()
        self._off.set()
        self.instance.stop()
        self._port.pause()
        self._off.clear()
        self._address = ""
        self.follower.new_boot("start")
        self.instance.start()
        self._port.resume(restarted=True)
        return self.wait_ready()

    def _drain(self) -> None:
        with contextlib.suppress(CloudError):
            self._port.drain()

    def _hang_up(self) -> None:
        super()._hang_up()
        self._lines.close()
