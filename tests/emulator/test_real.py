"""Machines in QEMU, with a script in QEMU's place, in real network namespaces."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from tests.machine.conftest import FakeToolbox
from vmtests.emulator.http import Reply, Request
from vmtests.emulator.hypervisor import MachineSpec
from vmtests.emulator.real import QemuHypervisor, ssh_port
from vmtests.host.accel import Accelerator, AcceleratorName
from vmtests.host.firmware import Firmware, FirmwareFile


class Host:
    """Hears a machine, and can be waited on."""

    def __init__(self) -> None:
        self.said = bytearray()
        self.offs = 0
        self._changed = threading.Condition()

    def serial(self, port: int, data: bytes) -> None:
        """Keep what the first port says."""
        with self._changed:
            self.said += data if port == 1 else b""
            self._changed.notify_all()

    def off(self) -> None:
        """Count."""
        with self._changed:
            self.offs += 1
            self._changed.notify_all()

    def metadata(self, request: Request) -> Reply:
        """Say what was asked."""
        return Reply(body=request.path.encode())

    def wait(self, said: bytes, offs: int) -> None:
        """Wait until the port has said this, and the machine was off so often; fail after ten seconds."""
        with self._changed:
            assert self._changed.wait_for(lambda: (bytes(self.said), self.offs) == (said, offs), 10), self.said


@pytest.fixture
def hypervisor(tmp_path: Path) -> Iterator[QemuHypervisor]:
    """A hypervisor whose QEMU is a script."""
    template = tmp_path / "VARS.fd"
    template.write_bytes(b"variables")
    file = FirmwareFile(inside=Path("/fw/CODE.fd"), outside=template, format="raw")
    firmware = Firmware(code=file, vars_template=file, descriptor=template, description="plain", features=frozenset())
    lab: Any = SimpleNamespace(
        toolbox=FakeToolbox(),
        accelerator=Accelerator(name=AcceleratorName.TCG, reason="test", cpu="max", scale=4),
        firmware=lambda secure_boot=False: firmware,
    )
    with QemuHypervisor(lab, tmp_path / "machines") as made:
        yield made


def spec(disk: Path) -> MachineSpec:
    """Return a machine as an instance orders it."""
    return MachineSpec(
        name="vm",
        domain="z.c.p.internal",
        identity=UUID(int=1),
        cpus=2,
        memory_mib=8192,
        disk=disk,
        internal="10.128.0.16",
        external="127.251.7.9",
    )


def test_machine_lives_and_dies(hypervisor: QemuHypervisor, tmp_path: Path) -> None:
    """A machine says what its guest says, is off when it was cut off, and starts again on the same disk."""
    disk = tmp_path / "disk.qcow2"
    disk.write_bytes(b"QFI\xfb" + bytes(60))
    host = Host()
    machine = hypervisor.machine(spec(disk), host)
    try:
        machine.start()
        host.wait(b"BdsDxe: starting\r\n", 0)
        # The script forwards no port: the connection is taken, and ends.
        with socket.create_connection(("127.251.7.9", ssh_port()), timeout=10) as client:
            assert b"" == client.recv(1)
        machine.power_cut()
        machine.start()
        host.wait(b"BdsDxe: starting\r\n" * 2, 1)
    finally:
        machine.close()
    host.wait(b"BdsDxe: starting\r\n" * 2, 2)
    assert disk.exists()
    (command, _) = (tmp_path / "machines/1-vm/qemu.argv").read_text().splitlines()
    assert {"nsenter", "2048M"} <= set(command.split())


def test_machine_that_cannot_be_made_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine that cannot be made gives back its namespace, its sockets and its threads."""
    monkeypatch.setattr("vmtests.emulator.real.Relay", _refuse)
    lab: Any = SimpleNamespace(
        toolbox=FakeToolbox(), accelerator=SimpleNamespace(scale=1), firmware=lambda secure_boot=False: None
    )
    disk = tmp_path / "disk.qcow2"
    disk.write_bytes(b"QFI\xfb" + bytes(60))
    before = threading.active_count()
    with QemuHypervisor(lab, tmp_path / "machines") as hypervisor, pytest.raises(OSError, match="refused"):
        hypervisor.machine(spec(disk), Host())
    assert before == threading.active_count()


def _refuse(*_: object) -> None:
    raise OSError("refused")
