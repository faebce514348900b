"""Makes machines: waits for memory for each, starts its QEMU, and that of the next fork ahead of time."""

import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from vmtests.host.admission import OVERHEAD
from vmtests.host.firmware import Firmware
from vmtests.host.host import Host
from vmtests.machine.hardware import FirmwareKind, Hardware
from vmtests.machine.qemu import QemuMachine
from vmtests.machine.standby import Standby
from vmtests.machine.template import Template
from vmtests.sizes import MIB


class Pool:
    """Makes machines on `host`; `results` returns the directory for what QEMU writes about those that wait.

    Closing it ends what was started ahead of time.
    """

    def __init__(self, host: Host, results: Callable[[], Path]) -> None:
        self.host = host
        self._results = results
        self._standbys: dict[Path, Standby] = {}

    def room(self, hardware: Hardware, *, forked: bool = False) -> AbstractContextManager[None]:
        """Hold room in this host's memory for a machine, of which a fork takes little; raises HostError."""
        return self.host.admission.room(OVERHEAD + (0 if forked else hardware.memory_mib * MIB))

    def grow(self, hardware: Hardware) -> AbstractContextManager[None]:
        """Hold the room that a fork needs more when it boots anew; raises HostError."""
        return self.host.admission.room(hardware.memory_mib * MIB)

    def firmware(self, hardware: Hardware) -> Firmware | None:
        """Return the firmware that a machine gets from us; None where QEMU brings its own. Raises HostError."""
        if hardware.firmware is FirmwareKind.BIOS:
            return None
        return self.host.firmware(secure_boot=hardware.secure_boot)

    def cold(self, hardware: Hardware, image: Path, results: Path) -> QemuMachine:
        """Return a machine with the image's disk. Give it its listener (`QemuMachine.move`), then enter it."""
        return self._machine(hardware, image, results)

    def fork(self, hardware: Hardware, template: Template, results: Path) -> QemuMachine:
        """Return a machine that goes on from `template`, as `cold` does: one made ahead of time, or a new one."""
        standby = self._standbys.pop(template.directory, None)
        ready = None if standby is None else standby.take()
        return ready or self._machine(hardware, template.disk, results, template=template)

    def expect(self, hardware: Hardware, template: Template) -> None:
        """Start the next fork's QEMU in the background, up to its guest's first instruction."""
        if template.directory not in self._standbys:
            name = f".next-{secrets.token_hex(4)}"
            machine = self._machine(hardware, template.disk, self._results(), template=template, name=name)
            self._standbys[template.directory] = Standby(machine)

    def close(self) -> None:
        """End the machines that wait for forks; the next fork takes longer again."""
        while self._standbys:
            _, standby = self._standbys.popitem()
            standby.close()

    def _machine(
        self, hardware: Hardware, image: Path, results: Path, *, template: Template | None = None, name: str = ""
    ) -> QemuMachine:
        return QemuMachine(
            toolbox=self.host.toolbox,
            accelerator=self.host.accelerator,
            firmware=self.firmware(hardware),
            hardware=hardware,
            image=image,
            results=results,
            template=template,
            name=name,
            # What a killed run leaves is removed by the next one.
            scratch=self.host.scratch,
        )
