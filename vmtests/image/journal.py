"""The journal on a disk, read without booting it: what a guest that died in stage 2 had to say.

The disk is a guest's. Its files are read by our own code and get names of ours: debugfs(8) would write where a name in
a directory of the disk leads to (`rdump` of e2fsprogs 1.47), which may be any file of this host.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from vmtests.errors import HostError, ImageError, from_os
from vmtests.host.sandbox import View
from vmtests.host.tools import Toolbox
from vmtests.image import ext4, gpt
from vmtests.image.check import Slice
from vmtests.image.extfiles import ExtFiles
from vmtests.image.files import FilesError
from vmtests.image.source import Source, open_disk
from vmtests.sizes import GIB

PLACE = "/var/log/journal"
"""Where journald keeps what outlives a boot (systemd-journald.service(8))."""

_CORRECTED = 1  # e2fsck(8): errors were corrected
_LIMIT = GIB  # bytes of journals that are read, the newest first; one has 128 MiB at most


def export(disk: Path, target: Path, toolbox: Toolbox, *, since: float) -> int:
    """Write the journal's entries since `since` (seconds of the epoch) to `target`, in journalctl's export format, and
    for people beside it, as .txt.

    `disk` is a qcow2 image that nobody has open; it is not changed. Returns the number of bytes. Raises
    ImageError where no ext4 partition holds a journal, HostError when a tool fails.
    """
    try:
        return _find(disk, target, toolbox, since)
    except OSError as error:
        raise from_os("the journal cannot be read", error) from error


def _find(disk: Path, target: Path, toolbox: Toolbox, since: float) -> int:
    unread = ""
    with ExitStack() as files:
        source = files.enter_context(open_disk(disk, toolbox, trusted=True))
        directory = Path(files.enter_context(TemporaryDirectory(prefix=".journal-", dir=target.parent)))
        for offset, length in _ext4_partitions(source):
            descriptor, at = source.range(offset, length)
            if at != 0:
                raise HostError(
                    "only the journal of a qcow2 image can be read", hint="its file system is repaired first"
                )
            # What was mounted when the power went has its newest blocks in the file system's own journal.
            options = ("-p", "-E", "journal_only", f"/proc/self/fd/{descriptor}")
            toolbox.read("e2fsck", *options, descriptors=(descriptor,), well=(0, _CORRECTED), view=View(network=False))
            try:
                if _copy(_Partition(descriptor, length), directory):
                    return _export(directory, target, toolbox, since)
            except FilesError as error:
                unread = f": {error}"
    raise ImageError(f"no ext4 partition of the disk has a journal in {PLACE}{unread}")


@dataclass(frozen=True, slots=True)
class _Partition:
    """A partition in a file of its own."""

    descriptor: int
    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Return what is there, which is short at the end."""
        return os.pread(self.descriptor, max(min(length, self.size - offset), 0), offset)


def _copy(partition: _Partition, directory: Path) -> bool:
    """Write the journals of the first machine on a partition into `directory`; return whether there are any.

    Raises FilesError where its directories cannot be read.
    """
    left, number = _LIMIT, 0
    files = ExtFiles(partition)
    for path in _journals(files):
        copy = directory / f"{number}{'.journal~' if path.endswith('~') else '.journal'}"
        with copy.open("wb") as file, suppress(FilesError):  # of what is no file, or damaged, the rest is told
            for piece in files.chunks(path, 0, left):
                file.write(piece)
                left -= len(piece)
        number += copy.stat().st_size > 0
    return number > 0


def _journals(files: ExtFiles) -> Iterator[str]:
    """Yield the paths of one machine's journals: those that were open, then the others from the newest on.

    Files of one machine are in a directory of its machine id; of others there are none on a disk of one system. A
    name has an `@` when the file was closed, and behind it a number that grows (systemd-journald.service(8)).
    """
    for machine in files.below(PLACE, ""):
        found = [path for suffix in (".journal", ".journal~") for path in files.below(machine, suffix)]
        if found:
            closed = [path for path in found if "@" in path]
            yield from sorted(set(found) - set(closed))
            yield from reversed(closed)
            return


def _ext4_partitions(source: Source) -> list[tuple[int, int]]:
    size = gpt.sector_size(source)
    if size is None:
        return []
    table = gpt.read(source, size)
    places = [(table.start(entry), table.length(entry)) for entry in table.entries]
    return [(start, length) for start, length in places if ext4.holds(Slice(source, start, length))]


def _export(directory: Path, target: Path, toolbox: Toolbox, since: float) -> int:
    options = (f"--directory={directory}", f"--since=@{since:.6f}", "--no-hostname", "--no-pager", "--quiet")
    for form, path in (("export", target), ("short-monotonic", target.with_suffix(".txt"))):
        with path.open("wb") as file:
            view = View(readable=(directory,), network=False)
            toolbox.read("journalctl", *options, f"--output={form}", output=file, view=view)
    return target.stat().st_size
