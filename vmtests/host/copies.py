"""Copies of disks."""

import subprocess
from pathlib import Path

from vmtests.errors import HostError


def copy_disk(source: Path, target: Path) -> None:
    """Copy a disk, sparse, or sharing its blocks where the file system can. Raises HostError.

    By cp(1): Python has no reflink, and shutil.copyfile() fills holes.
    """
    command = ("cp", "--sparse=always", "--reflink=auto", "--", source, target)
    try:
        subprocess.run(
            command, check=True, capture_output=True, encoding="utf-8", errors="replace", stdin=subprocess.DEVNULL
        )
    except subprocess.CalledProcessError as error:
        lines = error.stderr.splitlines() or ["no message"]
        raise HostError(f"{target} cannot be written: {lines[-1]}") from error
    except OSError as error:
        raise HostError(f"{target} cannot be written: {error.strerror}") from error
