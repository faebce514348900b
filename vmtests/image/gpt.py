"""The GUID partition table, read and checked by the UEFI specification 2.10, section 5.3."""

import struct
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from vmtests.causes import Cause
from vmtests.image.check import Check, Readable, Word, breach, note, passed

SIGNATURE = b"EFI PART"
REVISION = 0x00010000
SECTOR_SIZES = (512, 4096)
UNUSED = uuid.UUID(int=0)

HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")  # table 5.5
ENTRY = struct.Struct("<16s16sQQQ72s")  # table 5.6
_ENTRIES_LIMIT = 1 << 20  # bytes of the entry array that are read; 128 entries, what everybody writes, are 16 KiB
_PLACES = "sfdisk --verify DISK names what is wrong; systemd-repart makes the partitions anew"
_PROTECTIVE = 0xEE  # table 5.4: the type of a protective MBR's partition


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A GPT header; places are in sectors (LBA)."""

    my_lba: int
    alternate_lba: int
    first_usable: int
    last_usable: int
    disk_guid: uuid.UUID
    entries_lba: int
    entry_count: int
    entry_size: int
    entries_crc: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A used entry; `number` counts from 1 as in device names, places are in sectors, both inclusive."""

    number: int
    type_uuid: uuid.UUID
    unique_uuid: uuid.UUID
    first_lba: int
    last_lba: int
    attributes: int
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What a disk's partition table says: the entries of the good header, and all that was checked.

    `header` and `entries` are None and empty where neither header is good. `sector_size` is in bytes.
    """

    sector_size: int
    header: Header | None
    entries: tuple[Entry, ...]
    checks: tuple[Check, ...]

    def start(self, entry: Entry) -> int:
        """Return the first byte of a partition."""
        return entry.first_lba * self.sector_size

    def length(self, entry: Entry) -> int:
        """Return the size of a partition in bytes."""
        return (entry.last_lba - entry.first_lba + 1) * self.sector_size


@dataclass(frozen=True, slots=True, kw_only=True)
class _Copy:
    """One of the two copies of the table: a header with its entry array, or what is wrong with it."""

    name: str
    header: Header | None
    array: bytes
    faults: tuple[tuple[str, str, str], ...]  # (what, value, sentence without the subject)

    @property
    def good(self) -> bool:
        return not self.faults


def has_mbr(disk: Readable) -> bool:
    """Return whether the first sector ends as a master boot record does."""
    return disk.read(510, 2) == b"\x55\xaa"


def mbr_types(disk: Readable) -> tuple[int, ...]:
    """Return the types of the used partitions of a master boot record."""
    sector = disk.read(0, 512)
    if len(sector) < 512 or sector[510:] != b"\x55\xaa":
        return ()
    return tuple(kind for index in range(4) if (kind := sector[446 + 16 * index + 4]))


def is_protective(disk: Readable) -> bool:
    """Return whether the disk has a protective MBR, and so says that it has a GPT."""
    return _PROTECTIVE in mbr_types(disk)


def trusted_by_firmware(disk: Readable) -> bool:
    """Return whether EDK2 looks for a GPT: an entry of the MBR is of type EE and begins in sector 1.

    Source: MdeModulePkg/Universal/Disk/PartitionDxe/Gpt.c, PartitionInstallGptChildHandles(). That the entry is not
    active it asks too, by that file; but Debian's OVMF 2022.11 and 2025.02 were seen to boot from a disk whose is.
    """
    sector = disk.read(0, 512)
    return len(sector) == 512 and any(
        sector[at + 4] == _PROTECTIVE and sector[at + 8 : at + 12] == b"\1\0\0\0" for at in range(446, 510, 16)
    )


def unseen_by_firmware(table: Table) -> dict[int, str]:
    """Return the entries, by number, that EDK2 makes no device of, and why.

    Source: MdeModulePkg/Universal/Disk/PartitionDxe/Gpt.c, PartitionCheckGptEntry().
    """
    header, found = table.header, dict[int, str]()
    if header is None:
        return found
    for entry in table.entries:
        others = [other for other in table.entries if other is not entry and other.last_lba >= other.first_lba]
        twin = next((o for o in others if o.first_lba <= entry.last_lba and entry.first_lba <= o.last_lba), None)
        if not header.first_usable <= entry.first_lba <= entry.last_lba <= header.last_usable:
            found[entry.number] = "it is not on the sectors that partitions may use"
        elif twin is not None:
            found[entry.number] = f"it overlaps partition {twin.number}"
        elif entry.attributes & 2:
            found[entry.number] = "it has the attribute 1, no block IO protocol"
    return found


def _active(disk: Readable) -> bool:
    """Return whether the protective MBR's entry has the boot flag."""
    sector = disk.read(0, 512)
    return any(sector[at] and sector[at + 4] == _PROTECTIVE for at in range(446, 510, 16))


