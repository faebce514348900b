"""The symbols of a kernel, read from its own bzImage.

Distributions keep System.map elsewhere, but every kernel carries the names that it prints in its traces.

bzImage: Documentation/arch/x86/boot.rst. Tables: scripts/kallsyms.c and kernel/kallsyms.c of Linux 6.4 and later,
where they follow each other as num_syms, names, markers, token_table, token_index, offsets, relative_base.
"""

import bisect
import re
import struct
from dataclasses import dataclass

from vmtests.host.tools import Toolbox
from vmtests.image.stream import whole

TEXT = 0xFFFFFFFF81000000
"""Where the kernel's text is linked to begin (arch/x86, __START_KERNEL with the default CONFIG_PHYSICAL_START)."""

_MAPPED = re.compile(r"^([0-9a-fA-F]{1,16})[ \t]+[tTwW][ \t]+(\S+)[ \t]*$", re.MULTILINE)  # nm(1): code of a function
_MARKED = 256  # names between two markers
_DIGITS = b"".join(b"%d\0" % digit for digit in range(10))
_MARKERS_LIMIT = 1 << 16
_NAMES_LIMIT = 1 << 17  # bytes; the names behind the last marker are fewer than 256
_CANDIDATES = 2000  # places that may be the table of tokens; a kernel has a handful
_KERNEL_LIMIT = 256 << 20
_FAR = 1 << 20  # bytes; no function is longer


@dataclass(frozen=True, slots=True, kw_only=True)
class Symbols:
    """Addresses as they are linked, sorted, and the name at each."""

    addresses: tuple[int, ...]
    names: tuple[str, ...]

    def name(self, address: int, base: int = TEXT) -> str:
        """Return `symbol+offset` for an address of a kernel whose text begins at `base`, else the address itself."""
        linked = address - base + TEXT
        place = bisect.bisect_right(self.addresses, linked) - 1
        if place < 0 or linked - self.addresses[place] > _FAR:
            return hex(address)
        return f"{self.names[place]}+{linked - self.addresses[place]:#x}"

    def base(self, name: str, address: int) -> int | None:
        """Return where the text begins in a kernel that has `name` at `address`; None when there is no such symbol."""
        if name not in self.names:
            return None
        return address - self.addresses[self.names.index(name)] + TEXT


def parse_map(text: str) -> Symbols | None:
    """Read a System.map (nm(1)); None for a stub, as Debian ships one."""
    return _sorted([(int(match[1], 16), match[2]) for match in _MAPPED.finditer(text)])


def unpack(kernel: bytes, toolbox: Toolbox | None = None, limit: int | None = None) -> bytes | None:
    """Return the ELF file in a bzImage; None where there is none, or above `limit` bytes. Only zstd needs tools."""
    if kernel[0x202:0x206] != b"HdrS" or len(kernel) < 0x250:
        return None
    setup = kernel[0x1F1] or 4
    offset, length = struct.unpack_from("<II", kernel, 0x248)
    # Its last four bytes are the size once unpacked.
    payload = kernel[(setup + 1) * 512 + offset :][: max(length - 4, 0)]
    image = whole(payload, limit or _KERNEL_LIMIT, toolbox)
    return image if image is not None and image.startswith(b"\x7fELF") else None


def read(image: bytes) -> Symbols | None:
    """Return the functions of a kernel; None where its tables are not found, or are laid out differently."""
    start = -1
    for _ in range(_CANDIDATES):
        if (start := image.find(_DIGITS, start + 1)) < 0:
            break
        table = start
        for _ in range(ord("0")):
            table = image.rfind(b"\0", 0, max(table - 1, 0)) + 1
        tokens, places, place = [], [], table
        for _ in range(256):
            end = image.find(b"\0", place, place + 256)
            if end < 0:
                break  # no token is as long
            tokens.append(image[place:end])
            places.append(place - table)
            place = end + 1
        if len(tokens) < 256:
            continue
        index = image.find(struct.pack("<256H", *(at & 0xFFFF for at in places)), place, place + 520)
        if index >= 0:
            return _read(image, table, tokens, index + 512)
    return None


def _read(image: bytes, table: int, tokens: list[bytes], offsets: int) -> Symbols | None:
    """Read the tables around the token table, which begins at `table`; the offsets begin after `offsets`."""
    # Markers fall to zero, which is the first; a zero behind the last one is alignment.
    values = [value for (value,) in struct.iter_unpack("<I", image[max(table - _MARKERS_LIMIT, 0) & ~3 : table & ~3])]
    while values and values[-1] == 0:
        values.pop()
        table -= 4
    if 0 not in values:
        return None
    markers = values[::-1].index(0) + 1
    place, last = (table & ~3) - 4 * markers, values[-1]
    # The count stands before the names, which fill what is between it and the markers.
    first = (place - last - 8) & ~7
    for at in range(first, max(first - _NAMES_LIMIT, 0), -8):
        (count,) = struct.unpack_from("<I", image, at)
        if -(-count // _MARKED) == markers and (names := _names(image, at + 8, place, count, tokens)):
            return _located(image, (offsets + 7) & ~7, names)
    return None


def _names(image: bytes, start: int, end: int, count: int, tokens: list[bytes]) -> list[bytes] | None:
    """Expand `count` names, which must fill the bytes from `start` to `end` but for alignment."""
    names, place = [], start
    for _ in range(count):
        length = image[place]
        place += 1
        if length & 0x80:
            length = length & 0x7F | image[place] << 7
            place += 1
        names.append(b"".join(map(tokens.__getitem__, image[place : place + length])))
        place += length
        if place > end:
            return None
    return names if end - place < 8 else None


def _located(image: bytes, offsets: int, names: list[bytes]) -> Symbols | None:
    count = len(names)
    after = (offsets + 4 * count + 7) & ~7
    if after + 8 > len(image):
        return None
    (base,) = struct.unpack_from("<Q", image, after)
    found = []
    for name, offset in zip(names, struct.unpack_from(f"<{count}i", image, offsets), strict=True):
        # Positive ones are addresses of per-CPU variables (CONFIG_KALLSYMS_ABSOLUTE_PERCPU).
        if offset < 0 and name[:1] in b"tTwW":
            found.append((base - 1 - offset, name[1:].decode("ascii", "replace")))
    return _sorted(found)


def _sorted(found: list[tuple[int, str]]) -> Symbols | None:
    if len(found) < _MARKED:
        return None
    found.sort()
    return Symbols(addresses=tuple(at for at, _ in found), names=tuple(name for _, name in found))
