"""The accelerator, by what a probe said."""

import sys
from pathlib import Path

import msgspec
import pytest

from tests.machine.conftest import FakeToolbox
from vmtests.errors import HostError
from vmtests.host import accel
from vmtests.host.accel import Accelerator, AcceleratorName, Outcome, Request


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("VMTESTS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(accel, "device_refusal", lambda _: None)
    return tmp_path / "cache"


STAYS_UP = "import signal; signal.pause()"
"""A QEMU that does not end by itself; the probe ends it."""


def python(code: str) -> list[str]:
    """Return a command line that runs `code` in QEMU's place."""
    return [sys.executable, "-c", code]


def test_boot_sector() -> None:
    """The guest is one sector with a BIOS's signature, and it writes its answer to the exit device."""
    sector = accel.boot_sector()
    assert len(sector) == 512
    assert sector[510:] == b"\x55\xaa"
    assert b"\xb0\x2a\xe6\xf4" in sector


def test_guest_answers() -> None:
    """KVM works when the guest's own answer is QEMU's exit status."""
    assert accel.watch(python("import sys; sys.exit(85)"), 10).works


def test_dead_vcpu() -> None:
    """A vCPU that died is seen in QEMU's words, without waiting for QEMU, which stays up."""
    code = f"import sys; sys.stderr.write('KVM internal error. Suberror: 1\\n'); {STAYS_UP}"
    outcome = accel.watch(python(code), 30)
    assert Outcome(works=False, reason="the vCPU died at once (KVM internal error. Suberror: 1)") == outcome


def test_no_answer() -> None:
    """A guest that says nothing in time counts as one that does not run."""
    outcome = accel.watch(python(STAYS_UP), 0.05)
    assert Outcome(works=False, reason="a guest of one sector gave no answer in 0.05 s") == outcome


def test_silent_qemu_with_closed_stderr() -> None:
    """QEMU that closes its standard error and stays up is not waited for longer than the limit."""
    outcome = accel.watch(python(f"import os; os.close(2); {STAYS_UP}"), 0.3)
    assert Outcome(works=False, reason="a guest of one sector gave no answer in 0.3 s") == outcome


def test_other_status() -> None:
    """QEMU's own failure is told in its last words, made printable."""
    outcome = accel.watch(python("import sys; sys.exit('failed\\n\\x1b[1mno MSR\\n')"), 10)
    assert Outcome(works=False, reason="QEMU ended with status 1: \\x1b[1mno MSR") == outcome


def test_no_program() -> None:
    """A program that is not there is an outcome, not a traceback."""
    assert accel.watch(["/nowhere/qemu"], 1).reason == "/nowhere/qemu cannot be run: No such file or directory"


def test_endless_words() -> None:
    """However much QEMU writes, the probe ends in time."""
    assert not accel.watch(python("import sys\nwhile True: sys.stderr.write('x' * 9999)"), 0.3).works


@pytest.mark.parametrize(
    ("request_", "works", "expected"),
    [
        (Request.AUTO, True, (AcceleratorName.KVM, "host", 1)),
        (Request.KVM, True, (AcceleratorName.KVM, "host", 1)),
        (Request.AUTO, False, (AcceleratorName.TCG, "max", 4)),
        (Request.TCG, True, (AcceleratorName.TCG, "max", 4)),
    ],
)
def test_choice(
    monkeypatch: pytest.MonkeyPatch,
    request_: Request,
    works: bool,
    expected: tuple[AcceleratorName, str, int],
) -> None:
    """KVM is taken when it works and is not refused; everything else gets TCG and four times the time."""
    monkeypatch.setattr(accel, "run_guest", lambda _: Outcome(works=works, reason="test"))
    chosen: Accelerator = accel.probe(FakeToolbox(), request_)
    assert expected == (chosen.name, chosen.cpu, chosen.scale)


def test_kvm_demanded(monkeypatch: pytest.MonkeyPatch) -> None:
    """KVM that is asked for and does not work is the host's error, with the reason."""
    monkeypatch.setattr(accel, "run_guest", lambda _: Outcome(works=False, reason="the vCPU died"))
    with pytest.raises(HostError, match="KVM does not work: the vCPU died"):
        accel.probe(FakeToolbox(), Request.KVM)


def test_second_time_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest is run once for each boot of the host and each QEMU."""
    runs: list[object] = []

    def run(toolbox: object) -> Outcome:
        runs.append(toolbox)
        return Outcome(works=False, reason="test")

    monkeypatch.setattr(accel, "run_guest", run)
    first, second = accel.probe(FakeToolbox()), accel.probe(FakeToolbox())
    assert (1, first) == (len(runs), second)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"key": "other", "outcome": {"works": true, "reason": ""}}'])
def test_spoilt_cache(monkeypatch: pytest.MonkeyPatch, cache: Path, content: bytes) -> None:
    """A cache that is broken, or of another boot, is made again."""
    cache.mkdir()
    (cache / "accelerator.json").write_bytes(content)
    monkeypatch.setattr(accel, "run_guest", lambda _: Outcome(works=False, reason="anew"))
    assert accel.probe(FakeToolbox()).reason == "KVM does not work: anew"
    assert msgspec.json.decode((cache / "accelerator.json").read_bytes())["outcome"]["reason"] == "anew"
    assert [path.name for path in cache.iterdir()] == ["accelerator.json"]
