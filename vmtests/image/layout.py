"""What is on a disk, partition by partition, by type, label and superblock; whoever made it.

Types: the Discoverable Partitions Specification (https://uapi-group.org/specifications/specs/discoverable_partitions_specification/).
"""

import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from vmtests.host.tools import Toolbox
from vmtests.image import fat, gpt
from vmtests.image.check import Check, Slice, breach, clean, passed
from vmtests.image.extfiles import ExtFiles
from vmtests.image.files import Files, FilesError
from vmtests.image.filesystem import FileSystem, probe
from vmtests.image.source import Source
from vmtests.sizes import format_size

ESP = "esp"
XBOOTLDR = "xbootldr"
TYPES = {
    uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"): ESP,
    uuid.UUID("bc13c2ff-59e6-4262-a352-b275fd6f7172"): XBOOTLDR,
    uuid.UUID("21686148-6449-6e6f-744e-656564454649"): "bios-grub",
    uuid.UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709"): "root-x86-64",
    uuid.UUID("2c7357ed-ebd2-46d9-aec1-23d437ec2bf5"): "root-x86-64-verity",
    uuid.UUID("41092b05-9fc8-4523-994f-2def0408b176"): "root-x86-64-verity-sig",
    uuid.UUID("8484680c-9521-48c6-9c11-b0720656f69e"): "usr-x86-64",
    uuid.UUID("77ff5f63-e7b6-4633-acf4-1565b864c0e6"): "usr-x86-64-verity",
    uuid.UUID("e7bb33fb-06cf-4e81-8273-e543b413e2e2"): "usr-x86-64-verity-sig",
    uuid.UUID("b921b045-1df0-41c3-af44-4c6f280d3fae"): "root-arm64",
    uuid.UUID("44479540-f297-41b2-9af7-d131d5f0458a"): "root-x86",
    uuid.UUID("933ac7e1-2eb4-4f13-b844-0e14e2aef915"): "home",
    uuid.UUID("3b8f8425-20e0-4f3b-907f-1a25a76f98e8"): "srv",
    uuid.UUID("4d21b016-b534-45c2-a9fb-5c16e091fd2d"): "var",
    uuid.UUID("7ec6f557-3bc5-4aca-b293-16ef5df639d1"): "tmp",
    uuid.UUID("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f"): "swap",
    uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4"): "linux-generic",
    uuid.UUID("e6d6d379-f507-44c2-a23c-238f2a3df928"): "linux-lvm",
    uuid.UUID("a19d880f-05fc-4d3b-a006-743f0f84911e"): "linux-raid",
    uuid.UUID("ca7d7ccb-63ed-4c53-861c-1742536059cc"): "luks",
    uuid.UUID("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"): "microsoft-basic-data",
}
"""Names of partition types, as systemd-repart spells them."""

_EXTENDED = frozenset({0x05, 0x0F, 0x85})
_LOGICAL = 32  # of an extended partition that are looked at
_MBR_TYPES = {0xEF: ESP, 0x83: "linux-generic", 0x82: "swap", 0x8E: "linux-lvm", 0xFD: "linux-raid", 0xEA: XBOOTLDR}


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
        return found
    signature = disk.read(440, 4)[::-1].hex()
    for number, kind_, start, count in mbr(disk):
        name = _MBR_TYPES.get(kind_, f"{kind_:02x}")
        found.append(_volume(disk, number, "", name, f"{signature}-{number:02x}", start * 512, count * 512))
    return found or [_volume(disk, 0, "", "whole", "", 0, disk.size)]


def _volume(disk: Source, number: int, label: str, kind: str, unique: str, start: int, size: int) -> Volume:
    content = Slice(disk, start, size)
    return Volume(number=number, label=label, type=kind, unique=unique, content=content, system=probe(content))


def mbr(disk: Source) -> Iterator[tuple[int, int, int, int]]:
    """Yield number, type, first sector and count of the partitions of a master boot record, logical ones included."""
    sector = disk.read(0, 512)
    if len(sector) < 512 or sector[510:] != b"\x55\xaa":
        return
    for index in range(4):
        kind, start, count = struct.unpack_from("<4xB3xII", sector, 446 + 16 * index)
        if kind in _EXTENDED:
            yield from _logical(disk, start)
        elif kind not in (0, 0xEE) and count and start * 512 < disk.size:
            yield index + 1, kind, start, count


def _logical(disk: Source, base: int) -> Iterator[tuple[int, int, int, int]]:
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


def files(volume: Volume, disk: Source, toolbox: Toolbox) -> Files | None:
    """Return the files of a volume; None where its file system is not read here."""
    kind = "" if volume.system is None else volume.system.type
    if kind == "vfat":
        return fat.Files(*disk.range(volume.content.offset, volume.content.size), toolbox)
    if kind.startswith("ext"):
        try:
            return ExtFiles(volume.content)
        except FilesError:
            return None
    return None


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
