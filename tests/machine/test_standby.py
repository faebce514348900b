"""A machine that is made ahead of time, with a script in QEMU's place."""

import contextlib
import errno
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.machine.conftest import FakeToolbox, Recorder
from vmtests.errors import InputError
from vmtests.host.accel import Accelerator
from vmtests.host.firmware import Firmware
from vmtests.machine.hardware import Hardware
from vmtests.machine.qemu import QemuMachine
from vmtests.machine.standby import Standby

Make = Callable[..., QemuMachine]
LOGS = {"qemu.argv", "qemu.stderr", "ttyS0.log", "ttyS1.log"}


@pytest.fixture
def make(tmp_path: Path, tcg: Accelerator, ovmf: Firmware) -> Make:
    """Return a function that makes a machine for nobody yet, of some hardware."""
    image = tmp_path / "disk.raw"
    image.write_bytes(b"x" * 512)

    def make(hostname: str = "vm-1") -> QemuMachine:
        return QemuMachine(
            toolbox=FakeToolbox(),
            accelerator=tcg,
            firmware=ovmf,
            hardware=Hardware(hostname=hostname),
            image=image,
            results=tmp_path / "results",
            name=".next",
        )

    return make


def _files(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_machine_is_that_of_who_takes_it(make: Make, tmp_path: Path, recorder: Recorder) -> None:
    """Its first instruction comes when it is entered; then its words and its files go to who has taken it."""
    standby = Standby(make())
    machine = standby.take()
    assert machine is not None
    assert None is standby.take()
    mine = tmp_path / "results/mine"
    mine.mkdir()
    machine.move(mine, recorder)
    assert b"" == bytes(recorder.console)
    with machine:
        recorder.wait(lambda: recorder.console == b"BdsDxe: starting\r\n")
        assert 40697 == machine.ssh_port
        machine.power_cut()
        machine.start()
        recorder.wait(lambda: recorder.console == b"BdsDxe: starting\r\n" * 2)
    assert (LOGS, {"mine"}) == (_files(mine), _files(mine.parent))
    assert ("new_boot", "power-on") in recorder.heard


def test_machine_that_nobody_takes_leaves_nothing(make: Make, tmp_path: Path) -> None:
    """At the end a machine that waits is ended, and nothing of it is in the results."""
    threads = threading.active_count()
    machine = make()
    Standby(machine).close()
    assert (False, set()) == (machine.alive, _files(tmp_path / "results"))
    assert threads == threading.active_count()


def test_machine_that_cannot_be_made_is_no_machine(make: Make, tmp_path: Path) -> None:
    """A QEMU that refuses its command line is none that waits; who needs it is told by the next try."""
    standby = Standby(make("refuse"))
    assert None is standby.take()
    standby.close()
    assert set() == _files(tmp_path / "results")


def test_machine_that_has_ended_is_no_machine(make: Make, tmp_path: Path) -> None:
    """Whose QEMU was killed while it waited is not taken."""
    machine = make()
    standby, pause = Standby(machine), threading.Event()
    port = 0
    while not port:
        # There is none before it waits.
        with contextlib.suppress(InputError):
            port = machine.ssh_port
        pause.wait(0.001)
    machine.signal(signal.SIGKILL)
    machine.wait_exit(10.0)
    assert None is standby.take()
    assert set() == _files(tmp_path / "results")


def test_results_that_cannot_be_written_are_no_machine(make: Make, tmp_path: Path) -> None:
    """Where nothing can be written, nothing waits, and nothing is raised before somebody needs it."""
    (tmp_path / "results").write_bytes(b"")
    assert None is Standby(make()).take()


def test_machine_whose_start_fails_for_any_reason_is_nobodys(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that began, and was not loaded as no file could be opened any more, is not taken for one that is ready."""

    def fail() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(machine := make(), "load", fail)
    assert Standby(machine).take() is None
