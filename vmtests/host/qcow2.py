"""Which other files a qcow2 image names, read from its header without opening them (QEMU's docs/interop/qcow2.rst)."""

import os
import struct
from dataclasses import dataclass
from pathlib import Path

_MAGIC = b"QFI\xfb"
_HEADER = struct.Struct(">4sIQII")  # magic, version, where the backing file's name is, its length, bits of a cluster
_LENGTH_AT, _VERSION_2_LENGTH = 100, 72
_DATA_FILE = 0x44415441
_FEATURES, _DATA_ELSEWHERE = slice(72, 80), 1 << 2  # those that a reader must know
_NAME_LIMIT = 1023
_CLUSTER_BITS = range(9, 22)  # block/qcow2.h


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The names in a qcow2 image; a name that it does not have is empty."""

    backing: str = ""
    data: str = ""
    """The file that holds its data, where QEMU looks for it: relative to the working directory, not to the image."""
    elsewhere: bool = False
    """Whether its data is in another file, named or not."""


def names_in(path: Path) -> Names:
    """Return the names in a qcow2 image, and none of a file that is no such image; raises OSError."""
    with path.open("rb") as file:
        head = file.read(_VERSION_2_LENGTH)
        if len(head) < _VERSION_2_LENGTH or not head.startswith(_MAGIC):
            return Names()
        _, version, at, length, bits = _HEADER.unpack_from(head)
        if bits not in _CLUSTER_BITS:
            return Names()
        head += file.read((1 << bits) - len(head))  # its extensions are in the first cluster
        backing = b""
        if 0 < at < os.fstat(file.fileno()).st_size and 0 < length <= _NAME_LIMIT:
            file.seek(at)
            backing = file.read(length)
    if version < 3:
        return Names(backing=_text(backing))
    place = int.from_bytes(head[_LENGTH_AT : _LENGTH_AT + 4], "big")
    data = b""
    while place + 8 <= len(head):
        kind, length = struct.unpack_from(">II", head, place)
        if kind == 0:
            break
        if kind == _DATA_FILE:
            data = head[place + 8 :][:length]
        place += 8 + (length + 7) // 8 * 8
    elsewhere = bool(int.from_bytes(head[_FEATURES], "big") & _DATA_ELSEWHERE)
    return Names(backing=_text(backing), data=_text(data), elsewhere=elsewhere)


def _text(name: bytes) -> str:
    """Return a name as QEMU, a C program, reads it."""
    return os.fsdecode(name.partition(b"\0")[0])
