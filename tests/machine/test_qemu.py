"""The machine, with a script in QEMU's place."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.machine.conftest import FakeToolbox, Recorder
from vmtests.errors import GuestError, HostError, InputError
from vmtests.host.accel import Accelerator
from vmtests.host.firmware import Firmware
from vmtests.host.process import SandboxedProcess
from vmtests.machine.hardware import Hardware, Net
from vmtests.machine.life import Exit, MachineExitError
from vmtests.machine.qemu import QemuMachine


@dataclass
class Bench:
    """Makes machines, and says where their results are."""

    results: Path
    make: Callable[[Hardware], QemuMachine]


@pytest.fixture
def bench(tmp_path: Path, tcg: Accelerator, ovmf: Firmware, recorder: Recorder) -> Bench:
    """What a machine is made of."""
    image = tmp_path / "disk.raw"
    image.write_bytes(b"x" * 512)
    results = tmp_path / "results"

    def make(hardware: Hardware) -> QemuMachine:
        return QemuMachine(
            toolbox=FakeToolbox(),
            accelerator=tcg,
            firmware=ovmf,
            hardware=hardware,
            image=image,
            results=results,
            listener=recorder,
        )

    return Bench(results, make)


def test_first_bytes_are_heard(bench: Bench, recorder: Recorder) -> None:
    """The listener hears the console and the firmware from the first byte on."""
    with bench.make(Hardware()):
        recorder.wait(lambda: ("firmware", b"SEC") in recorder.heard and b"starting\r\n" in recorder.console)
    assert bytes(recorder.console) == b"BdsDxe: starting\r\n"


def test_ssh_port(bench: Bench) -> None:
    """The ssh port is the one that QEMU's monitor names."""
    with bench.make(Hardware()) as machine:
        assert machine.ssh_port == 40697


def test_no_ssh_port_without_network(bench: Bench) -> None:
    """A machine without a network card has no ssh port, and says so."""
    with bench.make(Hardware(net=Net.NONE)) as machine, pytest.raises(InputError, match="no network card"):
        _ = machine.ssh_port


def test_refused_command_line(bench: Bench) -> None:
    """When QEMU refuses to start, the error has its status, its words and its command line."""
    with pytest.raises(MachineExitError) as raised, bench.make(Hardware(hostname="refuse")):
        pass
    assert Exit(returncode=1, stderr="fake-qemu: -smp 900: \\x1b[31mtoo many") == raised.value.exit
    assert raised.value.message == "QEMU ended with status 1: fake-qemu: -smp 900: \\x1b[31mtoo many"
    assert bench.results / "qemu.argv" == raised.value.command


def test_qemu_without_memory() -> None:
    """Where the host has no memory for it, that is what the hint is about, and not its command line."""
    said = "qemu-system-x86_64: cannot set up guest memory 'pc.ram': Cannot allocate memory"
    error = MachineExitError(Exit(returncode=1, stderr=said), Path("qemu.argv"))
    assert error.hint is not None
    assert error.hint.startswith("memory is used up")


def test_start_that_is_interrupted_leaves_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while QEMU is being started ends it, and nobody waits for what would never end."""
    real, begun = SandboxedProcess.start, list[SandboxedProcess]()

    def interrupted(process: SandboxedProcess) -> SandboxedProcess:
        begun.append(real(process))
        raise KeyboardInterrupt

    monkeypatch.setattr(SandboxedProcess, "start", interrupted)
    with pytest.raises(KeyboardInterrupt), bench.make(Hardware()):
        pass
    (process,) = begun
    assert process.join(0)


def test_screen_is_written_where_qemu_may_write(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of the host's directories it sees its machine's own: from there the picture is taken to its place."""
    asked: list[Path] = []

    def execute(_: QemuMachine, command: str, arguments: dict[str, str], *, timeout: float) -> None:
        asked.append(Path(arguments["filename"]))
        asked[-1].write_bytes(b"picture")

    with bench.make(Hardware()) as machine:
        monkeypatch.setattr(QemuMachine, "execute", execute)
        for name in ("one", "two"):
            machine.dump_screen(tmp_path / name)
        monkeypatch.undo()
        assert {machine._files} == {path.parent for path in asked}
        assert not any(path.exists() for path in asked)
    assert (b"picture", b"picture") == ((tmp_path / "one").read_bytes(), (tmp_path / "two").read_bytes())


