"""Two builds of one image, byte by byte: in which partition they differ, and in which file."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from vmtests.host.sandbox import run_in
from vmtests.host.tools import Toolbox
from vmtests.image import archive, gpt, layout
from vmtests.image.check import clean
from vmtests.image.erofstree import DIRECTORY, FLAT_INLINE, FLAT_PLAIN, Tree
from vmtests.image.fatfiles import FatFiles
from vmtests.image.layout import Volume
from vmtests.image.source import Source, open_disk
from vmtests.sizes import MIB, format_size, whole

_BLOCK = 4096
_LOOKED_AT = 256  # blocks that differ, of which one is in a file


def difference(first: Path, second: Path, toolbox: Toolbox) -> str | None:
    """Say in which partition, and in which file of it, the raw disks first differ; None where they do not.

    What was never written, and reads as zeros, is the same as zeros that were written.
    """
    if (sizes := (first.stat().st_size, second.stat().st_size))[0] != sizes[1]:
        return f"one has {format_size(sizes[0])}, the other {format_size(sizes[1])}"
    with open_disk(first, toolbox) as one, open_disk(second, toolbox) as other:
        blocks = _different(first, second, sizes[0])
        if (place := next(blocks, None)) is None:
            return None
        places = [place, *itertools.islice(blocks, _LOOKED_AT)]
        found = layout.volumes(one, gpt.read(one, gpt.sector_size(one) or 512))
        for volume in found:
            start, size = volume.content.offset, volume.content.size
            inside = [place - start for place in places if start <= place < start + size]
            # A table differs in its checksums when a partition's size does, which says more.
            if inside:
                file = _file(volume, inside, one, other, first, toolbox)
                return f"{volume.where}, {f'file {clean(file)}' if file else 'in its metadata'}"
        return "the partition table"


def _different(first: Path, second: Path, size: int) -> Iterator[int]:
    """Give where the blocks begin that differ; holes of both are not read."""
    with first.open("rb") as one, second.open("rb") as other:
        pieces = {
            place
            for file in (one, other)
            for begin, length in archive.data_ranges(file.fileno(), size)
            for place in range(begin - begin % MIB, begin + length, MIB)
        }
        for place in sorted(pieces):
            ours, theirs = (os.pread(file.fileno(), MIB, place) for file in (one, other))
            if ours != theirs:
                for offset in range(0, len(ours), _BLOCK):
                    if ours[offset : offset + _BLOCK] != theirs[offset : offset + _BLOCK]:
                        yield place + offset


def _file(volume: Volume, blocks: list[int], one: Source, other: Source, disk: Path, toolbox: Toolbox) -> str | None:
    """Return the first file of a partition that one of `blocks` is in; None where that is none."""
    kind = "" if volume.system is None else volume.system.type
    if kind == "vfat":
        return _on_esp(volume, one, other)
    if kind == "erofs":
        return _in_erofs(Tree(volume.content.read), blocks)
    if kind.startswith("ext"):
        return _in_ext4(f"{disk}?offset={volume.content.offset}", blocks, toolbox)
    return None


def _on_esp(volume: Volume, one: Source, other: Source) -> str | None:
    sides = [FatFiles(*disk.range(volume.content.offset, volume.content.size)) for disk in (one, other)]
    names = [side.names() for side in sides]
    for name in sorted({*names[0], *names[1]}):
        if name not in names[0] or name not in names[1]:
            return name
        read = [side.chunks(known[name], 0, volume.content.size) for side, known in zip(sides, names, strict=True)]
        if b"".join(read[0]) != b"".join(read[1]):
            return names[0][name]
    return None


def _in_erofs(tree: Tree, blocks: list[int]) -> str | None:
    """Return the file whose content, else whose inode, is in one of the blocks."""
    wanted = set(blocks)
    by_inode: str | None = None
    for path, entry in tree.walk():
        inode = tree.inode(entry.nid)
        if inode.layout in {FLAT_PLAIN, FLAT_INLINE} and entry.kind != DIRECTORY:
            start = inode.block * tree.block_size
            if any(start <= block < start + inode.size for block in blocks):
                return path
        if by_inode is None and inode.place - inode.place % _BLOCK in wanted:
            by_inode = path
    return by_inode


def _in_ext4(device: str, blocks: list[int], toolbox: Toolbox) -> str | None:
    """Return the file that debugfs(8) finds for one of the blocks."""

    def ask(command: str) -> list[list[str]]:
        told = run_in(toolbox.root("debugfs"), ["debugfs", "-R", command, device])
        return [line.split(maxsplit=1) for line in told.splitlines()[1:]]

    for _, *inode in ask(f"icheck {' '.join(str(block // _BLOCK) for block in blocks)}"):
        # Inodes below 11 are the file system's own, but for the root directory.
        if inode and ((number := whole(inode[0]) or 0) > 10 or number == 2):
            for _, *path in ask(f"ncheck {inode[0]}"):
                return path[0] if path else None
    return None
