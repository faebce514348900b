"""Machines that boot, in QEMU, each in a network namespace of its own with its metadata server."""

import contextlib
import functools
import itertools
import os
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from vmtests.emulator.guestnet import GuestNetwork
from vmtests.emulator.hypervisor import Host, MachineSpec
from vmtests.emulator.metadata import ADDRESS
from vmtests.emulator.relay import Relay
from vmtests.emulator.server import listen
from vmtests.host.host import Host as ThisHost
from vmtests.machine import disk
from vmtests.machine.events import EXIT, MachineEvent
from vmtests.machine.hardware import DiskBus, Hardware, Net
from vmtests.machine.netns import Namespaces
from vmtests.machine.qemu import DEBUG_PORT, QemuMachine

MEMORY_MIB = 2048
"""Memory that a machine has at most, whatever its machine type says, unless told otherwise."""

SSH_PORTS = (22, 2222)
"""Where ssh is reached: the first that this host lets us listen on."""

_TRIED = "127.251.251.251"
_READ = 64 << 10
_CONNECT_SECONDS = 10.0
_EXIT_SECONDS = 10.0


@dataclass(slots=True)
class _Ear:
    """Hears QEMU for the instance."""

    host: Host

    def feed(self, data: bytes, /) -> None:
        """Take bytes of ttyS0."""
        self.host.serial(1, data)

    def feed_firmware(self, data: bytes, /) -> None:
        """Drop what the firmware says for its developers: Compute Engine does not tell either."""

    def event(self, event: MachineEvent, /) -> None:
        """Tell the end of QEMU; all other events are the guest's own business."""
        if event.name == EXIT:
            self.host.off()

    def new_boot(self, reason: str, /) -> None:
        """The port goes on."""

    def expect_end(self) -> None:
        """The end is told when it comes."""


class RealMachine:
    """The machine of an instance, in QEMU."""

    def __init__(
        self,
        this_host: ThisHost,
        spec: MachineSpec,
        host: Host,
        namespaces: Namespaces,
        results: Path,
        memory_mib: int,
    ):
        self._host = host
        self._stack = contextlib.ExitStack()
        self._started = False
        with contextlib.ExitStack() as stack:
            self._namespace = stack.enter_context(contextlib.closing(namespaces.new()))
            names = {
                "metadata.google.internal": ADDRESS,
                "metadata": ADDRESS,
                f"{spec.name}.{spec.domain}": spec.internal,
            }
            stack.enter_context(GuestNetwork(self._namespace, host.metadata, names))
            self._qemu = QemuMachine(
                toolbox=this_host.toolbox,
                accelerator=this_host.accelerator,
                firmware=this_host.firmware(secure_boot=spec.secure_boot),
                hardware=Hardware(
                    memory_mib=min(spec.memory_mib, memory_mib),
                    cpus=min(spec.cpus, os.cpu_count() or 1),
                    secure_boot=spec.secure_boot,
                    tpm=spec.tpm,
                    net=Net.USER,
                    hostname=spec.name,
                    domain=spec.domain,
                    address=spec.internal,
                    identity=spec.identity,
                    disk_bus=DiskBus.NVME if spec.nvme else None,
                ),
                image=spec.disk,
                own=True,
                results=results,
                listener=_Ear(host),
                namespace=self._namespace,
            )
            stack.callback(self._qemu.close)
            stack.enter_context(Relay(spec.external, ssh_port(), self._connect))
            self._stack = stack.pop_all()

    def start(self) -> None:
        """Start QEMU."""
        if self._started:
            # Who hears that QEMU has ended is told a moment before it may be started again.
            self._qemu.wait_exit(_EXIT_SECONDS)
            self._qemu.start()
        else:
            self._qemu.__enter__()
            self._started = True
        tap = self._qemu.serial(DEBUG_PORT)
        threading.Thread(target=self._hear, args=(tap,), name="ttyS1", daemon=True).start()

    def reset(self) -> None:
        """Push the reset button."""
        self._qemu.reset()

    def power_button(self) -> None:
        """Push the power button."""
        self._qemu.powerdown()

    def power_cut(self) -> None:
        """Kill QEMU."""
        if self._qemu.alive:
            self._qemu.power_cut()

    def type(self, port: int, data: bytes) -> None:
        """Type on one of the two ports that there are."""
        if port <= DEBUG_PORT + 1:
            self._qemu.send_serial(data, port - 1)

    def screenshot(self) -> bytes:
        """Return the screen as PNG."""
        path = self._qemu.screenshot()
        data = path.read_bytes()
        path.unlink()
        return data

    def close(self) -> None:
        """End QEMU and everything around it."""
        self._stack.close()

    def _hear(self, tap: socket.socket) -> None:
        with tap:
            while data := tap.recv(_READ):
                self._host.serial(DEBUG_PORT + 1, data)

    def _connect(self) -> socket.socket:
        return self._namespace.connect(self._qemu.ssh_port, _CONNECT_SECONDS)


class QemuHypervisor:
    """Makes machines in QEMU; a context manager. What QEMU writes about each machine goes below `results`.

    Raises InputError when `memory_mib`, the most that a machine gets, is not enough for one.
    """

    def __init__(self, this_host: ThisHost, results: Path, *, memory_mib: int = MEMORY_MIB) -> None:
        # Too little of it is said now, not at the first instance.
        Hardware(memory_mib=memory_mib)
        self._this_host = this_host
        self._results = results
        self._memory_mib = memory_mib
        self._namespaces = Namespaces(ADDRESS)
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        self._namespaces.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._namespaces.__exit__(kind, error, trace)

    @property
    def ssh_port(self) -> int:
        """The port of every machine's ssh."""
        return ssh_port()

    def probe(self) -> None:
        """Find out how machines run here; raises HostError when none can."""
        self._this_host.firmware()
        _ = self._this_host.accelerator

    def make_disk(self, path: Path, image: Path | None, size: int) -> None:
        """Make a qcow2 file."""
        if image is not None:
            disk.make_overlay(self._this_host.toolbox, disk.backing(image), path, size)
        else:
            self._this_host.toolbox.run("qemu-img", "create", "-q", "-f", "qcow2", path, str(size))

    def machine(self, spec: MachineSpec, host: Host) -> RealMachine:
        """Return a machine in QEMU, off."""
        results = self._results / f"{next(self._numbers)}-{spec.name}"
        return RealMachine(self._this_host, spec, host, self._namespaces, results, self._memory_mib)


@functools.cache
def ssh_port() -> int:
    """Return the port on which ssh is reached: 22 where we may listen on it, else one for everybody."""
    for port in SSH_PORTS[:-1]:
        with contextlib.suppress(OSError):
            listen(_TRIED, port).close()
            return port
    return SSH_PORTS[-1]
