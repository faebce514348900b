"""How long stages took lately, told from the results beside those of this run."""

import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from vmtests.boot.stages import Stage
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
        told = _read(directory / "timeline.json").get("seconds", {})
        boots += 1
        for stage in Stage:
            if isinstance(value := told.get(stage) if isinstance(told, dict) else None, int | float):
                seconds[stage].append(float(value))
    return {stage: statistics.median(values) for stage, values in seconds.items() if stage is not Stage.READY}


def _is_of(directory: Path, image: Path) -> bool:
    if _read(directory / "verdict.json").get("verdict") != "ready":
        return False
    return _read(directory / "inspection.json").get("image") == clean(str(image))


def _read(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}
