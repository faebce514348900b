"""What the doctor says of a host."""

import io
import json
import platform
from pathlib import Path

import pytest
from rich.console import Console

from vmtests.errors import HostError
from vmtests.host import accel, doctor, sandbox
from vmtests.host.accel import Request
from vmtests.host.doctor import Report, Row
from vmtests.host.probe import Outcome
from vmtests.host.tools import Tool, Toolbox

GOOD = Row(topic="host", name="cache", ok=True, value="/c", why="there")
BAD = Row(topic="host", name="memory", ok=False, value="1 MiB", hint="buy more")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("VMTESTS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def toolbox(root: Path) -> Toolbox:
    """Return a toolbox whose QEMU is in a tree."""
    tool = Tool(name="qemu-system-x86_64", version="10.0", from_host=False, why="the host has none")
    return Toolbox({tool.name: tool}, root)


def shown(report: Report) -> str:
    """Return what a person sees."""
    out = io.StringIO()
    report.print(Console(file=out, width=100))
    return out.getvalue()


def test_ok_when_all_is_well() -> None:
    """A boot is possible when no row is bad."""
    assert (Report(rows=(GOOD,)).ok, Report(rows=(GOOD, BAD)).ok) == (True, False)


def test_hint_for_each_bad_row() -> None:
    """Below the table each bad row has its hint, and the last line says whether a boot is possible."""
    assert shown(Report(rows=(GOOD, BAD))).splitlines()[-2:] == [
        "memory: buy more",
        "no boot is possible yet",
    ]
    assert shown(Report(rows=(GOOD,))).splitlines()[-1] == "a boot is possible"


def test_markup_is_text() -> None:
    """What a tool says is shown as it is, not taken for markup."""
    assert "[red]x[/red]" in shown(Report(rows=(Row(topic="t", name="n", ok=True, value="[red]x[/red]"),)))


def test_for_programs() -> None:
    """The report for programs is JSON with every field."""
    assert json.loads(json.dumps(Report(rows=(BAD,)).as_dict())) == {
        "ok": False,
        "rows": [{"topic": "host", "name": "memory", "ok": False, "value": "1 MiB", "why": "", "hint": "buy more"}],
    }


@pytest.mark.parametrize(("kib", "ok"), [(1536 * 1024, True), (1536 * 1024 - 1, False)])
def test_memory(kib: int, ok: bool) -> None:
    """A machine needs 1.5 GiB of memory that is available."""
    assert ok == doctor.memory_row(lambda: (1 << 40, kib << 10)).ok


@pytest.mark.parametrize(("mib", "ok"), [(2048 + 160, True), (1970, False)])
def test_memory_of_a_small_host(mib: int, ok: bool) -> None:
    """A host on which no machine of the usual size is ever let in has too little."""
    assert ok == doctor.memory_row(lambda: (mib << 20, 1750 << 20)).ok


def test_no_bubblewrap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where bubblewrap does not work, its own words are shown, and a boot is possible."""
    monkeypatch.setattr(sandbox, "refusal", lambda: "bwrap: No permissions to create new namespace")
    row = doctor.sandbox_row()
    assert (row.ok, row.why) == (True, "bwrap: No permissions to create new namespace")


def test_other_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a host of another architecture the doctor says so, and looks for nothing else."""
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    report = doctor.report(find=lambda: pytest.fail("looked for tools"))
    assert not report.ok
    assert "aarch64" in report.rows[0].value


def test_cache_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that cannot be made is a bad row with the way out."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("VMTESTS_CACHE", str(tmp_path / "file" / "cache"))
    row = doctor.cache_row()
    assert not row.ok
    assert "set VMTESTS_CACHE" in str(row.hint)


def test_full_disk(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache needs room for everything; one with trees has had it."""
    monkeypatch.setattr(doctor, "LEAST_CACHE", 1 << 80)
    assert not doctor.cache_row().ok
    (cache / "trees").mkdir()
    assert doctor.cache_row().ok


def test_no_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools that cannot be had are a bad row, not an error."""
    monkeypatch.setattr(doctor, "LEAST_CACHE", 0)  # whatever room this host has

    def find() -> Toolbox:
        raise HostError("no Debian mirror can be reached", hint="a network is needed once")

    assert (
        Row(
            topic="tools",
            name="tools",
            ok=False,
            value="no Debian mirror can be reached",
            hint="a network is needed once",
        )
        == doctor.report(find=find).rows[-1]
    )


def test_tools(tmp_path: Path) -> None:
    """Each tool is shown with its version, where it is from, and why."""
    (row,) = doctor.tool_rows(toolbox(tmp_path))
    assert (row.value, row.why) == ("10.0 (tools tree)", "the host has none")


def test_accelerator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without KVM can boot, and is told why it is slow; KVM that is demanded must work."""
    monkeypatch.setattr(
        accel, "kvm_outcome", lambda *_, **__: Outcome(works=False, reason="no device", hint="load it")
    )
    row = doctor.accelerator_row(toolbox(tmp_path), Request.AUTO)
    assert (row.ok, row.value, row.why) == (True, "tcg, cpu max", "KVM does not work: no device")
    demanded = doctor.accelerator_row(toolbox(tmp_path), Request.KVM)
    assert (demanded.ok, demanded.hint) == (False, "load it")


def test_firmware(tmp_path: Path) -> None:
    """Without firmware no boot is possible; without that for secure boot it is."""
    rows = doctor.firmware_rows(toolbox(tmp_path))
    assert [(row.name, row.ok) for row in rows] == [("firmware", False), ("secure boot", True)]
    assert "install OVMF" in str(rows[0].hint)
