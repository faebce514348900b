"""Directories for the results of runs."""

import contextlib
import os
from datetime import UTC, datetime
from pathlib import Path

from vmtests.errors import HostError


def new_directory(wanted: Path | None = None) -> Path:
    """Make and return the directory of a run: `wanted`, or `results/<time>` with `results/latest` pointing at it.

    Raises HostError when it cannot be made.
    """
    try:
        if wanted is not None:
            wanted.mkdir(parents=True, exist_ok=True)
            return wanted.absolute()
        base = Path("results").absolute()
        base.mkdir(exist_ok=True)
        return _next(base)
    except OSError as error:
        raise HostError(
            f"no directory for results can be made: {error}",
            hint="name a writable one: --vm-results or --results",
        ) from error


def _next(base: Path) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    for number in range(1000):
        directory = base / (stamp if number == 0 else f"{stamp}-{number}")
        with contextlib.suppress(FileExistsError):
            directory.mkdir()
            # Renamed into place: whoever looks sees the last run or this one.
            link = base / f".latest-{os.getpid()}"
            link.unlink(missing_ok=True)
            link.symlink_to(directory.name)
            link.replace(base / "latest")
            return directory
    raise FileExistsError(f"{base}/{stamp}")
