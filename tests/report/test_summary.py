"""A run in few words."""

import json
from pathlib import Path

from vmtests.report.summary import properties


def _boot(place: Path, ending: str, verdict: str, owner: str | None, kernel: float) -> None:
    (place / f"verdict{ending}.json").write_text(json.dumps({"verdict": verdict, "owner": owner}))
    (place / f"timeline{ending}.json").write_text(json.dumps({"seconds": {"kernel": kernel}}))


def test_boot_that_the_host_spoilt_is_not_the_runs(tmp_path: Path) -> None:
    """A boot whose timer stood still was begun again: the one that followed is told."""
    _boot(tmp_path, "", "failed", "host", 90.0)
    _boot(tmp_path, "-2", "ready", None, 3.0)
    told = properties(tmp_path)
    assert ("ready", "3.000") == (told["vmtests.verdict"], told["vmtests.seconds.kernel"])


def test_boots_that_a_test_asked_for_are_not_the_runs(tmp_path: Path) -> None:
    """What is told is the first boot, also where a test has rebooted the machine."""
    _boot(tmp_path, "", "failed", "image", 3.0)
    _boot(tmp_path, "-2", "ready", None, 4.0)
    told = properties(tmp_path)
    assert ("failed", "3.000") == (told["vmtests.verdict"], told["vmtests.seconds.kernel"])
