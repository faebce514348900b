"""Where a disk in one of QEMU's formats has to end by its own tables.

QEMU reads what is missing as zeros, and says nothing: of a table, too, for which it takes the memory, and the time,
that the size of the disk asks for. block/{qcow,vdi,vmdk,vpc,parallels}.c of QEMU. VHDX: Microsoft's MS-VHDX, 2.2.3
(regions), 2.5 (BAT), 2.6; VHD: its VHD 1.0.
"""

import os
import struct
import sys
import uuid
from array import array
from pathlib import Path
from typing import IO

from vmtests.host.formats import Format

_REGIONS, _ENTRIES, _MOST = 192 << 10, 16, 2047
_BAT, _METADATA, _PARAMETERS = (
    uuid.UUID(text).bytes_le
    for text in (
        "2dc27766-f623-4200-9d64-115e9bfd4a08",
        "8b7ca206-4790-4b9a-b8fe-575f050f886e",
        "caa16737-fa36-4d43-b3b6-33f0aa44e76b",
    )
)
_PIECE, _TABLE = 1 << 20, 64 << 20  # bytes of a block allocation table: read at a time, and looked at
# A sparse extent of a VMDK: sectors of the disk and of a grain, entries of a table, and where their directory is.
_SPARSE = struct.Struct("<12xQQ16xI8xQ")
_AT_END, _FOOTER = (1 << 64) - 1, 1024
_PRESENT = (6, 7)  # states of a block: all of it is there, or a part


def missing(path: Path, form: Format) -> tuple[int, int] | None:
    """Return the size of a file and the larger one that it has to have; None where nothing is missing, or known."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        reader = _READERS.get(form)
        try:
            wanted = 0 if reader is None else reader(file)
        except (OSError, OverflowError, ValueError):  # a place that is in no file
            return None
    return (size, wanted) if size < wanted else None


def _qcow(file: IO[bytes]) -> int:
    head = file.read(48)
    if len(head) < 48:
        return 48
    disk, cluster_bits, l2_bits, place = struct.unpack_from(">QBB6xQ", head, 24)
    if not 9 <= cluster_bits <= 16 or not 6 <= l2_bits <= 13:  # block/qcow.c, qcow_open()
        return 0
    length = -(-disk >> (cluster_bits + l2_bits)) * 8
    wanted = int(place + length)
    if wanted > os.fstat(file.fileno()).st_size:
        return wanted
    file.seek(place)
    tables = _numbers(file.read(min(_PIECE, length)))
    for table in sorted(filter(None, tables))[-_TABLE >> (l2_bits + 3) :]:
        file.seek(table)
        # The highest bit says that it is compressed: it has no end that is known.
        places = [number + (1 << cluster_bits) for number in _numbers(file.read(8 << l2_bits)) if 0 < number < 1 << 63]
        wanted = max(wanted, table + (8 << l2_bits), *places)
    return wanted


def _numbers(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f">{len(data) // 8}Q", data[: len(data) // 8 * 8])


def _vdi(file: IO[bytes]) -> int:
    head = file.read(512)
    if len(head) < 512:
        return 512
    table, start, disk, block, blocks, allocated = struct.unpack_from("<II20xQI4xII", head, 340)
    wanted = table + blocks * 4
    if not allocated or not block:
        return int(wanted)
    return int(max(wanted, start + (allocated - 1) * block + (disk % block or block)))


def _vhd(file: IO[bytes]) -> int:
    head = file.read(24)
    if not head.startswith(b"conectix"):  # of a fixed one, which has a footer only
        return 0
    place = int.from_bytes(head[16:], "big")
    file.seek(place)
    head = file.read(32)
    if not head.startswith(b"cxsparse"):
        return 512
    if len(head) < 32:
        return place + 1024
    table, entries = struct.unpack_from(">Q4xI", head, 16)
    return int(table + entries * 4)


def _parallels(file: IO[bytes]) -> int:
    head = file.read(64)
    return 64 + int.from_bytes(head[32:36], "little") * 4 if len(head) == 64 else 64


def _vmdk(file: IO[bytes]) -> int:
    """Return where the directory of grains ends: QEMU looks at each grain that the size promises, there or not."""
    head = _sparse(file)
    if head is not None and head[-1] == _AT_END:
        file.seek(os.fstat(file.fileno()).st_size // 512 * 512 - _FOOTER)
        head = _sparse(file)
    if head is None or not head[1] or not head[2]:
        return 0
    disk, grain, entries, directory = head
    return directory * 512 + -(-disk // (grain * entries)) * 4


def _sparse(file: IO[bytes]) -> tuple[int, ...] | None:
    """Return what a sparse extent's header says of disk, grains, entries of a table, and directory."""
    head = file.read(_SPARSE.size)
    return _SPARSE.unpack(head.ljust(_SPARSE.size, b"\0")) if head.startswith(b"KDMV") else None


def _vhdx(file: IO[bytes]) -> int:
    regions = _table(file, _REGIONS, b"regi", "<16sQI4x", 8)
    if _BAT not in regions or _METADATA not in regions:
        return 0
    place, _ = regions[_METADATA]
    items = _table(file, place, b"metadata", "<16sII8x", 10)
    if _PARAMETERS not in items:
        return 0
    file.seek(place + items[_PARAMETERS][0])
    block = int.from_bytes(file.read(4), "little")
    place, length = regions[_BAT]
    wanted, last = place + length, 0
    for at in range(0, min(length, _TABLE), _PIECE):
        file.seek(place + at)
        data = file.read(min(_PIECE, length - at))
        entries = array("Q", data[: len(data) // 8 * 8])
        if sys.byteorder == "big":
            entries.byteswap()
        last = max([last, *(entry >> 20 for entry in entries if entry & 7 in _PRESENT)])
    return max(wanted, (last << 20) + block) if last else wanted


def _table(file: IO[bytes], place: int, signature: bytes, form: str, count: int) -> dict[bytes, tuple[int, int]]:
    """Return the offsets and lengths of a table of the format, by GUID; `count` is where the number of entries is."""
    file.seek(place)
    head = file.read(_ENTRIES if signature == b"regi" else 2 * _ENTRIES)
    if not head.startswith(signature) or len(head) < _ENTRIES:
        return {}
    size = struct.calcsize(form)
    entries = file.read(size * min(int.from_bytes(head[count : count + 2], "little"), _MOST))
    whole = entries[: len(entries) // size * size]
    return {guid: (offset, length) for guid, offset, length in struct.iter_unpack(form, whole)}


_READERS = {
    Format.QCOW: _qcow,
    Format.VDI: _vdi,
    Format.VHD: _vhd,
    Format.VHDX: _vhdx,
    Format.VMDK: _vmdk,
    Format.PARALLELS: _parallels,
}
