"""The token of an emulator on this host: in a file that only its user can read, where that user's clients look."""

import contextlib
import os
from pathlib import Path
from urllib.parse import urlsplit

from vmtests.resources import cache_dir

VARIABLE = "VMTESTS_GCE_TOKEN"
"""The variable with the token of an emulator whose cache is another's."""

_NAME = "token-{port}"


def write(directory: Path, port: int, token: str) -> Path:
    """Write the token of the emulator on `port` into its directory in the cache, and return the file."""
    path = directory / _NAME.format(port=port)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(token)
    return path


def find(endpoint: str) -> str:
    """Return the token of the emulator at `endpoint`; empty where there is none that this user may read."""
    if given := os.environ.get(VARIABLE):
        return given
    # Emulators that were killed may have left one of the same port, until the next one begins.
    newest, token = 0.0, ""
    for path in (cache_dir() / "emulator").glob(f"*/{_NAME.format(port=urlsplit(endpoint).port)}"):
        with contextlib.suppress(OSError):
            if (written := path.stat().st_mtime) >= newest:
                newest, token = written, path.read_text(encoding="utf-8")
    return token


def headers(endpoint: str) -> dict[str, str]:
    """Return what a request to the emulator at `endpoint` has to have."""
    return {"Authorization": f"Bearer {find(endpoint)}"}
