"""After a boot has failed, `diagnosis/` is filled in bounded time from whatever still answers."""

import json
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest

from vmtests.boot.console import Line
from vmtests.boot.stages import Stage
from vmtests.boot.verdict import Cause, Verdict
from vmtests.errors import HostError, Owner
from vmtests.guest import diagnosis as questions
from vmtests.qemu import diagnosis

from .conftest import Guest, MakeGuest


class Machine:
    """A machine whose serial ports are `guests`, and whose monitor answers nothing."""

    def __init__(self, *guests: Guest, alive: bool = True, prompt: bytes = b"") -> None:
        self.guests = guests
        self.alive = alive
        self.prompt = prompt
        self.typed = bytearray()

    def execute(self, command: str, arguments: Mapping[str, object] | None = None, *, timeout: float = 30.0) -> object:
        """Answer nothing."""
        return None

    def dump_screen(self, path: Path, *, timeout: float = 30.0) -> None:
        """Write nothing."""

    def send_serial(self, data: bytes, port: int = 0) -> None:
        """Take what is typed."""
        self.typed += data

    def serial(self, port: int = 0) -> socket.socket:
        """Return the connection of a guest."""
        return self.guests[port].connection

    def written(self, port: int, limit: int = 512) -> bytes:
        """Return a prompt, if the second port has one."""
        return self.prompt


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give guests three seconds, and ask them for what this host can tell too."""
    monkeypatch.setattr(diagnosis, "SECONDS", 6.0)
    items = [item for item in questions.ITEMS if item.file in {"cmdline.txt", "modules.txt"}]
    monkeypatch.setattr(questions, "ITEMS", items)


def _verdict(stage: Stage = Stage.INITRD, cause: Cause = Cause.EMERGENCY_SHELL) -> Verdict:
    return Verdict(
        ready=False,
        stage=stage,
        cause=cause,
        sentence="it failed",
        evidence=(),
        hint="look",
        owner=Owner.IMAGE,
        evidence_to_verdict_s=0.1,
    )


def _index(directory: Path) -> dict[str, str]:
    index: dict[str, str] = json.loads((directory / "index.json").read_text())
    return index


def test_emergency_shell_is_entered_and_asked(make_guest: MakeGuest, tmp_path: Path) -> None:
    """A shell on the console is found, whatever its prompt, and its answers are files."""
    machine = Machine(make_guest())
    found = diagnosis.gather(machine, _verdict(), (), tmp_path / "diagnosis", scale=1.0)
    assert "entered" == found.found["shell on ttyS0"]
    assert Path("/proc/cmdline").read_bytes() == (tmp_path / "diagnosis/cmdline.txt").read_bytes()
    assert found.found == _index(tmp_path / "diagnosis")


def test_debug_shell_is_preferred(make_guest: MakeGuest, tmp_path: Path) -> None:
    """Where the second port ends with a prompt, the console is left alone."""
    machine = Machine(make_guest(), make_guest(), prompt=b"bash-5.2# ")
    found = diagnosis.gather(machine, _verdict(), (), tmp_path, scale=1.0)
    assert "entered" == found.found["shell on ttyS1"]
    assert "shell on ttyS0" not in found.found
    assert b"" == bytes(machine.guests[0].sent)


def test_silent_guest_costs_its_time_and_not_more(make_guest: MakeGuest, tmp_path: Path) -> None:
    """A guest without a shell is given up, and what was tried is in the index."""
    found = diagnosis.gather(Machine(make_guest("cat")), _verdict(), (), tmp_path, scale=0.1)
    assert found.found["shell on ttyS0"].startswith(("no shell on the serial line in time", "the serial line closed"))


def test_endless_answer_is_cut_off(make_guest: MakeGuest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that takes longer than there is time, such as a large journal, is given up as a whole."""
    endless = questions.Item(file="journal.export", command="yes", limit=1 << 30)
    monkeypatch.setattr(questions, "ITEMS", [endless])
    found = diagnosis.gather(Machine(make_guest()), _verdict(), (), tmp_path, scale=0.4)
    assert "bytes" not in found.found["journal.export"]
    assert not (tmp_path / "journal.export").exists()


def test_locked_account_is_told_with_the_way_out(tmp_path: Path) -> None:
    """A console that says that root is locked is not typed at."""
    line = Line(t=1.0, text="Cannot open access to console, the root account is locked.", stage=Stage.INITRD)
    found = diagnosis.gather(Machine(), _verdict(), [line], tmp_path, scale=1.0)
    assert "the root account is locked; boot with the module debug" == found.found["shell on ttyS0"]


@pytest.mark.parametrize(
    ("stage", "cause"),
    [
        (Stage.BOOTLOADER, Cause.BOOTLOADER_ERROR),
        (Stage.KERNEL, Cause.KERNEL_PANIC),
        (Stage.USERSPACE, Cause.KERNEL_PANIC),
    ],
)
def test_no_shell_is_looked_for_where_none_can_be(tmp_path: Path, stage: Stage, cause: Cause) -> None:
    """Boot loaders and dead kernels are not typed at."""
    machine = Machine()
    diagnosis.gather(machine, _verdict(stage, cause), (), tmp_path, scale=1.0)
    assert "none is tried" in _index(tmp_path)["shell"]


def test_disks_are_synced_before_the_machine_ends(tmp_path: Path) -> None:
    """After root was mounted the kernel is asked to sync, so that the journal on the disk is whole."""
    machine = Machine()
    diagnosis.gather(machine, _verdict(Stage.USERSPACE, Cause.KERNEL_PANIC), (), tmp_path, scale=1.0)
    assert b"s" == bytes(machine.typed)


def test_machine_that_is_off_says_so(tmp_path: Path) -> None:
    """Of a machine that has ended only its disk can tell."""
    found = diagnosis.gather(Machine(alive=False), _verdict(), (), tmp_path, scale=1.0)
    assert {"machine": "it is off"} == found.found


def test_monitor_that_does_not_answer_is_no_error(tmp_path: Path) -> None:
    """What cannot be got is said in the index; nothing is raised."""

    class Locked(Machine):
        def execute(
            self, command: str, arguments: Mapping[str, object] | None = None, *, timeout: float = 30.0
        ) -> object:
            raise HostError("QMP: no answer in 5 s")

    found = diagnosis.gather(Locked(), _verdict(Stage.KERNEL), (), tmp_path, scale=1.0)
    assert "QMP: no answer in 5 s" == found.found["registers and screen"]
