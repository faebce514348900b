"""What the fixtures `cold_vm` and `fresh_vms` give to a test: functions that make machines."""

from collections.abc import Sequence
from typing import Protocol

from vmtests.machine.hardware import Hardware
from vmtests.vm.vm import Vm


class ColdVm(Protocol):
    """A factory of machines of one test's own, each booted cold; they end with the test."""

    def __call__(
        self, hardware: Hardware | None = None, modules: Sequence[str] | None = None, *, ready: bool = True
    ) -> Vm:
        """Boot a machine and return it when it is ready, or with `ready=False` as soon as it is powered on.

        `modules`, such as `debug` and `bloat:1G`, are those of the reference image, which is booted then. A boot that
        fails is a failure of the test that says why.
        """


class FreshVms(Protocol):
    """A factory of pristine booted machines of one test's own; they end with the test."""

    def __call__(self, count: int, /) -> list[Vm]:
        """Return so many machines that share nothing, forked from the booted one where machines are forked."""
