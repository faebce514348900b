"""A machine under QEMU as tests use it, with a QEMU that plays recorded consoles."""

import json
import lzma
import re
import threading
import time
from pathlib import Path

import pytest

from tests.machine.conftest import FakeToolbox
from vmtests.boot.verdict import Cause
from vmtests.errors import GuestError, Owner
from vmtests.guest.serial import SerialShell
from vmtests.host.accel import Accelerator, AcceleratorName
from vmtests.host.firmware import Firmware, FirmwareFile
from vmtests.host.host import Host
from vmtests.host.tools import Toolbox
from vmtests.image.inspect import Inspection
from vmtests.image.source import Format
from vmtests.machine.events import RESET, MachineEvent
from vmtests.machine.hardware import Hardware, Net
from vmtests.machine.qemu import QemuMachine
from vmtests.qemu.diagnosis import Diagnosis
from vmtests.qemu.lab import Lab
from vmtests.qemu.vm import QemuVm
from vmtests.resources import fixture
from vmtests.vm import BootError, Image

TOKEN = re.compile(rb"vmtests-ready-[0-9a-f]{16}")


class ScriptedHost(Host):
    """A host whose QEMU is a script."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory
        self.toolbox = FakeToolbox()
        self.accelerator = Accelerator(name=AcceleratorName.TCG, reason="test", cpu="max", scale=4)

    def firmware(self, *, secure_boot: bool = False) -> Firmware:
        """Return firmware that nobody runs."""
        (variables := self._directory / "VARS.fd").write_bytes(b"as it was made")
        file = FirmwareFile(inside=variables, outside=variables, format="raw")
        return Firmware(code=file, vars_template=file, descriptor=variables, description="plain", features=frozenset())


def _machine(directory: Path, *consoles: str, net: Net = Net.ISOLATED) -> QemuVm:
    """Return a machine that prints these recorded consoles, one at each power-on."""
    (played := directory / "played").mkdir()
    (disk := directory / "disk.raw").write_bytes(bytes(1 << 20))
    inspection = Inspection(path=disk, format=Format.RAW, size=1 << 20, checks=())
    image = Image(name="own", path=disk, modules=None, inspection=inspection)
    hardware = Hardware(hostname=f"plays{played}", net=net)
    vm = Lab(directory / "results", host=ScriptedHost(directory)).machine(image, hardware)
    for number, name in enumerate(consoles):
        console = (fixture("consoles") / f"{name}.log").read_bytes()
        (played / str(number)).write_bytes(TOKEN.sub(vm._token.encode(), console))
    return vm


def _written(vm: QemuVm) -> Path:
    """Return the firmware variables of a machine, as the guest of its first boot has left them."""
    return vm.qemu._files / "variables"


def test_machine_without_a_network_card_has_other_ways_in(tmp_path: Path) -> None:
    """That there is no ssh is a way that fails, not the end of what was asked of the guest."""
    with _machine(tmp_path, "reference-ready", net=Net.NONE) as vm:
        vm.wait_ready()
        for way in (lambda: vm.ssh_address, lambda: vm.ssh):
            with pytest.raises(GuestError, match="no network card") as caught:
                way()
            assert caught.value.owner is Owner.INPUT


def test_private_key_ends_with_its_machine(tmp_path: Path) -> None:
    """A thousand machines of one run do not leave a thousand keys until it ends."""
    with _machine(tmp_path, "reference-ready") as vm:
        kept = vm.key.path
        assert kept.is_file()
    assert not kept.parent.exists()


def test_boot_that_the_host_spoilt_begins_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A first boot whose timer stood still is no verdict on the image: it begins again, with an untouched machine."""
    with _machine(tmp_path, "timer-stalled", "reference-ready") as vm:
        _written(vm).write_bytes(b"as the guest left it")
        assert vm.wait_ready().ready
        assert 2 == vm.follower.boot
        assert b"as it was made" == _written(vm).read_bytes()
    assert "the guest's timer stands still" in capsys.readouterr().err


