"""The journal on a disk, read without booting it: what a guest that died in stage 2 had to say."""

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from vmtests.errors import HostError, ImageError, from_os
from vmtests.host.tools import Toolbox
from vmtests.image import ext4, gpt
from vmtests.image.check import Slice
from vmtests.image.source import Source, open_disk

PLACE = "/var/log/journal"
"""Where journald keeps what outlives a boot (systemd-journald.service(8))."""

_CORRECTED = 1  # e2fsck(8): errors were corrected


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
    with ExitStack() as files:
        source = files.enter_context(open_disk(disk, toolbox, trusted=True))
        directory = Path(files.enter_context(TemporaryDirectory(prefix=".journal-", dir=target.parent)))
        for offset, length in _ext4_partitions(source):
            descriptor, at = source.range(offset, length)
            if at != 0:
                raise HostError(
                    "only the journal of a qcow2 image can be read", hint="its file system is repaired first"
                )
            place = f"/proc/self/fd/{descriptor}"
            # What was mounted when the power went has its newest blocks in the file system's own journal.
            given = (descriptor,)
            toolbox.read("e2fsck", "-p", "-E", "journal_only", place, descriptors=given, well=(0, _CORRECTED))
            toolbox.read("debugfs", "-R", f'rdump {PLACE} "{directory}"', place, descriptors=given)
            if any(directory.rglob("*.journal")):
                return _export(directory, target, toolbox, since)
    raise ImageError(f"no ext4 partition of the disk has a journal in {PLACE}")


def _ext4_partitions(source: Source) -> list[tuple[int, int]]:
    size = gpt.sector_size(source)
    if size is None:
        return []
    table = gpt.read(source, size)
    places = [(table.start(entry), table.length(entry)) for entry in table.entries]
    return [(start, length) for start, length in places if ext4.holds(Slice(source, start, length))]


def _export(directory: Path, target: Path, toolbox: Toolbox, since: float) -> int:
    # Files of one machine are in a directory of its machine id; of others there are none on a disk of one system.
    holders = sorted({path.parent for path in directory.rglob("*.journal")})
    options = (f"--directory={holders[0]}", f"--since=@{since:.6f}", "--no-hostname", "--no-pager", "--quiet")
    for form, path in (("export", target), ("short-monotonic", target.with_suffix(".txt"))):
        with path.open("wb") as file:
            toolbox.read("journalctl", *options, f"--output={form}", output=file.fileno())
    return target.stat().st_size
