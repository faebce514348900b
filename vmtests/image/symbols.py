"""Names for the addresses of an image's kernel: its System.map where there is one, else what the kernel carries."""

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from vmtests.errors import ImageError
from vmtests.host.tools import Toolbox
from vmtests.image import gpt, kallsyms, layout
from vmtests.image.fatfiles import FatFiles
from vmtests.image.files import FilesError
from vmtests.image.kallsyms import Symbols
from vmtests.image.source import Source, open_disk

_BOOT = "/boot"
_KERNEL_LIMIT = 64 << 20  # bytes of a compressed kernel
_NAMES = ("vmlinuz", "bzimage", "kernel", "linux")


def find(disk: Path, toolbox: Toolbox) -> Symbols:
    """Return the symbols of the kernel in the disk image `disk`, which is not changed.

    Raises ImageError, which says what was looked for, where there are none; InputError and HostError as `open_disk`.
    """
    with ExitStack() as files:
        source = files.enter_context(open_disk(disk, toolbox))
        maps, kernels = 0, 0
        for name, data in _candidates(source):
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


def _candidates(source: Source) -> Iterator[tuple[str, bytes]]:
    """Yield System.map and kernels of each ext4's /boot, then the kernels of each FAT, by name and content."""
    if (size := gpt.sector_size(source)) is None:
        return
    table = gpt.read(source, size)
    volumes = layout.volumes(source, table)
    opened = [(volume.readable, layout.files(volume, source)) for volume in volumes]
    for kind, files in opened:
        with suppress(FilesError):
            if files is not None and kind.startswith("ext"):
                for prefix in ("System.map-", "vmlinuz-"):
                    for path in reversed(files.below(_BOOT, "")):
                        if path.startswith(f"{_BOOT}/{prefix}"):
                            yield path, files.read(path, _KERNEL_LIMIT)
    for _, files in opened:
        with suppress(FilesError):
            if isinstance(files, FatFiles):
                for key, path in files.names().items():
                    if any(word in key for word in _NAMES):
                        yield path, files.read(path, _KERNEL_LIMIT)
