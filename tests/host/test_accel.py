"""The accelerator, by what a probe said."""

import os
from pathlib import Path

import msgspec
import pytest

from tests.machine.conftest import FakeToolbox
from vmtests.errors import HostError
from vmtests.host import accel
from vmtests.host.accel import Accelerator, AcceleratorName, Request
from vmtests.host.probe import Outcome


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("VMTESTS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(accel, "device_refusal", lambda _: None)
    return tmp_path / "cache"


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
    monkeypatch.setattr(accel, "run_guest", lambda *_: Outcome(works=works, reason="test"))
    chosen: Accelerator = accel.choose(FakeToolbox(), request_)
    assert expected == (chosen.name, chosen.cpu, chosen.scale)


def test_kvm_demanded(monkeypatch: pytest.MonkeyPatch) -> None:
    """KVM that is asked for and does not work is the host's error, with the reason."""
    monkeypatch.setattr(accel, "run_guest", lambda *_: Outcome(works=False, reason="the vCPU died"))
    with pytest.raises(HostError, match="KVM does not work: the vCPU died"):
        accel.choose(FakeToolbox(), Request.KVM)


def test_second_time_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest is run once for each boot of the host and each QEMU."""
    runs: list[object] = []

    def run(*asked: object) -> Outcome:
        runs.append(asked)
        return Outcome(works=False, reason="test")

    monkeypatch.setattr(accel, "run_guest", run)
    first, second = accel.choose(FakeToolbox()), accel.choose(FakeToolbox())
    assert (1, first) == (len(runs), second)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"key": "other", "outcome": {"works": true, "reason": ""}}'])
def test_spoilt_cache(monkeypatch: pytest.MonkeyPatch, cache: Path, content: bytes) -> None:
    """A cache that is broken, or of another boot, is made again."""
    cache.mkdir()
    (cache / "accelerator.json").write_bytes(content)
    monkeypatch.setattr(accel, "run_guest", lambda *_: Outcome(works=False, reason="anew"))
    assert accel.choose(FakeToolbox()).reason == "KVM does not work: anew"
    assert msgspec.json.decode((cache / "accelerator.json").read_bytes())["outcome"]["reason"] == "anew"
    assert [path.name for path in cache.iterdir()] == ["accelerator.json"]


@pytest.mark.parametrize(("seconds", "scale"), [(0.1, 1.0), (0.4, 2.0), (3.2, 16.0), (100.0, accel.SLOWEST)])
def test_slow_kvm_is_given_time(monkeypatch: pytest.MonkeyPatch, seconds: float, scale: float) -> None:
    """Budgets grow with the time that the probe took, and with KVM on hardware they do not."""
    monkeypatch.setattr(accel, "run_guest", lambda *_: Outcome(works=True, reason="test", seconds=seconds))
    assert accel.choose(FakeToolbox()).scale == pytest.approx(scale)


def test_kvm_that_failed_in_a_boot_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a boot found out counts as much as what the probe did, until the host is booted again."""
    monkeypatch.setattr(accel, "run_guest", lambda *_: Outcome(works=True, reason="test"))
    assert accel.choose(FakeToolbox()).name is AcceleratorName.KVM
    assert accel.without_kvm(FakeToolbox(), "it died").name is AcceleratorName.TCG
    assert accel.choose(FakeToolbox()).reason == "KVM does not work: it died"


def test_another_number_of_processors_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine that is tried has as many processors as the one that is wanted."""
    asked: list[object] = []

    def run(*words: object) -> Outcome:
        asked.append(words[-1])
        return Outcome(works=True, reason="test")

    monkeypatch.setattr(accel, "run_guest", run)
    for cpus in (2, 2, 8):
        accel.choose(FakeToolbox(), cpus=cpus)
    assert asked == [2, 8]


def test_state_of_the_host_names_kernel_and_processor() -> None:
    """A kept machine is of one kernel and one processor."""
    assert os.uname().release in accel.state_of_host()
    assert "flags" in accel.state_of_host()
