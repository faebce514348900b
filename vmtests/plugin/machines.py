"""What the fixtures do: images and machines from a laboratory, with a directory of results for each machine."""

import contextlib
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

from vmtests.boot.stages import Stage
from vmtests.errors import InputError
from vmtests.machine.hardware import Hardware
from vmtests.plugin.run import Run
from vmtests.plugin.targets import LABORATORIES
from vmtests.qemu.lab import Lab
from vmtests.vm import ColdVm, FreshVms, Heartbeat, Image, Kept, Laboratory, Vm

_NAME_LIMIT = 80  # bytes, of the 255 that a file's name may have; a number and others' suffixes come after it


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A machine that got ready, and what forks go on from; None where machines are not forked."""

    vm: Vm
    snapshot: Kept | None
    hardware: Hardware | None


class Machines:
    """A laboratory as the options want it, and its machines."""

    def __init__(self, config: pytest.Config, run: Run, lab: Laboratory) -> None:
        self._option = config.getoption
        self.run = run
        self.lab = lab

    @classmethod
    @contextlib.contextmanager
    def of(cls, config: pytest.Config, machine_type: str = "") -> Iterator[Self]:
        """Give those of a run, on one machine type where they are on Compute Engine."""
        run = config.stash.get(RUN, None)
        if run is None:
            pytest.fail(
                "no test names a machine's fixture: request.getfixturevalue() alone is too late; name it among the "
                "arguments of a test or fixture, or by @pytest.mark.usefixtures",
                pytrace=False,
            )
        with LABORATORIES[config.getoption("vm_target")](config, run, machine_type) as lab:
            yield cls(config, run, lab)

    def image(self, name: str | None, modules: tuple[str, ...] | None) -> Image:
        """Return the image that a test names, or that of the options; modules are of the reference image."""
        with self.run.uncaptured():
            if name is None and modules is None:
                return self.lab.image(self._option("vm_image"), self._option("vm_module"))
            return self.lab.image(name or "reference", modules or ())

    @contextlib.contextmanager
    def ready(self, image: Image, hardware: Hardware | None) -> Iterator[Ready]:
        """Give a machine that got ready, and the snapshot of it, if machines are forked here."""
        name = "" if hardware is None and self._first else self._name("shared")
        self._first = False
        with contextlib.ExitStack() as stack:
            with self.run.uncaptured():
                if (stage := self._option("vm_from")) is not None and isinstance(self.lab, Lab):
                    rewound = self.lab.rewind(image, Stage(stage), hardware, name=name, watch=Heartbeat())
                    vm = stack.enter_context(rewound)
                    stack.enter_context(self.run.at_hand(vm, self.lab))
                    place = self.lab.host.scratch / f"from-{stage}-{name}"
                    ready = Ready(vm=vm, snapshot=vm.snapshot(place), hardware=hardware)
                else:
                    reuse = self._option("vm_reuse")
                    started = self.lab.start(image, hardware, name=name, watch=Heartbeat(), cache=reuse)
                    start = stack.enter_context(started)
                    stack.enter_context(self.run.at_hand(start.vm, self.lab))
                    ready = Ready(vm=start.vm, snapshot=start.wait(), hardware=hardware)
                    ready.vm.keep()
            yield ready

    _first = True

    def check(self, vm: Vm) -> None:
        """Fail when an earlier test has brought a machine down."""
        if (failure := vm.follower.failure_after_ready) is not None:
            pytest.fail(f"the machine failed in an earlier test: {failure.sentence}", pytrace=False)

    @contextlib.contextmanager
    def fresh(self, image: Image, ready: Ready, test: str) -> Iterator[FreshVms]:
        """Give what makes pristine machines for a test, by its node id."""
        with self._entered_for(test) as enter:

            def make(count: int) -> list[Vm]:
                with self.run.uncaptured():
                    forking = self.lab.forks and self._option("vm_fresh") == "fork"
                    made: list[Vm] = []
                    for _ in range(count):
                        name = self._name(test)
                        made.append(
                            enter(self.lab.fork(image, ready.snapshot, name=name))
                            if forking
                            else enter(self.lab.machine(image, ready.hardware, name=name, watch=Heartbeat()))
                        )
                    if not forking:
                        for machine in made:
                            machine.wait_ready()
                    return made

            yield make

    @contextlib.contextmanager
    def cold(self, image: Image, needed: Hardware | None, test: str) -> Iterator[ColdVm]:
        """Give what makes machines that boot for a test, by its node id."""
        with self._entered_for(test) as enter:

            def make(
                hardware: Hardware | None = None, modules: Sequence[str] | None = None, *, ready: bool = True
            ) -> Vm:
                with self.run.uncaptured():
                    chosen = image if modules is None else self.lab.image("reference", modules)
                    machine = self.lab.machine(chosen, hardware or needed, name=self._name(test), watch=Heartbeat())
                    enter(machine)
                    if ready:
                        machine.wait_ready()
                return machine

            yield make

    @contextlib.contextmanager
    def _entered_for(self, test: str) -> Iterator[Callable[[Vm], Vm]]:
        """Give what enters machines that end with the test; it enters none that would outlive it."""
        over = False
        with contextlib.ExitStack() as stack:

            def enter(machine: Vm) -> Vm:
                if over:
                    raise InputError(f"{test} is over: what makes its machines makes none for others")
                self.run.forms.had(test, machine)
                stack.enter_context(machine)
                stack.enter_context(self.run.at_hand(machine, self.lab))
                return machine

            yield enter
            over = True

    def _name(self, test: str) -> str:
        """Return the name of a directory below the results that is nobody's yet, for a machine of this test."""
        return free_name(self.lab.results, test)


def free_name(directory: Path, test: str) -> str:
    """Return a name that no file in `directory` has, told from the node id of a test: `test_file.test_name-1`."""
    file, _, name = test.partition("::")
    told = re.sub(r"[^A-Za-z0-9._=+,-]+", "_", f"{Path(file).stem}.{name}" if name else file)
    told = told.strip("._-")[:_NAME_LIMIT] or "machine"
    return next(free for n in itertools.count(1) if not (directory / (free := f"{told}-{n}")).exists())


RUN = pytest.StashKey[Run]()
"""Where the run of a process is that has tests which need machines."""