def test_exit_ends_a_wait(bench: Bench) -> None:
    """A wait for QEMU ends with its exit status as soon as QEMU ends."""
    with bench.make(Hardware()) as machine, pytest.raises(MachineExitError, match="status 3"):
        machine.execute("die")


def test_last_words_come_before_exit(bench: Bench, recorder: Recorder) -> None:
    """The listener hears every byte of the console before it hears that QEMU ended."""
    with bench.make(Hardware()) as machine:
        with pytest.raises(MachineExitError):
            machine.execute("die")
        assert not machine.alive
    assert recorder.console.endswith(b"last words")
    assert (recorder.events[-1].name, recorder.events[-1].detail["returncode"]) == ("exit", 3)
    assert recorder.heard[-1][0] == "event"


def test_event_after_its_bytes(bench: Bench, recorder: Recorder) -> None:
    """An event is heard after the bytes that the guest wrote before it."""
    with bench.make(Hardware()) as machine:
        machine.execute("guest-reset")
        recorder.wait(lambda: any(event.name == "RESET" for event in recorder.events))
        before = next(i for i, (_, what) in enumerate(recorder.heard) if what in recorder.events)
        assert b"Restarting system" in b"".join(d for _, d in recorder.heard[:before] if isinstance(d, bytes))


def test_reset_is_a_new_boot(bench: Bench, recorder: Recorder) -> None:
    """A reset that was asked for is a new boot and no event, so that nobody takes it for the guest's own."""
    with bench.make(Hardware()) as machine:
        machine.reset()
        recorder.wait(lambda: ("new_boot", "reset") in recorder.heard)
        assert recorder.events == []


def test_stop_has_a_status(bench: Bench, recorder: Recorder) -> None:
    """A STOP event says why: a dead vCPU is not a pause."""
    with bench.make(Hardware()) as machine:
        machine.execute("stop")
        recorder.wait(lambda: bool(recorder.events))
        assert (recorder.events[0].name, recorder.events[0].detail["status"]) == ("STOP", "internal-error")


def test_power_cut_and_power_on(bench: Bench, recorder: Recorder) -> None:
    """After a power cut QEMU is gone, the disk is not, and the machine can be powered on again."""
    with bench.make(Hardware()) as machine:
        machine.power_cut()
        assert Exit(returncode=-9, stderr="") == machine.exit
        (overlay,) = bench.results.glob(".machine-*/disk.qcow2")
        machine.start()
        assert machine.alive
        assert overlay.exists()
    kinds = [kind for kind, _ in recorder.heard if kind in {"expect_end", "event", "new_boot"}]
    assert kinds == ["expect_end", "event", "new_boot", "expect_end", "event"]


def test_nothing_works_after_the_end(bench: Bench) -> None:
    """Whoever uses a machine that has ended gets the reason of its end."""
    with bench.make(Hardware()) as machine:
        machine.power_cut()
        for use in (machine.serial, machine.screenshot, machine.reset, lambda: machine.send_serial(b"x")):
            with pytest.raises(MachineExitError):
                use()


def test_typing(bench: Bench, recorder: Recorder) -> None:
    """What is typed reaches the guest, and what it answers is heard."""
    with bench.make(Hardware()) as machine:
        machine.send_serial(b"hello")
        recorder.wait(lambda: b"HELLO" in recorder.console)


def test_serial_socket(bench: Bench, recorder: Recorder) -> None:
    """A serial socket carries both ways, and ends when QEMU ends."""
    with bench.make(Hardware()) as machine, machine.serial(1) as shell:
        shell.settimeout(10)
        shell.sendall(b"id\n")
        assert shell.recv(100) == b"ID\n"
        machine.power_cut()
        assert shell.recv(100) == b""
    assert b"ID" not in recorder.console


