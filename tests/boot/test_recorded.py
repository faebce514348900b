"""Real consoles, recorded byte for byte, get the verdict that their boot deserved."""

import re
from collections.abc import Callable

import pytest

from vmtests.boot import Cause, Follower, Stage
from vmtests.resources import fixture

from .fakes import ManualClock


def _recorded(name: str) -> bytes:
    return fixture(f"consoles/{name}.log").read_bytes()


@pytest.mark.parametrize("slice_size", [5, 4096])
def test_good_boot_is_ready_through_every_stage(make: Callable[..., Follower], slice_size: int) -> None:
    """The reference image's boot is ready by its own announcement, however its bytes were cut."""
    data = _recorded("reference-ready")
    token = re.search(rb"vmtests-ready-[0-9a-f]+", data)
    assert token is not None
    follower = make(ready_token=token[0].decode())
    for start in range(0, len(data), slice_size):
        follower.feed(data[start : start + slice_size])
    verdict = follower.verdict
    assert verdict is not None
    assert (verdict.ready, verdict.stage) == (True, Stage.READY)
    assert verdict.sentence.endswith("systemd is running")
    assert list(follower.timeline.starts) == list(Stage)


def test_good_boot_without_its_announcement_is_ready_after_a_silence(
    make: Callable[..., Follower], clock: ManualClock
) -> None:
    """Of a guest that does not announce itself, a login prompt and a long silence say that it is ready."""
    follower = make()
    follower.feed(re.sub(rb"\r\nvmtests-ready-.*\r\n", b"", _recorded("reference-ready")))
    clock.advance(60.0)
    verdict = follower.verdict
    assert verdict is not None
    assert verdict.ready


def test_announcement_of_another_run_does_not_count(make: Callable[..., Follower]) -> None:
    """A line with another run's token is a line like any other."""
    follower = make(ready_token="vmtests-ready-0000000000000000")
    data = _recorded("reference-ready")
    follower.feed(data[: data.index(b"Reached target Basic System")])
    follower.feed(b"\r\nvmtests-ready-1111111111111111 running\r\n")
    assert follower.verdict is None


def test_failed_activation_is_found_in_switch_root(make: Callable[..., Follower], clock: ManualClock) -> None:
    """A service that fails before root is switched is the cause, not the emergency shell that follows."""
    follower = make()
    follower.feed(_recorded("initrd-activation-failed"))
    clock.advance(2.0)
    verdict = follower.verdict
    assert verdict is not None
    assert (verdict.ready, verdict.stage) == (False, Stage.SWITCH_ROOT)
    assert verdict.cause in {Cause.UNIT_FAILED, Cause.EMERGENCY_SHELL}
    assert "NixOS Activation" in verdict.sentence
    assert verdict.evidence_to_verdict_s <= 2.0
