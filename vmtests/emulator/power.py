"""Switching instances on and off, by order and by the clock."""

from collections.abc import Callable

from vmtests.emulator import naming
from vmtests.emulator.instance import Instance, Status
from vmtests.emulator.operations import Cloud
from vmtests.emulator.timers import Timers
from vmtests.errors import VmtestsError


class Power:
    """Switches instances on and off; `expired` is called when one has had its `maxRunDuration`.

    Who switches has the instance's turn, and not the cloud's lock.
    """

    def __init__(self, cloud: Cloud, timers: Timers, expired: Callable[[Instance], None]) -> None:
        self._cloud = cloud
        self._timers = timers
        self._expired = expired

    def switch_on(self, instance: Instance) -> None:
        """Switch an instance on; its time begins."""
        machine = instance.power()
        instance.went_off = False
        machine.start()
        with self._cloud.changed:
            # A machine may have ended before anybody could say that it runs.
            instance.set_status(Status.TERMINATED if instance.went_off else Status.RUNNING)
            if not instance.went_off:
                self._set_expiry(instance)

    def switch_off(self, instance: Instance, seconds: float) -> None:
        """Push the power button, and take the power away when the guest is still on after `seconds`."""
        with self._cloud.changed:
            if instance.status is Status.TERMINATED:
                return
            instance.set_status(Status.STOPPING)
        self.cancel_expiry(instance)
        machine = instance.power()
        try:
            machine.power_button()
        except VmtestsError:
            # It may have gone off by itself just now.
            if not instance.went_off:
                raise
        with self._cloud.changed:
            self._cloud.changed.wait_for(lambda: instance.went_off or self._cloud.closing.is_set(), seconds)
        if not instance.went_off:
            machine.power_cut()

    def went_off(self, instance: Instance) -> None:
        """Take note that a machine is off: it was switched off, or its guest has switched itself off."""
        with self._cloud.changed:
            instance.went_off = True
            if instance.status in {Status.RUNNING, Status.STOPPING}:
                instance.set_status(Status.TERMINATED)
        self.cancel_expiry(instance)

    def cancel_expiry(self, instance: Instance) -> None:
        """Let the instance be, however long it runs."""
        with self._cloud.changed:
            if instance.expiry is not None:
                self._timers.cancel(instance.expiry)
                instance.expiry = None
                instance.resource.pop("resourceStatus", None)

    def _set_expiry(self, instance: Instance) -> None:
        limit = instance.resource["scheduling"].get("maxRunDuration")
        if not limit:
            return
        seconds = float(limit["seconds"])
        stamp = naming.timestamp(seconds)
        instance.resource["resourceStatus"] = {"scheduling": {"terminationTimestamp": stamp}}
        instance.expiry = self._timers.after(seconds, lambda: self._expired(instance))
