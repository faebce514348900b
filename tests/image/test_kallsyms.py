"""Names for a kernel's addresses, out of a bzImage and out of System.map."""

import gzip
import lzma
import struct

import pytest

from vmtests.image import kallsyms
from vmtests.image.kallsyms import TEXT, Symbols

COUNT = 700
NAMES = [f"Tfunction_{number}" for number in range(COUNT)]


def _elf(*, positive: bool = False) -> bytes:
    """Return what a kernel's tables look like, laid out as scripts/kallsyms.c does; names are not compressed.

    A token stands for itself but for one, which stands for a whole word.
    """
    tokens = [bytes([byte]) if 0x20 <= byte < 0x7F else b"" for byte in range(256)]
    tokens[1] = b"function_"
    names, markers = b"", []
    for number, name in enumerate(NAMES):
        if number % 256 == 0:
            markers.append(len(names))
        packed = name.encode().replace(b"function_", b"\x01")
        names += bytes([len(packed)]) + packed
    table, places = b"", []
    for token in tokens:
        places.append(len(table))
        table += token + b"\0"

    def aligned(data: bytes) -> bytes:
        return data + bytes(-len(data) % 8)

    offsets = [16 * number if positive else -1 - 16 * number for number in range(COUNT)]
    return b"".join(
        aligned(part)
        for part in (
            b"\x7fELF" + b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\0" + bytes(range(256)),
            struct.pack("<I", COUNT),
            names,
            struct.pack(f"<{len(markers)}I", *markers),
            table,
            struct.pack("<256H", *places),
            struct.pack(f"<{COUNT}i", *offsets),
            struct.pack("<Q", TEXT),
        )
    )


def _bzimage(payload: bytes) -> bytes:
    head = bytearray(1024)
    head[0x1F1] = 1
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", head, 0x248, 0, len(payload) + 4)
    return bytes(head) + payload + b"size"


def test_names_are_read_out_of_a_kernel() -> None:
    """Every function's name comes with its address, and an address between two is one's plus an offset."""
    symbols = kallsyms.read(_elf())
    assert symbols is not None
    assert tuple(name[1:] for name in NAMES) == symbols.names
    assert "function_3+0x5" == symbols.name(TEXT + 0x35)


def test_address_of_a_kernel_that_was_moved_is_named() -> None:
    """KASLR moves the text; what begins elsewhere is named all the same."""
    symbols = Symbols(addresses=(TEXT, TEXT + 0x100), names=("_text", "start_kernel"))
    base = symbols.base("start_kernel", TEXT + 0x4200100)
    assert TEXT + 0x4200000 == base
    assert "start_kernel+0x8" == symbols.name(TEXT + 0x4200108, base)
    assert symbols.base("none_such", TEXT) is None


@pytest.mark.parametrize("address", [0x7F4ED2446015, TEXT - 1, TEXT + (1 << 30)])
def test_address_that_is_no_functions_stays_a_number(address: int) -> None:
    """An address of a program, or far from every function, is not named wrongly."""
    assert hex(address) == Symbols(addresses=(TEXT,), names=("_text",)).name(address)


def test_kernel_is_unpacked() -> None:
    """A bzImage's payload is unpacked by what it begins with; its last four bytes are no part of it."""
    assert _elf() == kallsyms.unpack(_bzimage(gzip.compress(_elf())))
    assert _elf() == kallsyms.unpack(_bzimage(lzma.compress(_elf())))


def test_kernel_that_unpacks_to_more_than_any_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a payload that grows without end no more is unpacked than a kernel may have."""
    monkeypatch.setattr(kallsyms, "_KERNEL_LIMIT", 1 << 16)
    assert None is kallsyms.unpack(_bzimage(gzip.compress(b"\x7fELF" + bytes(1 << 20))))


@pytest.mark.parametrize(
    "data",
    [b"", bytes(4096), _bzimage(b""), _bzimage(b"\x1f\x8bnonsense"), _bzimage(gzip.compress(b"no ELF"))],
    ids=["empty", "zeros", "no payload", "broken payload", "no kernel"],
)
def test_what_is_no_kernel_gives_none(data: bytes) -> None:
    """A file that is no bzImage, or whose payload is broken, has no symbols and raises nothing."""
    assert None is kallsyms.unpack(data)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_truncated_tables_give_none(part: float) -> None:
    """Tables that are cut short are refused."""
    whole = _elf()
    assert None is kallsyms.read(whole[: int(part * len(whole))])


def test_tables_of_another_layout_give_none() -> None:
    """Offsets that are no functions' are not taken for some."""
    assert None is kallsyms.read(_elf(positive=True))


def test_system_map_is_read_and_debians_stub_is_not() -> None:
    """A System.map has functions; the line that Debian puts in its place has none."""
    text = "".join(f"{TEXT + 16 * number:016x} T function_{number}\n" for number in range(COUNT))
    symbols = kallsyms.parse_map(text + "0000000000001000 A a_constant\n")
    assert symbols is not None
    assert COUNT == len(symbols.names)
    stub = "ffffffffffffffff B The real System.map is in the linux-image-<version>-dbg package\n"
    assert None is kallsyms.parse_map(stub)
    assert symbols == kallsyms.parse_map(f"no_address T a\n-1 T b\n{'f' * 17} t c\n{text}")