def sector_size(disk: Readable) -> int | None:
    """Return the sector size for which a GPT header is where it has to be; None without any header."""
    for size in SECTOR_SIZES:
        if disk.read(size, 8) == SIGNATURE:
            return size
    for size in SECTOR_SIZES:
        if disk.size >= 3 * size and disk.read((disk.size // size - 1) * size, 8) == SIGNATURE:
            return size
    return None


def read(disk: Readable, size: int) -> Table:
    """Read and check the table of a disk with sectors of `size` bytes; entries are of the good copy."""
    sectors = disk.size // size
    primary = _copy(disk, size, 1, "primary")
    # A disk that was made larger has its backup where the primary says, not at its end.
    told = primary.header.alternate_lba if primary.good and primary.header else sectors - 1
    backup = _copy(disk, size, told if 1 < told < sectors else sectors - 1, "backup")
    checks = [*_protective_check(disk), *_copy_checks(primary, backup), *_copy_checks(backup, primary)]
    best = primary if primary.good else backup if backup.good else None
    if best is None or best.header is None:
        return Table(sector_size=size, header=None, entries=(), checks=tuple(checks))
    if primary.good and backup.good and primary.array != backup.array:
        checks.append(
            breach(
                "GPT",
                "copies",
                "differ",
                "the entries of the backup GPT are not those of the primary GPT",
                "sfdisk --dump DISK | sfdisk --force DISK writes both from the primary",
            )
        )
    if best.header.alternate_lba != sectors - 1 and best is primary:
        checks.append(
            note(
                "backup GPT",
                "place",
                f"sector {best.header.alternate_lba}",
                f"the backup GPT is in sector {best.header.alternate_lba}, the disk ends with {sectors - 1}",
            )
        )
    entries = tuple(_entries(best))
    checks += _entry_checks(best.header, entries)
    return Table(sector_size=size, header=best.header, entries=entries, checks=tuple(checks))


def claimed_sectors(disk: Readable, size: int) -> int | None:
    """Return how many sectors the disk has by its good primary header; None without one."""
    header = _parse(disk.read(size, size))
    if header is None or _header_crc_fault(disk.read(size, size)) is not None:
        return None
    return max(header.alternate_lba, header.last_usable) + 1


def _protective_check(disk: Readable) -> Iterator[Check]:
    if trusted_by_firmware(disk):
        yield passed(Word.PROTECTIVE_MBR, "type", "EE")
        if _active(disk):
            yield note(
                Word.PROTECTIVE_MBR,
                "flag",
                "active",
                "the protective MBR has the boot flag: OVMF boots from it, other firmware may ignore the GPT",
            )
        return
    if is_protective(disk):
        yield breach(
            Word.PROTECTIVE_MBR,
            "start",
            "not in sector 1",
            "the protective MBR does not begin in sector 1: firmware (EDK2) ignores the GPT",
            "sfdisk --label gpt writes it anew",
            cause=Cause.GPT_DESTROYED,
        )
        return
    types = " ".join(f"{kind:02X}" for kind in mbr_types(disk)) or "none"
    yield breach(
        Word.PROTECTIVE_MBR,
        "type",
        types,
        f"there is no protective MBR: partition types in the first sector are {types}, not EE",
        "firmware may not look for a GPT without one",
        cause=Cause.GPT_DESTROYED,
    )


def _parse(sector: bytes) -> Header | None:
    if len(sector) < HEADER.size:
        return None
    (_, _, _, _, _, my, alternate, first, last, guid, lba, count, size, crc) = HEADER.unpack_from(sector)
    return Header(
        my_lba=my,
        alternate_lba=alternate,
        first_usable=first,
        last_usable=last,
        disk_guid=uuid.UUID(bytes_le=guid),
        entries_lba=lba,
        entry_count=count,
        entry_size=size,
        entries_crc=crc,
    )


def _header_crc_fault(sector: bytes) -> tuple[str, str, str] | None:
    size, crc = struct.unpack_from("<II", sector, 12)
    if not HEADER.size <= size <= len(sector):
        return "size", str(size), f"header size is {size}, not between {HEADER.size} and {len(sector)}"
    real = zlib.crc32(sector[:16] + bytes(4) + sector[20:size])
    if real != crc:
        return "checksum", f"{crc:08X}", f"checksum is {crc:08X}, but the header's content gives {real:08X}"
    return None


def _copy(disk: Readable, size: int, lba: int, name: str) -> _Copy:
    """Read the header at `lba` and its array; the first fault of the header hides the others."""
    sector = disk.read(lba * size, size)
    header = _parse(sector)
    if header is None:
        fault = ("signature", "none", "it lies beyond the end of the disk")
        return _Copy(name=name, header=None, array=b"", faults=(fault,))
    fault_found = _header_fault(sector, header, lba, disk.size // size)
    if fault_found is not None:
        return _Copy(name=name, header=None, array=b"", faults=(fault_found,))
    length = header.entry_count * header.entry_size
    array = disk.read(header.entries_lba * size, length)
    if len(array) < length:
        text = f"its {header.entry_count} entries, from sector {header.entries_lba} on, lie beyond the end of the disk"
        fault = ("entries", str(header.entries_lba), text)
        return _Copy(name=name, header=header, array=array, faults=(fault,))
    real = zlib.crc32(array)
    if real == header.entries_crc:
        return _Copy(name=name, header=header, array=array, faults=())
    fault = (
        "entries",
        f"{header.entries_crc:08X}",
        f"checksum of the entries is {header.entries_crc:08X}, but they give {real:08X}",
    )
    return _Copy(name=name, header=header, array=array, faults=(fault,))


def _header_fault(sector: bytes, header: Header, lba: int, sectors: int) -> tuple[str, str, str] | None:
    if sector[:8] != SIGNATURE:
        return "signature", sector[:8].hex(), f"signature is {sector[:8].hex()}, not 'EFI PART'"
    if (fault := _header_crc_fault(sector)) is not None:
        return fault
    (revision,) = struct.unpack_from("<I", sector, 8)
    if revision != REVISION:
        return "revision", f"{revision:08X}", f"revision is {revision:08X}, not {REVISION:08X}"
    if header.my_lba != lba:
        return "place", str(header.my_lba), f"it says it is in sector {header.my_lba}, but it is in {lba}"
    size = header.entry_size
    if size < 128 or size & (size - 1) or not 0 < header.entry_count * size <= _ENTRIES_LIMIT:
        value = f"{header.entry_count} x {size}"
        return "entries", value, f"{header.entry_count} entries of {size} bytes are no table"
    if not 0 < header.first_usable <= header.last_usable < sectors:
        value = f"{header.first_usable}-{header.last_usable}"
        return "usable", value, f"usable sectors {value} are not on the disk of {sectors} sectors"
    return None


def _copy_checks(copy: _Copy, other: _Copy) -> Iterator[Check]:
    subject = f"{copy.name} GPT"
    if copy.good:
        yield passed(subject, "header", "signature, checksums and places are right")
        return
    state = f"the {other.name} is {'good' if other.good else 'bad too'}"
    for what, value, sentence in copy.faults:
        yield breach(
            subject,
            what,
            value,
            f"{subject} header: {sentence}; {state}",
            "sgdisk -e, or gdisk's recovery menu, writes it again" if other.good else None,
            cause=Cause.GPT_DESTROYED,
        )


def _entries(copy: _Copy) -> Iterator[Entry]:
    header = copy.header
    assert header is not None
    for index in range(header.entry_count):
        kind, unique, first, last, attributes, name = ENTRY.unpack_from(copy.array, index * header.entry_size)
        if (type_uuid := uuid.UUID(bytes_le=kind)) == UNUSED:
            continue
        yield Entry(
            number=index + 1,
            type_uuid=type_uuid,
            unique_uuid=uuid.UUID(bytes_le=unique),
            first_lba=first,
            last_lba=last,
            attributes=attributes,
            label=name.decode("utf-16-le", errors="replace").split("\0", 1)[0],
        )


def _entry_checks(header: Header, entries: tuple[Entry, ...]) -> Iterator[Check]:
    seen: dict[uuid.UUID, Entry] = {}
    for entry in entries:
        subject = f"partition `{entry.label}` (entry {entry.number})"
        place = f"{entry.first_lba}-{entry.last_lba}"
        if entry.last_lba < entry.first_lba:
            yield breach(subject, "place", place, f"{subject} ends before it begins: sectors {place}", _PLACES)
        elif entry.first_lba < header.first_usable or entry.last_lba > header.last_usable:
            usable = f"{header.first_usable}-{header.last_usable}"
            yield breach(
                subject,
                "place",
                place,
                f"{subject} has sectors {place}; those that may be used are {usable}",
                _PLACES,
            )
        if (twin := seen.setdefault(entry.unique_uuid, entry)) is not entry:
            text = f"{subject} has the unique GUID {entry.unique_uuid} of entry {twin.number}"
            yield breach(subject, "GUID", entry.unique_uuid, text, "sfdisk --part-uuid DISK NUMBER UUID")
    yield from _overlaps(entries)


def _overlaps(entries: tuple[Entry, ...]) -> Iterator[Check]:
    furthest: Entry | None = None
    for entry in sorted(entries, key=lambda item: (item.first_lba, item.last_lba)):
        if furthest is not None and entry.first_lba <= furthest.last_lba:
            one, two = (f"`{item.label}` (entry {item.number})" for item in (furthest, entry))
            yield breach(
                f"partition {two}",
                "overlap",
                f"sector {entry.first_lba}",
                f"partitions {one} and {two} overlap from sector {entry.first_lba}",
                _PLACES,
            )
        if furthest is None or entry.last_lba > furthest.last_lba:
            furthest = entry
