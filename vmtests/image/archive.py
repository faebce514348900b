"""The archive that Compute Engine imports: `disk.raw` alone, in a sparse tar of the old GNU format, gzipped."""

import os
import tempfile
from pathlib import Path

from vmtests import progress
from vmtests.errors import HostError, InputError
from vmtests.host.tools import Toolbox
from vmtests.image.assemble import STORE_TIME
from vmtests.sizes import GIB, format_size

MEMBER = "disk.raw"


def pack(disk: Path, archive: Path, toolbox: Toolbox) -> None:
    """Pack `disk` into `archive`, which appears whole or not at all; equal disks give equal archives.

    Raises InputError when the disk is not a whole number of GiB, HostError when the disk is full.
    """
    size = disk.stat().st_size
    if size % GIB:
        raise InputError(
            f"{disk} has {format_size(size)}; Compute Engine takes a whole number of GiB",
            hint=f"truncate -s {-(-size // GIB)}G on a copy; the last partition grows at boot",
        )
    try:
        scratch = tempfile.TemporaryDirectory(prefix=f".{archive.name}.", dir=archive.absolute().parent)
    except OSError as error:
        raise HostError(f"{archive.parent} is not writable: {error.strerror}") from error
    with scratch as name, progress.step(f"archive {archive.name}"):
        partial = Path(name) / "archive"
        (Path(name) / MEMBER).symlink_to(disk.absolute())
        toolbox.run(
            *("tar", "--create", "--sparse", "--dereference", "--format=oldgnu", "--owner=0", "--group=0"),
            *("--numeric-owner", "--mode=0644", f"--mtime=@{STORE_TIME}", "--use-compress-program=pigz -n"),
            *("--directory", name, "--file", os.fspath(partial), MEMBER),
        )
        partial.replace(archive)