def test_wait_exit_has_a_limit(bench: Bench) -> None:
    """A guest that does not switch itself off in time is the guest's error."""
    with bench.make(Hardware()) as machine, pytest.raises(GuestError, match=r"still on after 0\.01 s"):
        machine.wait_exit(0.01)


def test_close_leaves_results_only(bench: Bench) -> None:
    """After the end the disk and the credentials are gone, the results are not."""
    with bench.make(Hardware(credentials={"secret": b"value"})):
        (private,) = bench.results.glob(".machine-*")
        assert private.stat().st_mode & 0o777 == 0o700
        assert "value" not in (bench.results / "qemu.argv").read_text()
    logs = ["qemu.argv", "qemu.stderr", "ttyS0.log", "ttyS1.log"]
    assert logs == sorted(path.name for path in bench.results.iterdir())


def test_own_disk_is_written_to_and_stays(
    tmp_path: Path, tcg: Accelerator, ovmf: Firmware, recorder: Recorder
) -> None:
    """A machine with a disk of its own makes no overlay, and leaves the disk where it is."""
    own = tmp_path / "own.qcow2"
    own.write_bytes(b"QFI\xfb" + bytes(60))
    machine = QemuMachine(
        toolbox=FakeToolbox(),
        accelerator=tcg,
        firmware=ovmf,
        hardware=Hardware(),
        image=own,
        results=tmp_path / "results",
        listener=recorder,
        own=True,
    )
    with machine:
        pass
    words = shlex.split((tmp_path / "results/qemu.argv").read_text())
    assert [f"driver=file,node-name=file0,cache.no-flush=on,filename={own}"] == [
        word for word in words if "node-name=file0" in word
    ]
    assert own.exists()


def test_one_command_line_per_power_on(bench: Bench) -> None:
    """`qemu.argv` has one line for each power-on, which a shell splits into the arguments that were used."""
    with bench.make(Hardware()) as machine:
        machine.power_cut()
        machine.start()
    lines = (bench.results / "qemu.argv").read_text().splitlines()
    assert len(lines) == 2
    assert "type=0,vendor=Google,version=Google,date=10/25/2025,uefi=on" in shlex.split(lines[0])


def test_power_on_twice(bench: Bench) -> None:
    """A machine that is on cannot be powered on."""
    with bench.make(Hardware()) as machine, pytest.raises(InputError, match="already"):
        machine.start()


def test_results_that_cannot_be_written(bench: Bench) -> None:
    """Results that cannot be written are the host's error, and nothing is left behind."""
    bench.results.write_text("a file")
    with pytest.raises(InputError, match="results cannot be written: File exists"), bench.make(Hardware()):
        pass


def test_no_sandbox(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox that cannot be started is the host's error, and nothing is left behind."""
    monkeypatch.setattr(FakeToolbox, "argv", lambda *_, **__: ["/nowhere/bwrap", "--", "qemu"])
    with pytest.raises(HostError, match="/nowhere/bwrap cannot be run"), bench.make(Hardware()):
        pass
    assert sorted(path.name for path in bench.results.iterdir()) == [
        "qemu.argv",
        "qemu.stderr",
        "ttyS0.log",
        "ttyS1.log",
    ]


def test_command_line_that_cannot_be_written(bench: Bench) -> None:
    """A machine whose results fail half-way gives everything back."""
    (bench.results / "qemu.argv").mkdir(parents=True)
    with (
        pytest.raises(InputError, match=r"qemu\.argv cannot be written: Is a directory"),
        bench.make(Hardware()),
    ):
        pass
    assert sorted(path.name for path in bench.results.iterdir()) == [
        "qemu.argv",
        "qemu.stderr",
        "ttyS0.log",
        "ttyS1.log",
    ]
