"""Machines that only say that they boot: for tests of what talks to the API."""

import threading
from collections.abc import Callable
from pathlib import Path

from vmtests.emulator.hypervisor import Host, MachineSpec
from vmtests.errors import HostError

BOOT = (
    b'BdsDxe: loading Boot0001 "UEFI Google PersistentDisk " from PciRoot(0x0)/Pci(0x3,0x0)/Scsi(0x1,0x0)\r\n'
    b"EFI stub: Loaded initrd from LINUX_EFI_INITRD_MEDIA_GUID device path\r\n"
    b"[    0.000000] Linux version 6.12.0-fake\r\n"
    b"[  OK  ] Reached target Multi-User System.\r\n"
)
"""What a fake machine says on its first serial port at each start and reset, unless it is given something else."""

_PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a49444154789c63680000008200"
    "8177cd72b60000000049454e44ae426082"
)


class FakeMachine:
    """A machine without a guest; tests make it say and do things. `deaf` ones do not hear the power button."""

    def __init__(self, spec: MachineSpec, host: Host, boot: bytes, *, deaf: bool) -> None:
        self.spec = spec
        self.host = host
        self.boots = 0
        self.deaf = deaf
        self._boot = boot
        self._on = False
        self._lock = threading.Lock()

    @property
    def on(self) -> bool:
        """Whether it is powered on."""
        return self._on

    def start(self) -> None:
        """Power on, and say so on the first serial port."""
        with self._lock:
            if self._on:
                raise HostError("the machine is powered on already")
            self._on = True
        self._say()

    def reset(self) -> None:
        """Say it again."""
        self._say()

    def power_button(self) -> None:
        """Go off, unless it is deaf."""
        if not self.deaf:
            self.power_cut()

    def power_cut(self) -> None:
        """Go off."""
        with self._lock:
            was_on, self._on = self._on, False
        if was_on:
            self.host.off()

    def type(self, port: int, data: bytes) -> None:
        """Echo what is typed, in capitals."""
        self.host.serial(port, data.upper())

    def screenshot(self) -> bytes:
        """Return a grey pixel."""
        return _PNG

    def close(self) -> None:
        """Go off."""
        self.power_cut()

    def _say(self) -> None:
        self.boots += 1
        self.host.serial(1, self._boot)


class FakeHypervisor:
    """Makes fake machines, and keeps them by name in `machines`; `boot` is what one says when it starts."""

    def __init__(self, boot: Callable[[MachineSpec], bytes] = lambda _: BOOT, *, deaf: bool = False) -> None:
        self.machines: dict[str, FakeMachine] = {}
        self._boot = boot
        self._deaf = deaf

    @property
    def ssh_port(self) -> int:
        """What would be the port of ssh."""
        return 22

    def make_disk(self, path: Path, image: Path | None, size: int) -> None:
        """Make an empty file."""
        del image, size
        path.touch()

    def machine(self, spec: MachineSpec, host: Host) -> FakeMachine:
        """Return a fake machine."""
        made = self.machines[spec.name] = FakeMachine(spec, host, self._boot(spec), deaf=self._deaf)
        return made