def test_boot_of_a_starved_guest_begins_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest that missed its time since the host had no processor for it is tried once more."""
    waited = iter([0.0])
    monkeypatch.setattr(QemuMachine, "late", property(lambda _machine: next(waited, 1e6)))
    with _machine(tmp_path, "nixos-no-store", "reference-ready") as vm:
        assert vm.wait_ready().ready
        assert 2 == vm.follower.boot


def test_second_boot_goes_on_with_what_the_first_wrote(tmp_path: Path) -> None:
    """A machine that was restarted by its test keeps what it wrote when it has to be powered on again."""
    with _machine(tmp_path, "reference-ready", "timer-stalled", "reference-ready") as vm:
        vm.wait_ready()
        _written(vm).write_bytes(b"as the guest left it")
        vm.power_cut()
        vm.begin_power_on()
        assert vm.wait_ready().ready
        assert 3 == vm.follower.boot
        assert b"as the guest left it" == _written(vm).read_bytes()


def test_host_that_spoils_every_boot_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins again once, and no more: then it is the host's failure."""
    # There is no guest that could be asked.
    monkeypatch.setattr(QemuVm, "diagnose", lambda _vm, _verdict: None)
    with (
        _machine(tmp_path, "timer-stalled", "timer-stalled") as vm,
        pytest.raises(BootError, match="power it on again") as failure,
    ):
        vm.wait_ready()
    assert (Cause.TIMER_STALLED, 2) == (failure.value.verdict.cause, failure.value.exit_code)


def _reset_while_asked(vm: QemuVm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the guest restart by itself as soon as somebody waits for its shell."""
    login = SerialShell.login

    def fail(shell: SerialShell, *arguments: object, **options: object) -> None:
        event = MachineEvent(name=RESET, detail={"reason": "guest-reset"}, t=time.monotonic())
        threading.Thread(target=vm.follower.event, args=(event,)).start()
        login(shell, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(SerialShell, "login", fail)


def test_command_ends_as_soon_as_the_guest_restarts_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for the answer of a guest that is gone, and nothing is typed at its firmware."""
    with _machine(tmp_path, "reference-ready") as vm:
        vm.wait_ready()
        _reset_while_asked(vm, monkeypatch)
        started = time.monotonic()
        with pytest.raises(GuestError, match="the guest restarted by itself"):
            vm.run("true")
        assert 30 > time.monotonic() - started
        with pytest.raises(GuestError, match="the guest restarted by itself"):
            assert vm.host_keys


def test_guest_that_restarts_by_itself_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in its firmware again is no machine that was ready."""
    with _machine(tmp_path, "reference-ready") as vm:
        _reset_while_asked(vm, monkeypatch)
        with pytest.raises(BootError, match="the guest restarted by itself"):
            vm.snapshot(tmp_path / "kept")
        assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("still", [True, False])
def test_machine_is_left_as_it_was_when_it_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toolbox: Toolbox, still: bool
) -> None:
    """One that stood still, for a person or a debugger, does so again; one that ran goes on."""
    monkeypatch.setattr(FakeToolbox, "run", toolbox.run)  # a disk as qemu-img makes it
    with _machine(tmp_path, "nixos-no-store", "nixos-no-store") as vm:
        if still:
            vm.qemu.execute("stop")
        vm.snapshot_here(tmp_path / "kept")
        told = vm.qemu.execute("query-status")
        assert isinstance(told, dict)
        assert told["running"] is not still


def test_boot_that_failed_is_told_by_the_journal_on_its_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the machine has ended, its verdict, kept or not, says what the unit that failed has written there only."""
    packed = Path(__file__).parent.parent / "boot/emergency.export.xz"
    then = f"__REALTIME_TIMESTAMP={time.time_ns() // 1000}".encode()
    export = re.sub(rb"__REALTIME_TIMESTAMP=\d+", then, lzma.decompress(packed.read_bytes()))

    def gather(_machine: object, _verdict: object, _lines: object, directory: Path, **_: object) -> Diagnosis:
        directory.mkdir()
        return Diagnosis(directory=directory)

    def read_disk(_disk: Path, diagnosis: Diagnosis, *_: object, **__: object) -> None:
        (diagnosis.directory / "journal-on-disk.export").write_bytes(export)

    monkeypatch.setattr(QemuMachine, "disk", property(lambda _machine: tmp_path / "disk.qcow2"))
    monkeypatch.setattr("vmtests.qemu.diagnosis.gather", gather)
    monkeypatch.setattr("vmtests.qemu.diagnosis.read_disk", read_disk)
    with _machine(tmp_path, "fault-mount-options-wrong") as vm:
        with pytest.raises(BootError) as failure:
            vm.wait_ready()
        assert () == failure.value.verdict.failed_units
    assert vm.verdict is not None
    assert vm.verdict.hint.startswith("boot.mount says: mount: /boot: fsconfig() failed")
    kept = json.loads((vm.results / "verdict.json").read_text())
    assert (["boot.mount"], "mount-failed") == (kept["failed_units"], kept["cause"])
    assert any("nosuchoption" in item["text"] for item in kept["evidence"])
