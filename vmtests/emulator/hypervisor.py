"""What the emulator asks of whatever runs its machines."""

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vmtests.emulator.http import Reply, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSpec:
    """A machine to be made: `disk` is a qcow2 file that it may write to; memory is in MiB."""

    name: str
    domain: str
    """The domain of its name."""
    identity: uuid.UUID
    cpus: int
    memory_mib: int
    disk: Path
    internal: str
    """Its IPv4 address in the instance's network."""
    external: str
    """The address on the host on which its ssh is reached."""
    nvme: bool = False
    secure_boot: bool = False
    tpm: bool = False


class Host(Protocol):
    """Hears a machine, in threads of the machine."""

    def serial(self, port: int, data: bytes, /) -> None:
        """Take bytes of a serial port (1 is ttyS0); must not block."""
        ...

    def off(self) -> None:
        """Learn that the machine is off: by its own doing, by `power_cut`, or because QEMU ended."""
        ...

    def metadata(self, request: Request, /) -> Reply:
        """Answer a request of the guest to 169.254.169.254."""
        ...


class Machine(Protocol):
    """The machine of one instance; off until `start`. One thread at a time may call its methods.

    What they raise is a VmtestsError.
    """

    def start(self) -> None:
        """Power on; also again, on the same disk and the same firmware variables."""
        ...

    def reset(self) -> None:
        """Push the reset button."""
        ...

    def power_button(self) -> None:
        """Push the power button (ACPI); `Host.off` is called when the guest has switched itself off."""
        ...

    def power_cut(self) -> None:
        """Take the power away; returns when the machine is off."""
        ...

    def type(self, port: int, data: bytes, /) -> None:
        """Type on a serial port (1 is ttyS0), from any thread; what there is no such port for is lost."""
        ...

    def screenshot(self) -> bytes:
        """Return the screen as a PNG image."""
        ...

    def close(self) -> None:
        """End it, whatever it does, and give everything back but the disk."""
        ...


class Hypervisor(Protocol):
    """Makes machines and their disks."""

    def make_disk(self, path: Path, image: Path | None, size: int) -> None:
        """Make a qcow2 disk of `size` bytes that shares the blocks of `image`, or is empty. Raises VmtestsError."""
        ...

    def machine(self, spec: MachineSpec, host: Host) -> Machine:
        """Return a machine that is off. Raises VmtestsError."""
        ...

    @property
    def ssh_port(self) -> int:
        """The port on which every machine's ssh is reached, on its external address."""
        ...
