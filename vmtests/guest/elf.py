"""An executable for Linux on x86-64 with nothing in it but its code."""

import struct

_LOAD = 0x400000  # where ld(1) puts a program
_ELF_HEADER, _PROGRAM_HEADER = 64, 56  # bytes (elf(5))


def executable(code: bytes) -> bytes:
    """Return a static executable that begins with the first byte of `code`, which runs wherever it lies."""
    start = _ELF_HEADER + _PROGRAM_HEADER
    size = start + len(code)
    ident = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)  # 64 bits, little-endian
    executable_file, x86_64, version = 2, 62, 1
    tables = (_ELF_HEADER, 0, 0, _ELF_HEADER, _PROGRAM_HEADER, 1, 0, 0, 0)  # one segment and no sections
    header = struct.pack("<HHIQQQIHHHHHH", executable_file, x86_64, version, _LOAD + start, *tables)
    load, read_and_execute, page = 1, 5, 0x1000
    segment = struct.pack("<IIQQQQQQ", load, read_and_execute, 0, _LOAD, _LOAD, size, size, page)
    return ident + header + segment + code
