"""What stages took lately."""

import json
from pathlib import Path

from vmtests.boot.stages import Stage
from vmtests.cockpit.usual import usual


def _run(results: Path, name: str, *, image: str = "a.raw", verdict: str = "ready", kernel: float = 1.0) -> None:
    (directory := results / name).mkdir()
    (directory / "verdict.json").write_text(json.dumps({"verdict": verdict}))
    (directory / "inspection.json").write_text(json.dumps({"image": image}))
    (directory / "timeline.json").write_text(json.dumps({"seconds": {"kernel": kernel, "initrd": "broken"}}))


def test_median_of_good_boots_of_the_same_image(tmp_path: Path) -> None:
    """Boots that failed, other images, this run and what cannot be read count for nothing."""
    for number, kernel in enumerate((1.0, 9.0, 2.0)):
        _run(tmp_path, f"run-{number}", kernel=kernel)
    _run(tmp_path, "failed", verdict="failed", kernel=100.0)
    _run(tmp_path, "other", image="b.raw", kernel=100.0)
    _run(tmp_path, "this", kernel=100.0)
    (tmp_path / "latest").symlink_to("run-0")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/verdict.json").write_text("[")
    assert {Stage.KERNEL: 2.0} == usual(tmp_path / "this", Path("a.raw"))


def test_only_the_last_twenty_count(tmp_path: Path) -> None:
    """What an image took long ago is not what it takes."""
    for number in range(30):
        _run(tmp_path, f"{number:02}", kernel=100.0 if number < 10 else 1.0)
    assert {Stage.KERNEL: 1.0} == usual(tmp_path / "this", Path("a.raw"))
