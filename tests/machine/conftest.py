"""Facts and stand-ins for the tests of the machine."""

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vmtests.host.accel import Accelerator, AcceleratorName
from vmtests.host.firmware import Firmware, FirmwareFile
from vmtests.host.sandbox import View, sandbox
from vmtests.host.tools import Tool, Toolbox
from vmtests.machine.events import MachineEvent

FAKE_QEMU = Path(__file__).with_name("fake_qemu.py")


class Recorder:
    """A listener that remembers everything, in order, and can be waited on."""

    def __init__(self) -> None:
        self.console = bytearray()
        self.heard: list[tuple[str, object]] = []
        self._changed = threading.Condition()

    def _add(self, kind: str, what: object) -> None:
        with self._changed:
            self.heard.append((kind, what))
            self._changed.notify_all()

    def feed(self, data: bytes) -> None:
        """Remember console bytes."""
        self.console += data
        self._add("console", data)

    def feed_firmware(self, data: bytes) -> None:
        """Remember firmware bytes."""
        self._add("firmware", data)

    def event(self, event: MachineEvent) -> None:
        """Remember an event."""
        self._add("event", event)

    def new_boot(self, reason: str) -> None:
        """Remember a new boot."""
        self._add("new_boot", reason)

    def expect_end(self) -> None:
        """Remember that the end is expected."""
        self._add("expect_end", None)

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds; fail after ten seconds."""
        with self._changed:
            assert self._changed.wait_for(condition, 10), self.heard

    @property
    def events(self) -> list[MachineEvent]:
        """The events, in order."""
        return [what for _, what in self.heard if isinstance(what, MachineEvent)]


class FakeToolbox(Toolbox):
    """A toolbox whose QEMU is a Python script, in a real sandbox."""

    def __init__(self) -> None:
        names = ("qemu-system-x86_64", "qemu-img")
        found = {name: Tool(name=name, version="10.0", from_host=True, why="test") for name in names}
        super().__init__(found, None)

    def argv(self, name: str, *args: str | os.PathLike[str], view: View | None = None) -> list[str]:
        """Return the command line of the script, which lies outside of what a view shows."""
        return [*sandbox(Path("/")), sys.executable, str(FAKE_QEMU), name, *(os.fspath(arg) for arg in args)]

    def run(self, name: str, *args: str | os.PathLike[str], **_: object) -> str:
        """Make the last path of a command line, which is the overlay."""
        Path(next(arg for arg in reversed([os.fspath(arg) for arg in args]) if arg.startswith("/"))).touch()
        return ""


@pytest.fixture
def recorder() -> Recorder:
    """A listener."""
    return Recorder()


@pytest.fixture
def tcg() -> Accelerator:
    """The accelerator of a host without KVM."""
    return Accelerator(name=AcceleratorName.TCG, reason="test", cpu="max", scale=4)


@pytest.fixture
def ovmf(tmp_path: Path) -> Firmware:
    """Firmware with a template of its variables on disk."""
    template = tmp_path / "VARS.fd"
    template.write_bytes(b"variables")
    return Firmware(
        code=FirmwareFile(inside=Path("/fw/CODE.fd"), outside=Path("/tree/fw/CODE.fd"), format="raw"),
        vars_template=FirmwareFile(inside=Path("/fw/VARS.fd"), outside=template, format="raw"),
        descriptor=Path("/tree/60.json"),
        description="plain",
        features=frozenset(),
    )


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(10)
        yield ours, theirs
