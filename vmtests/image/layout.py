"""What is on a disk, partition by partition, by type, label and superblock; whoever made it.

Types: the Discoverable Partitions Specification (https://uapi-group.org/specifications/specs/discoverable_partitions_specification/).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from vmtests.contract import MBR_TYPES, TYPES
from vmtests.host.formats import Format
from vmtests.image import gpt
from vmtests.image.check import Check, Readable, Slice, breach, clean, passed
from vmtests.image.eltorito import EFI, boot_images
from vmtests.image.extfiles import ExtFiles
from vmtests.image.fatfiles import FatFiles
from vmtests.image.files import Files, FilesError
from vmtests.image.filesystem import FileSystem, probe
from vmtests.image.source import Source
from vmtests.sizes import format_size

ESP = "esp"
XBOOTLDR = "xbootldr"
EMPTY = "00"
"""The type of an entry of an MBR that counts as none for firmware and boot loaders."""

_COPIED = 4 << 30  # bytes; an ESP has fewer
_EXTENDED = frozenset({0x05, 0x0F, 0x85})
_LOGICAL = 32  # of an extended partition that are looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A partition, or a whole disk without a table (`number` 0): places and sizes are in bytes."""

    number: int
    label: str
    type: str
    unique: str
    content: Slice
    system: FileSystem | None

    @property
    def where(self) -> str:
        """What it is called in sentences."""
        name = f" `{self.label}`" if self.label else ""
        return f"partition {self.number}{name}" if self.number else "the disk"

    @property
    def readable(self) -> str:
        """The type of the file system that firmware and boot loaders see, empty where they see none."""
        return "" if self.system is None else (self.system.inner or self.system).type

    def to_json(self) -> dict[str, object]:
        """Return the volume as JSON data."""
        system = self.system
        return {
            "number": self.number,
            "label": clean(self.label),
            "type": self.type,
            "uuid": self.unique,
            "start": self.content.offset,
            "size": self.content.size,
            "filesystem": None if system is None else system.type,
            "filesystem_label": "" if system is None else clean(system.label),
            "filesystem_uuid": "" if system is None else clean(system.uuid),
        }


def volumes(disk: Source, table: gpt.Table) -> list[Volume]:
    """Return what is on the disk, by its GPT, else by its MBR, else as a whole."""
    found = []
    for entry in table.entries:
        if entry.last_lba >= entry.first_lba:
            kind = TYPES.get(entry.type_uuid, str(entry.type_uuid))
            place = (table.start(entry), table.length(entry))
            found.append(_volume(disk, entry.number, entry.label, kind, str(entry.unique_uuid), *place))
    if found or table.header is not None:
        return [*found, *_hybrid(disk, found)]
    signature = disk.read(440, 4)[::-1].hex()
    for number, kind_, start, count in mbr(disk):
        name = MBR_TYPES.get(kind_, f"{kind_:02x}")
        found.append(_volume(disk, number, "", name, f"{signature}-{number:02x}", start * 512, count * 512))
    if found:
        return [*found, *_hybrid(disk, found)]
    return [_volume(disk, 0, "", "whole", "", 0, disk.size), *_on_disc(disk)]


def _hybrid(disk: Source, found: list[Volume]) -> Iterator[Volume]:
    """Yield the CD-ROM that a disk with partitions is as a whole, unless one of them begins with it."""
    if disk.read(0x8001, 5) == b"CD001" and not any(volume.content.offset == 0 for volume in found):
        whole = _volume(disk, 0, "", "whole", "", 0, disk.size)
        if whole.readable == "iso9660":
            yield whole


def _on_disc(disk: Source) -> Iterator[Volume]:
    """Yield what UEFI starts from a CD-ROM: the FAT that its boot catalog names."""
    for number, image in enumerate(boot_images(disk), start=1):
        if image.platform == EFI and image.start < disk.size:
            yield _volume(disk, number, "El Torito", ESP, "", image.start, disk.size - image.start)


def _volume(disk: Source, number: int, label: str, kind: str, unique: str, start: int, size: int) -> Volume:
    content = Slice(disk, start, size)
    return Volume(number=number, label=label, type=kind, unique=unique, content=content, system=probe(content))


def by_mbr(disk: Readable) -> bool:
    """Return whether a disk has partitions by its MBR, and none that says there is a GPT (block/partitions/efi.c)."""
    return not gpt.is_protective(disk) and any(True for _ in mbr(disk))


def mbr(disk: Readable) -> Iterator[tuple[int, int, int, int]]:
    """Yield number, type, first sector and count of the partitions of a master boot record, logical ones included."""
    sector = disk.read(0, 512)
    if len(sector) < 512 or sector[510:] != b"\x55\xaa":
        return
    # Linux makes a device of an entry of type 00, too (block/partitions/msdos.c), as a hybrid CD-ROM has one; here
    # only beside another, since what looks like a table may be code.
    used = bool(set(gpt.mbr_types(disk)) - {0xEE})
    for index in range(4):
        kind, start, count = struct.unpack_from("<4xB3xII", sector, 446 + 16 * index)
        if kind in _EXTENDED:
            yield from _logical(disk, start)
        elif kind != 0xEE and (kind or used) and count and start * 512 < disk.size:
            yield index + 1, kind, start, count


def _logical(disk: Readable, base: int) -> Iterator[tuple[int, int, int, int]]:
    at, number = base, 5
    for _ in range(_LOGICAL):
        sector = disk.read(at * 512, 512)
        if len(sector) < 512 or sector[510:] != b"\x55\xaa":
            return
        kind, start, count = struct.unpack_from("<4xB3xII", sector, 446)
        if kind and count:
            yield number, kind, at + start, count
            number += 1
        following, offset = struct.unpack_from("<4xB3xI", sector, 462)
        if following not in _EXTENDED:
            return
        at = base + offset


def files(volume: Volume, disk: Source) -> Files | None:
    """Return the files of a volume; None where its file system is not read here."""
    kind = volume.readable
    if kind == "vfat":
        return fat_files(volume.content, disk)
    if kind.startswith("ext"):
        try:
            return ExtFiles(volume.content)
        except FilesError:
            return None
    return None


def fat_files(content: Slice, disk: Source) -> FatFiles | None:
    """Return the files of a FAT; None for one that is too large to be copied out of its format."""
    if content.size > _COPIED and disk.format not in (Format.RAW, Format.ARCHIVE):
        return None
    return FatFiles(*disk.range(content.offset, content.size))


def check(volume: Volume) -> Iterator[Check]:
    """Say what a volume is, and whether its file system is all there."""
    subject, system = volume.where, volume.system
    yield passed(subject, "type", volume.type)
    if system is None:
        yield passed(subject, "file system", "none")
        return
    yield passed(subject, "file system", system.type)
    if system.size is not None and system.size > volume.content.size and system.type != "iso9660":
        text = f"{system.type} on {subject} has {system.size} bytes, but there are {volume.content.size}"
        yield breach(subject, "size", format_size(system.size), text, "the partition or the image was cut")
