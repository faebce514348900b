"""The cockpit at a machine that somebody else has made, and goes on with: `pytest --vm-console`."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from vmtests import progress
from vmtests.boot.follow import Watch
from vmtests.boot.stages import Stage
from vmtests.cockpit import runtime
from vmtests.cockpit.port import Way
from vmtests.cockpit.qemu import QemuHands
from vmtests.cockpit.run import fly, own
from vmtests.cockpit.session import Session
from vmtests.errors import HostError, VmtestsError
from vmtests.qemu.lab import Lab
from vmtests.qemu.vm import QemuVm
from vmtests.text import printable
from vmtests.vm.vm import Vm


class Visit(QemuHands):
    """What can be done with `vm`, which stays its owner's; only what was kept in the visit is gone back to."""

    def __init__(self, vm: Vm, lab: object, directory: Path) -> None:
        self.vm = vm
        self._kept = {}
        if isinstance(lab, Lab) and isinstance(vm, QemuVm):
            super().__init__(lab, vm.image, vm.hardware, directory, debug=vm.image.debug)
            self._name("the machine that is there")
        self.title = vm.results.name

    @contextlib.contextmanager
    def boot(self, watch: Watch, /, *, debug: bool = False) -> Iterator[Vm]:
        """Give the machine as it is."""
        del watch
        if debug:
            raise HostError("a machine of a test is not booted anew", hint="`vmtests boot --debug` boots its image so")
        yield self.vm

    def points(self) -> Mapping[str, bool]:
        """Return what was kept."""
        return dict.fromkeys(self._kept, True)

    def keep_stage(self, vm: Vm, stage: Stage, /) -> bool:
        """Keep nothing: what is visited is beyond it."""
        del vm, stage
        return False

    def said(self, vm: Vm, way: Way, /) -> bytes:
        """Return the last bytes of a serial port, where that is known."""
        return super().said(vm, way) if isinstance(vm, QemuVm) else b""


def visit(vm: Vm, lab: object, why: str) -> None:
    """Have a person at a machine, until they leave, with its console taken, and say `why`.

    `lab` has made it. What keeps it from that is told.
    """
    try:
        with (
            own(),
            runtime.directory() as directory,
            Session(Visit(vm, lab, directory), vm.results, follow=False, says=printable(why)) as session,
        ):
            fly(session, line=True)
    except VmtestsError as error:
        progress.stderr().print(f"vmtests: {error}")
