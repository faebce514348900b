"""Builds what an image.json describes: a raw disk, the archive that Compute Engine takes, or both."""

import contextlib
import tempfile
from pathlib import Path

from vmtests.errors import at_named
from vmtests.host.tools import Toolbox
from vmtests.image import archive
from vmtests.image.assemble import assemble
from vmtests.image.spec import ImageSpec


def build(spec: ImageSpec, toolbox: Toolbox, *, disk: Path | None = None, packed: Path | None = None) -> None:
    """Write the image to `disk`, and into the archive `packed`; without `disk` the raw image is scratch beside it.

    Raises HostError when a tool fails or the disk is full.
    """
    with contextlib.ExitStack() as stack:
        if disk is None:
            if packed is None:
                return
            try:
                scratch = tempfile.TemporaryDirectory(prefix=f".{packed.name}.", dir=packed.absolute().parent)
            except OSError as error:
                raise at_named(f"{packed.absolute().parent} is not writable", error, "name another place") from error
            disk = Path(stack.enter_context(scratch)) / archive.MEMBER
        # Nix takes no relative name for its state.
        assemble(spec, disk.absolute(), toolbox)
        if packed is not None:
            archive.pack(disk, packed)
