"""A machine on Compute Engine, as tests and programs use any machine."""

import contextlib
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from vmtests import progress
from vmtests.boot.budgets import Budgets
from vmtests.boot.explain import Knowledge
from vmtests.boot.follow import Follower, Watch
from vmtests.boot.machine_rules import CLOUD_END
from vmtests.boot.verdict import Cause, Verdict
from vmtests.errors import InputError, Owner
from vmtests.gce.errors import CloudError
from vmtests.gce.guest import HostKeys
from vmtests.gce.instance import Instance, Order
from vmtests.gce.reach import CONSOLE, SECOND, GceReach
from vmtests.gce.serialport import PollPace, SerialFollower, SerialReader
from vmtests.gce.session import Session
from vmtests.guest.guest import Guest
from vmtests.guest.keys import Key
from vmtests.host.results import held
from vmtests.image.image import Image
from vmtests.machine.events import SHUTDOWN, MachineEvent
from vmtests.vm.vm import Vm

_ON = frozenset(("PROVISIONING", "STAGING", "RUNNING"))  # "VM instance lifecycle"
# What a silence may be taken for.
_SILENCES = frozenset((Cause.DEVICE_TIMEOUT, Cause.KERNEL_HANG, Cause.NO_PROGRESS, Cause.TIME_LIMIT))
_NOBODY_KNOWS = "it does not run, and Compute Engine does not say why"


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
        image: Image,
        results: Path,
        order: Order,
        *,
        key: Key,
        token: str,
        knowledge: Knowledge,
        session: Session,
        insert: Callable[[Order], Instance],
        seat: Callable[[], AbstractContextManager[None]],
        scale: float,
        poll_pace: PollPace,
        watch: Watch | None = None,
        timeout: float | None = None,
    ) -> None:
        super().__init__(image, results)
        self._timeout = timeout
        self.order = order
        self._own_key = key
        self._token = token
        self._knowledge = knowledge
        self._session = session
        self._insert = insert
        self._seat = seat
        self._scale = scale
        self._poll_pace = poll_pace
        self._watch = watch
        self._off = threading.Event()

    @property
    def scale(self) -> float:
        """A shared processor, and seconds until the API tells what was said; an emulator has no KVM, maybe."""
        return self._scale

    def __enter__(self) -> Self:
        try:
            self._put_together()
        except BaseException:
            self._end()
            raise
        return self

    def _put_together(self) -> None:
        self._stack.callback(self._own_key.forget)
        self._stack.enter_context(held(self.results))
        self._stack.enter_context(self._seat())
        self.say_what_is_booted(f"Compute Engine, {self.order.machine}")
        self.instance = self._insert(self.order)
        self._stack.callback(self.instance.delete)
        self.follower = self._stack.enter_context(
            Follower(
                self.results,
                budgets=Budgets(scale=self.scale, whole=self._timeout),
                # When the power came on nobody tells; the first byte is what is known.
                ready_token=self._token,
                knowledge=self._knowledge,
                watch=self._watch,
                on_failure=lambda: self.guest.interrupt(),
            )
        )
        keys = HostKeys(self._token)
        reader = SerialReader(lambda start: self.instance.serial(start, CONSOLE))
        self._port = SerialFollower(reader, _Ear(self.follower, keys), self._went_off, self._poll_pace)
        self._stack.enter_context(self._port)
        self._stack.callback(self._save)
        self._reach = GceReach(
            self._session.cloud,
            self.instance,
            self._port,
            keys,
            scale=self.scale,
            wait_ready=self.wait_ready,
            is_ready=lambda: self.verdict is not None and self.verdict.ready,
        )
        self.guest = Guest(self._reach, self._own_key, scale=self.scale)
        self._stack.callback(self.guest.hang_up)

    def fork(self, name: str = "") -> "GceVm":
        """Raise InputError: Compute Engine forks no machine."""
        del name
        raise InputError("Compute Engine forks no machine", hint="boot another one of the same image")

    def close(self) -> None:
        """Save the consoles and delete the instance; a failure to delete it is left to the end of the run."""
        self._end()

    def _end(self) -> None:
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
            reason = self.instance.ended_by()
            if not reason and self.instance.status in _ON:
                self._port.resume()  # it was only a moment
                return
        except CloudError:
            reason = _NOBODY_KNOWS
        self._off.set()
        event, reason = (CLOUD_END.name, reason) if reason else (SHUTDOWN, "guest-shutdown")
        self.follower.event(MachineEvent(name=event, detail={"reason": reason}, t=time.monotonic()))

    # Following.

    def wait_verdict(self) -> Verdict:
        """Wait for the verdict on this boot; a guest that powers itself off may have been told to by the cloud.

        Of one that is silent because nobody could hear it nothing is known.
        """
        verdict = super().wait_verdict()
        if verdict.cause in _SILENCES and (deaf := self._port.deaf) is not None:
            sentence = f"the console could not be read any more, {deaf.message}"
            verdict = replace(verdict, sentence=sentence, hint=deaf.hint or "", owner=deaf.owner, unknown=False)
            self.follower.amend(verdict)
        if verdict.cause is Cause.POWERED_OFF and verdict.owner is Owner.IMAGE:
            with contextlib.suppress(CloudError):
                if reason := self.instance.ended_by():
                    sentence = CLOUD_END.sentence.format(reason=reason)
                    verdict = replace(verdict, sentence=sentence, hint=CLOUD_END.hint, owner=CLOUD_END.owner)
                    self.follower.amend(verdict)
        return verdict

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
        data = self.instance.serial(0, SECOND).data
        (self.results / "ttyS1.log").write_bytes(data)
        return data

    def screenshot(self) -> Path:
        """Write the screen to a JPEG or PNG file and return its path."""
        data = self.instance.screenshot()
        path = self.results / ("screenshot.png" if data.startswith(b"\x89PNG") else "screenshot.jpg")
        path.write_bytes(data)
        return path

    # Power.

    def begin_reboot(self) -> None:
        """Tell the guest to reboot cleanly, for who has other things to do before `wait_ready`."""
        self._drain()
        super().begin_reboot()

    def power_cut(self) -> None:
        """Push the reset button by the API: what the guest had not synced is lost, and it boots at once."""
        self.guest.hang_up()
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
        self.guest.hang_up()
        self.follower.expect_end()
        self._off.set()
        self.instance.stop()
        self._port.pause()
        self._off.clear()
        self._reach.moved()
        self.follower.new_boot("start")
        self.instance.start()
        self._port.resume(restarted=True)
        return self.wait_ready()

    def _drain(self) -> None:
        with contextlib.suppress(CloudError):
            self._port.drain()
