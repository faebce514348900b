"""Verdicts as JSON, and as an exit status."""

from dataclasses import replace

import pytest

from vmtests.boot.stages import Stage
from vmtests.boot.verdict import Cause, Evidence, Verdict
from vmtests.errors import Owner

READY = Verdict(
    ready=True,
    stage=Stage.READY,
    cause=None,
    sentence="s",
    evidence=(),
    hint="",
    owner=None,
    evidence_to_verdict_s=0.0,
)


class TestJson:
    """The form for programs."""

    def test_a_failure(self) -> None:
        """A failed boot has exactly the fields that programs read."""
        verdict = Verdict(
            ready=False,
            stage=Stage.SWITCH_ROOT,
            cause=Cause.KERNEL_PANIC,
            sentence="s",
            evidence=(Evidence(t=1.23456, source="console", text="x"),),
            hint="h",
            owner=Owner.IMAGE,
            evidence_to_verdict_s=0.12345,
            seconds={Stage.FIRMWARE: 1.0, Stage.SWITCH_ROOT: 0.5},
        )
        assert verdict.to_json() == {
            "verdict": "failed",
            "stage": "switch-root",
            "cause": "kernel-panic",
            "sentence": "s",
            "evidence": [{"t": 1.235, "source": "console", "text": "x"}],
            "hint": "h",
            "failed_units": [],
            "owner": "image",
            "seconds": {"firmware": 1.0, "switch-root": 0.5},
            "evidence_to_verdict_s": 0.123,
        }

    def test_ready(self) -> None:
        """A guest that got ready has neither cause nor owner."""
        shown = READY.to_json()
        assert (shown["verdict"], shown["cause"], shown["owner"]) == ("ready", None, None)


@pytest.mark.parametrize(("owner", "status"), [(None, 0), (Owner.IMAGE, 1), (Owner.HOST, 2), (Owner.CLOUD, 2)])
def test_exit_status_tells_whose_fault_it_is(owner: Owner | None, status: int) -> None:
    """A command exits with 1 only where the image is at fault."""
    assert status == replace(READY, ready=owner is None, owner=owner).exit_status
