"""What its parts do to vmtests: tools, QEMU, a monitor that misbehaves, a cache that is no longer as it was."""

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gce.conftest import everything
from tests.trials.chaos import cell as cells
from tests.trials.chaos.cell import Cell
from tests.trials.chaos.harms import TOOL_HARMS
from vmtests.emulator import Emulator
from vmtests.emulator.api import Api
from vmtests.emulator.fake import FakeHypervisor
from vmtests.emulator.http import Reply, Request
from vmtests.gce import tokens
from vmtests.testing.consoles import recording

LONG = bool(os.environ.get("CHAOS"))
EVERY = 1 if LONG else 12
"""Of the requests of a run, how many are followed by its death."""

TOOLS = {"build": ("systemd-repart",), "compressed": ("tar", "mkfs.erofs"), "boot": ("qemu-img",)}
_STRUCK = [(piece, tool, harm) for piece, tools in TOOLS.items() for tool in tools for harm in TOOL_HARMS]
_SHORT = [
    (piece, tool, "killed at once")
    for piece, tool in (("build", "systemd-repart"), ("compressed", "tar"), ("compressed", "mkfs.erofs"))
]
_QMP = [
    (piece, f"{behaviour}:{command}")
    for piece, commands in {
        "boot": ("greeting", "qmp_capabilities", "cont"),
        "rewind": ("stop", "migrate", "query-migrate"),
    }.items()
    for command in commands
    for behaviour in ("late", "never", "garbled", "binary", "huge", "error", "hang-up")
    if (behaviour, command) != ("error", "greeting")
]
_NUMBERS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGSTOP)
_KEPT = ("record.json", "state", "ram", "disk.qcow2", "overlay.qcow2", "variables", "console.log", "console.jsonl")


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with all that the work is done on."""
    directory = tmp_path_factory.mktemp("chaos")
    cells.ground(directory)
    return directory


@pytest.fixture
def cell(ground: Path, tmp_path: Path) -> Cell:
    """A place for one case."""
    return Cell(ground / tmp_path.name)


def _well(cell: Cell, piece: str) -> None:
    """Fail unless the work is well when nothing happens to it, and leaves nothing."""
    end = cell.run(cell.order(piece))
    assert end.status == 0, end.said
    cell.nothing_runs()
    assert not cell.half_made()


@pytest.mark.parametrize(("piece", "tool", "harm"), _STRUCK if LONG else _SHORT)
def test_tool_that_comes_to_harm_is_named(cell: Cell, piece: str, tool: str, harm: str) -> None:
    """A tool that is killed, or gets no memory, is told by its name; one that stood still is waited for."""
    end = cell.run(cell.order(piece, tool=tool, harm=harm))
    assert "Traceback" not in end.said
    if harm.startswith("stopped"):
        assert end.status == 0, end.said
    elif end.status != 0 or harm.startswith("killed"):
        assert end.status == 2, end
        assert tool in end.said, end.said
    cell.nothing_runs()
    assert not cell.half_made()
    _well(cell, piece)


@pytest.mark.parametrize(("piece", "qmp"), _QMP if LONG else [("boot", "garbled:cont")])
def test_monitor_that_misbehaves_is_told(cell: Cell, piece: str, qmp: str) -> None:
    """A QEMU that answers late is waited for; one that answers never, or nonsense, is QEMU's failure, soon."""
    end = cell.run(cell.order(piece, qmp=qmp))
    assert "Traceback" not in end.said, end.said
    if qmp.startswith("late"):
        assert end.status == 0, end.said
    elif end.status != 0 or qmp.startswith(("never", "hang-up")):
        assert end.status == 2, end
        assert "QMP" in end.said or "QEMU" in end.said, end.said
    cell.nothing_runs()
    assert not cell.half_made()
    _well(cell, piece)


