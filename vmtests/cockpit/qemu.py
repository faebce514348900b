"""What the cockpit does with machines under QEMU."""

import contextlib
import itertools
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

from vmtests.boot.follow import Watch
from vmtests.boot.stages import Stage
from vmtests.cockpit.port import Way, Wire
from vmtests.errors import GuestError, HostError
from vmtests.image.image import Image
from vmtests.machine.hardware import Hardware
from vmtests.machine.qemu import CONSOLE_PORT, DEBUG_PORT
from vmtests.qemu import gdb
from vmtests.qemu.lab import REWINDS, Lab
from vmtests.qemu.snapshots import RECORD, Snapshot
from vmtests.qemu.vm import QemuVm
from vmtests.vm.vm import Vm

_SAID = 4096  # bytes of a line that are shown when it is taken


class QemuHands:
    """Makes machines in `lab` with one image and hardware; with `debug` each has a shell in stage 1.

    `directory` is this user's alone, and gets the sockets of debuggers.
    """

    def __init__(self, lab: Lab, image: Image, hardware: Hardware, directory: Path, *, debug: bool) -> None:
        self._directory = directory
        self._lab = lab
        self._image = image
        self._hardware = hardware
        self._debug = debug
        self._numbers = itertools.count(1)
        self._kept: dict[str, Snapshot] = {}
        self._places: dict[tuple[Stage, bool], Path] = {}
        self.title = f"{image.name} · {lab.host.accelerator.name}"

    @contextlib.contextmanager
    def boot(self, watch: Watch, /, *, debug: bool = False) -> Iterator[Vm]:
        """Give a machine that is powered on."""
        self._debug = self._debug or debug
        name = self._name("boot")
        with self._lab.machine(self._image, self._hardware, name=name, watch=watch, debug=self._debug) as vm:
            yield vm

    def points(self) -> Mapping[str, bool]:
        """Return power-on, the stages, and what was kept in this session."""
        stages = {str(stage): self._record(stage).is_file() for stage in REWINDS}
        return {str(Stage.FIRMWARE): False, **stages, **dict.fromkeys(self._kept, True)}

    @contextlib.contextmanager
    def go_back(self, point: str, watch: Watch, /) -> Iterator[Vm]:
        """Give a machine that goes on from a point."""
        name = self._name(f"from-{point}")
        if (kept := self._kept.get(point)) is not None:
            with self._lab.go_on(self._image, kept, name=name, watch=watch) as vm:
                yield vm
            return
        rewound = self._lab.rewind(
            self._image, Stage(point), self._hardware, name=name, watch=watch, debug=self._debug
        )
        with rewound as vm:
            yield vm

    def keep_stage(self, vm: Vm, stage: Stage, /) -> bool:
        """Keep a machine that stands where `stage` begins, for other sessions too."""
        return self._lab.keep(_qemu(vm), stage, self._hardware, debug=self._debug)

    def keep(self, vm: Vm, /) -> str:
        """Keep a machine as it is, until the session ends."""
        point = f"{len(self._kept) + 1}: {vm.follower.pulse.t:.1f} s, {vm.follower.stage}"
        place = self._lab.host.scratch / f"{secrets.token_hex(4)}.point"
        self._kept[point] = _qemu(vm).snapshot_here(place)
        return point

    def sysrq(self, vm: Vm, key: str, /) -> None:
        """Send a break and the key on the console."""
        _qemu(vm).doctor.sysrq(key)

    def pause(self, vm: Vm, /, *, still: bool) -> None:
        """Stop the processors, or let them go on."""
        _qemu(vm).qemu.execute("stop" if still else "cont")

    def gdb(self, vm: Vm, /) -> str:
        """Open QEMU's stub."""
        machine = _qemu(vm)
        directory = self._directory / (machine.results.name if machine.results != self._lab.results else "first")
        directory.mkdir(mode=0o700, exist_ok=True)
        fixed = "nokaslr" in self._hardware.cmdline_extra.split()
        return gdb.open_stub(machine.qemu, machine.doctor, directory, fixed=fixed)

    def said(self, vm: Vm, way: Way, /) -> bytes:
        """Return the last bytes of a serial port."""
        return _qemu(vm).qemu.written(CONSOLE_PORT if way is Way.CONSOLE else DEBUG_PORT, _SAID)

    def debug_line(self, vm: Vm, /) -> Wire:
        """Return the second serial port."""
        if not self._debug:
            raise GuestError("this boot has no debug shell", hint="D boots anew with one, as --debug does")
        return _qemu(vm).qemu.serial(DEBUG_PORT)

    def _record(self, stage: Stage) -> Path:
        if (place := self._places.get((stage, self._debug))) is None:
            place = self._lab.place(self._image, stage, self._hardware, debug=self._debug)
            self._places[stage, self._debug] = place
        return place / RECORD

    def _name(self, what: str) -> str:
        """Return the directory of a machine below the results; the first has none of its own."""
        number = next(self._numbers)
        safe = "".join(c if c.isalnum() or c in "-." else "-" for c in what)
        return "" if number == 1 else f"{safe}-{number}"


def _qemu(vm: Vm) -> QemuVm:
    if not isinstance(vm, QemuVm):
        raise HostError("only a machine under QEMU can do this")
    return vm
