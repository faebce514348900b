"""Writes a GUID partition table into a disk file (UEFI specification 2.10, section 5.3), with sectors of any size."""

import os
import struct
import uuid
import zlib
from collections.abc import Sequence
from pathlib import Path

from vmtests.image import gpt
from vmtests.image.gpt import Entry
from vmtests.sizes import MIB

_COUNT, _SIZE, _HEADER = 128, 128, 92  # entries that have room, bytes of one, bytes of a header


def usable_end(size: int, sector_size: int) -> int:
    """Return where partitions end at the latest on a disk of `size` bytes: before the second copy of the table."""
    return (size // sector_size - 1) * sector_size - _COUNT * _SIZE


def write(disk: Path, sector_size: int, identifier: uuid.UUID, entries: Sequence[Entry]) -> None:
    """Write both copies of a table over whatever the disk has; `entries` are numbered as they come."""
    array = b"".join(map(_entry, entries)).ljust(_COUNT * _SIZE, b"\0")
    sectors, length = disk.stat().st_size // sector_size, len(array) // sector_size
    # As fdisk does, it leaves the first MiB free.
    usable = (MIB // sector_size, usable_end(sectors * sector_size, sector_size) // sector_size - 1)
    with disk.open("r+b") as file:
        descriptor = file.fileno()
        protective = struct.pack("<B3sB3sII", 0, b"\0\x02\0", 0xEE, b"\xff" * 3, 1, min(sectors - 1, 0xFFFFFFFF))
        os.pwrite(descriptor, protective.ljust(64, b"\0") + b"\x55\xaa", 446)
        for place, other, at in ((1, sectors - 1, 2), (sectors - 1, 1, sectors - 1 - length)):
            fields = (place, other, *usable, identifier.bytes_le, at, _COUNT, _SIZE, zlib.crc32(array))
            header = gpt.HEADER.pack(gpt.SIGNATURE, gpt.REVISION, _HEADER, 0, 0, *fields)
            header = gpt.HEADER.pack(gpt.SIGNATURE, gpt.REVISION, _HEADER, zlib.crc32(header), 0, *fields)
            os.pwrite(descriptor, header.ljust(sector_size, b"\0"), place * sector_size)
            os.pwrite(descriptor, array, at * sector_size)


def _entry(entry: Entry) -> bytes:
    label = entry.label.encode("utf-16-le").ljust(72, b"\0")
    places = (entry.first_lba, entry.last_lba, entry.attributes)
    return gpt.ENTRY.pack(entry.type_uuid.bytes_le, entry.unique_uuid.bytes_le, *places, label)
