"""How long stages took lately, told from the results beside those of this run."""

import statistics
from collections import defaultdict
from pathlib import Path

from vmtests.boot.stages import Stage
from vmtests.resources import read_object
from vmtests.text import clean

_BOOTS = 20


def usual(results: Path, image: Path) -> dict[Stage, float]:
    """Return the median seconds of each stage, of the last boots of `image` that got ready; what cannot be read counts
    for nothing.
    """
    seconds: dict[Stage, list[float]] = defaultdict(list)
    boots = 0
    for directory in sorted((path for path in results.parent.glob("*") if not path.is_symlink()), reverse=True):
        if directory == results or boots == _BOOTS or not _is_of(directory, image):
            continue
        told = read_object(directory / "timeline.json").get("seconds", {})
        boots += 1
        for stage in Stage:
            if isinstance(value := told.get(stage) if isinstance(told, dict) else None, int | float):
                seconds[stage].append(float(value))
    return {stage: statistics.median(values) for stage, values in seconds.items() if stage is not Stage.READY}


def _is_of(directory: Path, image: Path) -> bool:
    if read_object(directory / "verdict.json").get("verdict") != "ready":
        return False
    return read_object(directory / "inspection.json").get("image") == clean(str(image))
