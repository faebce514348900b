"""Somebody's own disk, made fit for a machine: raw and qcow2 are used as they are, an archive is unpacked."""

from pathlib import Path

from vmtests import progress
from vmtests.host.tools import Toolbox
from vmtests.image.archive import MEMBER

_GZIP_MAGIC = b"\x1f\x8b"


def adopt(path: Path, scratch: Path, toolbox: Toolbox) -> Path:
    """Return a disk that QEMU can put an overlay on; an archive's `disk.raw` is unpacked, sparse, into `scratch`.

    What is no image at all is returned as it is: inspection says what is wrong with it. Raises HostError when the
    archive cannot be unpacked.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(len(_GZIP_MAGIC))
    except OSError:
        return path
    if magic != _GZIP_MAGIC:
        return path
    with progress.step(f"unpacking {path.name}"):
        toolbox.run(
            *("tar", "--extract", "--sparse", "--use-compress-program=pigz", "--no-same-owner"),
            *("--directory", scratch, "--file", path.absolute(), MEMBER),
        )
    return scratch / MEMBER
