"""Where the project's data and caches are, in a checkout and in an installed wheel."""

import os
from pathlib import Path

from vmtests.errors import HostError

_PACKAGE = Path(__file__).parent
_ANOTHER = "set VMTESTS_CACHE to a writable directory"


def fixture(name: str) -> Path:
    """Return the path of `fixtures/NAME`: beside the package in a checkout, inside it in a wheel."""
    for base in (_PACKAGE / "fixtures", _PACKAGE.parent / "fixtures"):
        if (path := base / name).exists():
            return path
    raise HostError(f"fixtures/{name} is not installed", hint="install vmtests again")


def cache_dir() -> Path:
    """Return the cache directory, made if need be.

    `VMTESTS_CACHE`, else `vmtests` below `XDG_CACHE_HOME` (XDG base directory specification, by which one that is
    relative is none), else `~/.cache/vmtests`. Raises HostError when it cannot be written.
    """
    path = _cache()
    try:
        path = path.absolute()
        path.mkdir(parents=True, exist_ok=True)
        writable = os.access(path, os.W_OK | os.X_OK)
    except OSError as error:
        raise HostError(f"the cache {path} cannot be made: {error.strerror}", hint=_ANOTHER) from error
    if not writable:
        raise HostError(f"the cache {path} is not writable", hint=_ANOTHER)
    return path


def _cache() -> Path:
    if own := os.environ.get("VMTESTS_CACHE"):
        return Path(own)
    if (xdg := Path(os.environ.get("XDG_CACHE_HOME", ""))).is_absolute():
        return xdg / "vmtests"
    try:
        return Path.home() / ".cache" / "vmtests"
    except RuntimeError as error:  # no HOME, and no such user
        raise HostError("there is no home directory for the cache", hint=_ANOTHER) from error