@pytest.mark.parametrize("number", _NUMBERS if LONG else _NUMBERS[:1])
@pytest.mark.parametrize("program", ("fake_qemu", "swtpm") if LONG else ("fake_qemu",))
def test_signal_to_a_program_of_the_machine(cell: Cell, program: str, number: signal.Signals) -> None:
    """When QEMU or its TPM is killed, or stands still for a moment, the verdict says so or nothing is amiss."""
    seen: list[int] = []

    def strike(_: int) -> None:
        for pid, command in cell.processes(program).items():
            if "bwrap" not in command.split()[0]:
                seen.append(pid)
                os.kill(pid, number)
                if number is signal.SIGSTOP:
                    os.kill(pid, signal.SIGCONT)

    end = cell.run(cell.order("boot", moment="vmtests.machine.qemu:QemuMachine.execute", harm="watched"), strike)
    assert seen
    assert "Traceback" not in end.said, end.said
    if end.status != 0:
        assert end.status == 2, end
        assert "QEMU" in end.said, end.said
    cell.nothing_runs()
    assert not cell.half_made()
    _well(cell, "boot")


@pytest.mark.parametrize("name", _KEPT if LONG else ("record.json", "ram"))
@pytest.mark.parametrize("how", ["bytes", "short", "gone"] if LONG else ["bytes"])
def test_kept_machine_that_was_changed_is_booted_again(cell: Cell, name: str, how: str) -> None:
    """Whichever file of a kept machine is not as it was written: no guest goes on from there, and none is missing."""
    _well(cell, "rewind")
    (path,) = (cell.place / "cache/snapshots").glob(f"*/{name}")
    content = bytearray(path.read_bytes()[: 1 << 20] or b"\0")
    if how == "gone":
        path.unlink()
    else:
        place = random.Random(name).randrange(len(content))
        with path.open("r+b") as file:
            if how == "short":
                file.truncate(place)
            else:
                os.pwrite(file.fileno(), bytes([content[place] ^ 0xFF]), place)
    end = cell.run(cell.order("rewind"))
    assert end.status == 0, end.said
    # Without its record, which is written last, it is one that was half made.
    if not name.startswith("console") and (name, how) != ("record.json", "gone"):
        assert "booted again" in end.said, end.said
    cell.nothing_runs()
    _well(cell, "rewind")


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """An emulator that kills its client, `pid`, when it has answered the request `number`; it counts in `seen`."""
    plan: dict[str, Any] = {"seen": 0, "number": 0, "pid": None}
    real = Api.answer

    def answer(self: Api, request: Request) -> Reply:
        reply = real(self, request)
        if plan["pid"] is not None:
            plan["seen"] += 1
            if plan["seen"] == plan["number"]:
                os.kill(plan["pid"], signal.SIGKILL)
                plan["pid"] = None
        return reply

    monkeypatch.setattr(Api, "answer", answer)
    console = recording("reference-ready").console
    with Emulator(hypervisor=FakeHypervisor(lambda _: console)) as emulator:
        monkeypatch.setenv(tokens.VARIABLE, emulator.token)
        plan["emulator"] = emulator
        yield plan


def test_run_that_is_killed_after_any_request_leaves_nothing(cell: Cell, dying: dict[str, Any]) -> None:
    """`vmtests gce run`, killed with SIGKILL after each of its requests: the next collection leaves nothing there."""
    emulator = dying["emulator"]
    cell.endpoint = emulator.endpoint
    killed = 0
    for number in range(1, 1000, EVERY):
        dying.update(seen=0, number=number)
        end = cell.run(cell.order("upload"), begun=lambda pid: dying.update(pid=pid))
        dying["pid"] = None
        if end.status == 0:
            break
        assert end.status == -signal.SIGKILL, end.said
        killed += 1
        cell.nothing_runs()
        collected = cell.run(cell.order("collect"))
        assert collected.status == 0, collected.said
        assert everything(emulator) == {}, f"killed after request {number}"
        assert not list((cell.place / "cache/gce").glob("*.jsonl"))
    assert killed >= (20 if LONG else 2)
    assert everything(emulator) == {}
    print(f"killed after each of {killed} requests: 0 left")
