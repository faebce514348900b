"""Copies of disks."""

import os
from pathlib import Path

from vmtests.errors import HostError
from vmtests.host.sandbox import ask


def copy_disk(source: Path, target: Path) -> None:
    """Copy a disk, sparse, or sharing its blocks where the file system can. Raises HostError.

    By cp(1): Python has no reflink, and shutil.copyfile() fills holes.
    """
    try:
        result = ask(["cp", "--sparse=always", "--reflink=auto", "--", os.fspath(source), os.fspath(target)])
    except OSError as error:
        raise HostError(f"{target} cannot be written: {error.strerror}") from error
    if result.returncode != 0:
        raise HostError(f"{target} cannot be written: {(result.stderr.splitlines() or ['no message'])[-1]}")
