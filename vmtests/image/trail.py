"""What is known of a disk while its way to boot is followed, and what was found on that way."""

from collections.abc import Sequence

from vmtests.host.tools import Toolbox
from vmtests.image import layout
from vmtests.image.files import Files, FilesError
from vmtests.image.filesystem import CONTAINERS
from vmtests.image.layout import Volume
from vmtests.image.source import Source

SUBJECT = "boot"
"""What checks of the way to boot are about."""

_TEXT = 1 << 18  # bytes of a configuration that are read


class Trail:
    """One disk: `steps` are what was found on the way, for people, in order, `files` the paths gone by, and `options`
    the kernel's command line, `root` the one partition that its `root=` names, `kernel` its major and minor version.

    `entry_size` is that of an entry of the GPT, in bytes; 0 without one.
    """

    def __init__(self, disk: Source, volumes: Sequence[Volume], toolbox: Toolbox, *, entry_size: int = 0) -> None:
        self.disk = disk
        self.volumes = volumes
        self.toolbox = toolbox
        self.steps: list[str] = []
        self.files: list[str] = []
        self.options = ""
        self.root: Volume | None = None
        self.kernel: tuple[int, int] | None = None
        self.entry_size = entry_size
        self._opened: dict[int, Files | None] = {}

    def open(self, volume: Volume) -> Files | None:
        """Return the files of a volume; None where its file system is not read here."""
        if volume.number not in self._opened:
            self._opened[volume.number] = layout.files(volume, self.disk)
        return self._opened[volume.number]

    def has(self, volume: Volume, path: str) -> bool:
        """Whether a volume has a file, as far as it can be read."""
        try:
            return (files := self.open(volume)) is not None and files.find(path) is not None
        except FilesError:
            return False

    @property
    def hidden(self) -> bool:
        """Whether the disk has file systems in what is not looked into: encrypted, a volume group, an array."""
        return any(volume.system is not None and volume.system.type in CONTAINERS for volume in self.volumes)


def text(files: Files | None, path: str) -> str:
    """Return a file as text, nothing where it is not there; raises FilesError."""
    if files is None or not path or (real := files.find(path)) is None:
        return ""
    return files.read(real, _TEXT).decode("utf-8", errors="replace")
