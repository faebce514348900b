"""Directories for the results of runs."""

import contextlib
import os
from datetime import UTC, datetime
from pathlib import Path

from vmtests.errors import HostError

_MODE = 0o700  # what a guest says, and its disk, are nobody else's business


def new_directory(wanted: Path | None = None) -> Path:
    """Make and return the directory of a run: `wanted`, or `results/<time>` with `results/latest` pointing at it.

    Raises HostError when it cannot be made.
    """
    try:
        if wanted is not None:
            wanted.parent.mkdir(parents=True, exist_ok=True)
            wanted.mkdir(mode=_MODE, exist_ok=True)
            return wanted.absolute()
        base = Path("results").absolute()
        base.mkdir(exist_ok=True)
        return _next(base)
    except OSError as error:
        raise _no_directory(error) from error


def _next(base: Path) -> Path:
    stamp = _stamp()
    for number in range(1000):
        directory = base / (stamp if number == 0 else f"{stamp}-{number}")
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=_MODE)
            _link(directory)
            return directory
    raise FileExistsError(f"{base}/{stamp}")


def planned(wanted: Path | None, run: str) -> Path:
    """Return a directory for a run of several processes, which none of them has made yet; `run` is its name."""
    return (wanted or Path("results") / f"{_stamp()}-{run}").absolute()


def part(directory: Path, name: str, *, wanted: bool) -> Path:
    """Make and return the directory of one process below that of its run; `latest` points at the run's.

    With `wanted` the run's directory was asked for, and there is no such link. Raises HostError.
    """
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=_MODE, exist_ok=True)
        (directory / name).mkdir(exist_ok=True)
        if not wanted:
            _link(directory)
    except OSError as error:
        raise _no_directory(error) from error
    return directory / name


def _link(directory: Path) -> None:
    # Renamed into place: whoever looks sees the last run or this one.
    link = directory.with_name(f".latest-{os.getpid()}")
    link.unlink(missing_ok=True)
    link.symlink_to(directory.name)
    link.replace(directory.with_name("latest"))


def _stamp() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


def _no_directory(error: OSError) -> HostError:
    return HostError(f"no directory for results can be made: {error}", hint="name a writable one with --vm-results")
