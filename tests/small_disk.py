"""A file system that runs full without harm to others: a limit on a file's size would be another error."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def small_disk(place: Path, size: str) -> Iterator[None]:
    """Have a file system of its own at `place`, a new directory; PermissionError where this user may mount none.

    `size` is as for tmpfs(5).
    """
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)]
    if (done := subprocess.run(mount, check=False, capture_output=True, encoding="utf-8")).returncode:
        raise PermissionError(done.stderr.strip())
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
