"""An image as machines are given it: a disk, and what is known of it."""

from dataclasses import dataclass
from pathlib import Path

from vmtests.contract import Contract
from vmtests.image.inspect import Inspection
from vmtests.image.reference import Modules


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image to boot: a raw or qcow2 disk that nobody writes to, and what static inspection says of it."""

    name: str
    path: Path
    modules: Modules | None
    inspection: Inspection
    archive: Path | None = None
    """The archive that the disk was unpacked from."""
    debug: bool = False
    """Whether the module `debug`, which the image does not have, is handed to its guest."""

    @property
    def contract(self) -> Contract:
        """What it is held to."""
        return self.inspection.contract
