"""Names for the addresses of an image's kernel: its System.map where there is one, else what the kernel carries."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from vmtests.errors import HostError, ImageError
from vmtests.host.tools import Toolbox
from vmtests.image import ext4, fat, gpt, kallsyms
from vmtests.image.check import Slice
from vmtests.image.fatfiles import FatFiles
from vmtests.image.files import FilesError
from vmtests.image.kallsyms import Symbols
from vmtests.image.source import Source, open_disk

_BOOT = "/boot"
_KERNEL_LIMIT = 64 << 20  # bytes of a compressed kernel
_SECONDS = 20.0
_NAMES = ("vmlinuz", "bzimage", "kernel", "linux")


def find(disk: Path, toolbox: Toolbox) -> Symbols:
    """Return the symbols of the kernel in the disk image `disk`, which is not changed.

    Raises ImageError, which says what was looked for, where there are none; InputError and HostError as `open_disk`.
    """
    with ExitStack() as files:
        source = files.enter_context(open_disk(disk, toolbox))
        maps, kernels = 0, 0
        for name, data in _candidates(source, toolbox):
            if "system.map" in name.lower():
                maps += 1
                found = kallsyms.parse_map(data.decode("ascii", "replace"))
            else:
                kernels += 1
                image = kallsyms.unpack(data, toolbox)
                found = None if image is None else kallsyms.read(image)
            if found is not None:
                return found
    raise ImageError(
        f"no names for the kernel's addresses: {maps} System.map (Debian's is a stub) and {kernels} kernels were read"
    )


def _candidates(source: Source, toolbox: Toolbox) -> Iterator[tuple[str, bytes]]:
    """Yield System.map and kernels of each ext4's /boot, then the kernels of each FAT, by name and content."""
    if (size := gpt.sector_size(source)) is None:
        return
    table = gpt.read(source, size)
    places = [(table.start(entry), table.length(entry)) for entry in table.entries]
    for start, length in places:
        if ext4.holds(Slice(source, start, length)):
            yield from _ext4_files(*source.range(start, length), toolbox)
    for start, length in places:
        if fat.parse(source.read(start, 512)) is not None:
            listing = FatFiles(*source.range(start, length))
            try:
                names = [name for key, name in listing.names().items() if any(word in key for word in _NAMES)]
                for name in names:
                    yield name, listing.read(name, _KERNEL_LIMIT)
            except FilesError:
                continue


def _ext4_files(descriptor: int, offset: int, toolbox: Toolbox) -> Iterator[tuple[str, bytes]]:
    place = f"/proc/self/fd/{descriptor}?offset={offset}"
    listing = _read(toolbox, f"ls -p {_BOOT}", place, descriptor)
    # Each line is /inode/mode/uid/gid/name/size/.
    names = [line.split(b"/")[5].decode("ascii", "replace") for line in listing.splitlines() if line.count(b"/") > 6]
    for prefix in ("System.map-", "vmlinuz-"):
        for name in sorted(names, reverse=True):
            if name.startswith(prefix) and not set(name) & set(' "\\'):
                yield name, _read(toolbox, f"cat {_BOOT}/{name}", place, descriptor)


def _read(toolbox: Toolbox, command: str, place: str, descriptor: int) -> bytes:
    """Return what debugfs says to a command; nothing where it fails or takes too long."""
    try:
        return toolbox.read("debugfs", "-R", command, place, descriptors=(descriptor,), seconds=_SECONDS)
    except HostError:
        return b""
