"""What a CD-ROM boots from: the boot catalog of the El Torito specification (1.0), also for UEFI (13.3.2)."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from vmtests.image.source import Source

SECTOR = 2048
"""Bytes of a sector of a CD-ROM."""

BIOS, EFI = 0x00, 0xEF
"""Platforms."""

_RECORD = 17  # the sector of the boot record volume descriptor
_NAME = b"EL TORITO SPECIFICATION"
_ENTRY = 32
_ENTRIES = 64  # of a catalog that are looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class BootImage:
    """A boot image on the disc: its platform, and where it begins, in bytes."""

    platform: int
    start: int


def boot_images(disc: Source) -> Iterator[BootImage]:
    """Yield the boot images that firmware may start; none where the disc has no sound catalog."""
    record = disc.read(_RECORD * SECTOR, SECTOR)
    if len(record) < SECTOR or record[1:6] != b"CD001" or not record[7:].startswith(_NAME):
        return
    (catalog,) = struct.unpack_from("<I", record, 0x47)
    data = disc.read(catalog * SECTOR, _ENTRY * _ENTRIES)
    entries = [data[at : at + _ENTRY] for at in range(0, len(data) - _ENTRY + 1, _ENTRY)]
    if not entries or entries[0][0] != 1 or entries[0][30:] != b"\x55\xaa":
        return
    platform = entries[0][1]
    for entry in entries[1:]:
        match entry[0]:
            case 0x88:
                (start,) = struct.unpack_from("<I", entry, 8)
                yield BootImage(platform=platform, start=start * SECTOR)
            case 0x90 | 0x91:  # the head of a section
                platform = entry[1]
            case 0x44:  # goes on with the entry before it
                continue
            case _:
                return
