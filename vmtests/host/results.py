"""Directories for the results of runs."""

import contextlib
import errno
import fcntl
import functools
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from vmtests.errors import InputError, VmtestsError, at_named

_MODE = 0o700  # what a guest says, and its disk, are nobody else's business


def new_directory(wanted: Path | None = None) -> Path:
    """Make and return the directory of a run: `wanted`, or `results/<time>` with `results/latest` pointing at it.

    Raises InputError when it cannot be made, HostError on a full disk.
    """
    try:
        if wanted is not None:
            _make(wanted)
            return wanted.absolute()
        base = Path("results").absolute()
        _check_latest(base)
        base.mkdir(exist_ok=True)
        return _next(base)
    except OSError as error:
        raise _no_directory(error) from error


def later(wanted: Path | None = None) -> Callable[[], Path]:
    """Return what makes the directory of a run when there is something to put there (`new_directory`).

    Raises InputError now where it never could: before the work, and not after.
    """
    try:
        place = (wanted or Path("results")).absolute()
        if wanted is None:
            _check_latest(place)
        while not place.exists():
            place = place.parent
    except OSError as error:
        raise _no_directory(error) from error
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        read_only = os.statvfs(place).f_flag & os.ST_RDONLY
        reason = (errno.EROFS if read_only else errno.EACCES) if place.is_dir() else errno.ENOTDIR
        raise _no_directory(OSError(reason, os.strerror(reason), os.fspath(place)))
    return functools.partial(new_directory, wanted)


def _make(directory: Path) -> None:
    """Make it, where nobody else may enter, with those above it; one that is there stays as it is."""
    with contextlib.suppress(FileNotFoundError):
        directory.mkdir(mode=_MODE, exist_ok=True)
        return
    directory.parent.mkdir(parents=True, exist_ok=True)
    directory.mkdir(mode=_MODE, exist_ok=True)


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

    With `wanted` the run's directory was asked for, and there is no such link. Raises as `new_directory`.
    """
    try:
        if not wanted:
            _check_latest(directory.parent)
        _make(directory)
        (directory / name).mkdir(exist_ok=True)
        if not wanted:
            _link(directory)
    except OSError as error:
        raise _no_directory(error) from error
    return directory / name


def _check_latest(base: Path) -> None:
    """Raise InputError where a directory stands for the link: zip(1), and what keeps artifacts of CI, follow links."""
    if (latest := base / "latest").is_dir() and not latest.is_symlink():
        raise InputError(
            f"{latest} is a directory, where the link to the last run goes",
            hint="move it away, or name a directory for this run's results with --vm-results",
        )


def _link(directory: Path) -> None:
    # Renamed into place: whoever looks sees the last run or this one.
    link = directory.with_name(f".latest-{os.getpid()}")
    link.unlink(missing_ok=True)
    link.symlink_to(directory.name)
    link.replace(directory.with_name("latest"))


def _stamp() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


def _no_directory(error: OSError) -> VmtestsError:
    at = "in a working directory that is gone" if error.filename is None else f"at {error.filename}"
    what = f"no directory for results can be made {at}"
    return at_named(what, error, "name a writable one with --vm-results")


@contextlib.contextmanager
def held(directory: Path) -> Iterator[None]:
    """Hold a directory for the results of one machine, so that no two write into the same logs.

    The hold ends with its holder, also after kill -9 (flock(2)). Raises InputError when another machine, of this
    process or of another one, has it.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _no_directory(error) from error
    try:
        # A file system that locks no directories holds none.
        with contextlib.suppress(OSError):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"{directory} has the results of a machine that runs",
                    hint="give this one a name of its own, or the run another directory (--vm-results)",
                ) from None
        yield
    finally:
        os.close(descriptor)
