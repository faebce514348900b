"""`vmtests boot` without a terminal, from the command line to its exit status, with a QEMU that plays a console."""

import _thread
import json
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.qemu.test_vm import TOKEN, ScriptedHost
from vmtests.cli import boot, main
from vmtests.cockpit import attach
from vmtests.cockpit.port import Act
from vmtests.cockpit.session import Session
from vmtests.image.image import Image
from vmtests.image.inspect import Inspection
from vmtests.image.source import Format
from vmtests.machine.hardware import Hardware
from vmtests.qemu.lab import Lab
from vmtests.qemu.vm import QemuVm
from vmtests.resources import fixture

Play = Callable[[bytes], list[QemuVm]]
WAIT = 30.0


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """A function that has each machine print a console; it returns the machines, as they are made."""
    monkeypatch.chdir(tmp_path)
    # There is no guest that could be asked.
    monkeypatch.setattr(QemuVm, "diagnose", lambda _vm, _verdict: None)

    def make(console: bytes) -> list[QemuVm]:
        made: list[QemuVm] = []
        (disk := tmp_path / "disk.raw").write_bytes(bytes(1 << 20))

        class Played(Lab):
            def __init__(self, results: Any, **_: Any) -> None:
                super().__init__(results, host=ScriptedHost(tmp_path))

            def image(self, *_: Any, **__: Any) -> Image:
                inspection = Inspection(path=disk, format=Format.RAW, size=1 << 20, checks=())
                return Image(name="own", path=disk, modules=None, inspection=inspection)

            def machine(self, image: Image, hardware: Hardware | None = None, **options: Any) -> QemuVm:
                (played := tmp_path / f"played-{len(made)}").mkdir()
                vm = super().machine(image, replace(hardware or Hardware(), hostname=f"plays{played}"), **options)
                (played / "0").write_bytes(TOKEN.sub(vm._token.encode(), console))
                made.append(vm)
                return vm

        monkeypatch.setattr(boot, "Lab", Played)
        return made

    return make


def _recorded(name: str) -> bytes:
    return (fixture("consoles") / f"{name}.log").read_bytes()


def test_good_boot_ends_with_0(play: Play, capfd: pytest.CaptureFixture[str]) -> None:
    """Its lines go by, its verdict is one object, its page is written."""
    play(_recorded("reference-ready"))
    assert main(["boot", "disk.raw", "--json", "--plain", "--results", "out"]) == 0
    told = capfd.readouterr()
    assert json.loads(told.out)["verdict"] == "ready"
    assert "Linux version" in told.err or "Booting initrd" in told.err
    assert Path("out/report.html").is_file()


def test_broken_boot_ends_with_1(play: Play, capfd: pytest.CaptureFixture[str]) -> None:
    """And with its sentence."""
    play(_recorded("fault-init-exits"))
    assert main(["boot", "disk.raw", "--quiet", "--results", "out"]) == 1
    assert "failed in " in capfd.readouterr().out


def test_plain_boot_is_attached_to_while_it_runs(play: Play) -> None:
    """Somebody else finds it, asks, and sees its lines; it ends as it would have."""
    machines = play(b"BdsDxe: starting Boot0001\r\n")
    answers: list[str] = []
    over = threading.Event()

    def other() -> None:
        while not any(found.state.on for found in attach.running()):
            if over.wait(0.05):
                return
        with attach.Attached(attach.choose("out")) as attached:
            answers.append(attached.ask(Act.SYSRQ, "t").result(WAIT))
            answers.append(attached.state(0).title)
        machines[0].qemu.signal(signal.SIGKILL)

    thread = threading.Thread(target=other)
    thread.start()
    try:
        assert main(["boot", "disk.raw", "--plain", "--results", "out"]) == 2
    finally:
        over.set()
        thread.join(WAIT)
    assert [answer.partition(" ")[0] for answer in answers] == ["sysrq", "own"]
    assert attach.running() == []


def test_interrupted_boot_ends_its_machine(
    play: Play, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C leaves no process behind."""
    machines = play(b"BdsDxe: starting Boot0001\r\n")

    def interrupted(session: Session) -> None:
        while not session.state(0).on:
            session._decided.wait(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "wait", interrupted)
    assert main(["boot", "disk.raw", "--quiet", "--results", "out"]) == 2
    assert "interrupted" in capfd.readouterr().err
    assert not machines[0].qemu.alive


def test_interrupt_while_the_thread_of_a_boot_is_started_ends_its_machine(
    play: Play, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The thread makes a machine already, and nobody has been told of the thread: both end, and their files."""
    machines, made = play(b"BdsDxe: starting Boot0001\r\n"), threading.Event()
    begin, make = _thread.start_new_thread, QemuVm._put_together

    def start(run: Callable[[], object], arguments: tuple[()]) -> None:
        begin(run, arguments)
        assert made.wait(WAIT)
        raise KeyboardInterrupt

    def put_together(vm: QemuVm) -> None:
        make(vm)
        made.set()

    monkeypatch.setattr(_thread, "start_new_thread", start)
    monkeypatch.setattr(QemuVm, "_put_together", put_together)
    assert main(["boot", "disk.raw", "--quiet", "--results", "out"]) == 2
    assert "interrupted" in capfd.readouterr().err
    assert [False] == [machine.qemu.alive for machine in machines]
    assert [] == list(Path.cwd().rglob(".machine-*"))
