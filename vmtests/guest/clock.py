"""A program for the guest that sets its clock: as small as a program can be, since each one is made at once.

A guest that goes on from a snapshot runs code that its emulator has not translated yet. The 170 bytes here wait, as
part of the snapshot, for the time; to start date(1) instead means to translate its linker and its libraries first. For
Linux on x86-64 only.
"""

import struct

_LOAD = 0x400000  # where ld(1) puts a program
_ELF_HEADER, _PROGRAM_HEADER = 64, 56  # bytes (elf(5))

# Registers and system calls as in the x86-64 ABI's section A.2.1; the numbers are those of syscall_64.tbl.
_CODE = bytes.fromhex(
    "4883ec10"  # sub $16, %rsp
    "31ff"  # xor %edi, %edi          standard input
    "4889e6"  # mov %rsp, %rsi
    "ba10000000"  # mov $16, %edx
    "31c0"  # xor %eax, %eax          read
    "0f05"  # syscall
    "39d0"  # cmp %edx, %eax
    "b801000000"  # mov $1, %eax      what is no time
    "750e"  # jne exit
    "31ff"  # xor %edi, %edi          CLOCK_REALTIME
    "4889e6"  # mov %rsp, %rsi
    "b8e3000000"  # mov $227, %eax    clock_settime
    "0f05"  # syscall
    "f7d8"  # neg %eax
    "89c7"  # exit: mov %eax, %edi
    "b83c000000"  # mov $60, %eax     exit
    "0f05"  # syscall
)


def program() -> bytes:
    """Return an executable that reads a time as `message` has it, sets the clock, and ends with the call's errno."""
    start = _ELF_HEADER + _PROGRAM_HEADER
    size = start + len(_CODE)
    ident = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)  # 64 bits, little-endian
    executable, x86_64, version = 2, 62, 1
    tables = (_ELF_HEADER, 0, 0, _ELF_HEADER, _PROGRAM_HEADER, 1, 0, 0, 0)  # one segment and no sections
    header = struct.pack("<HHIQQQIHHHHHH", executable, x86_64, version, _LOAD + start, *tables)
    load, read_and_execute, page = 1, 5, 0x1000
    segment = struct.pack("<IIQQQQQQ", load, read_and_execute, 0, _LOAD, _LOAD, size, size, page)
    return ident + header + segment + _CODE


def message(seconds: float) -> bytes:
    """Return a time, in seconds since 1970, as the program reads it: a timespec (timespec(3type))."""
    whole, part = divmod(seconds, 1)
    return struct.pack("<qq", int(whole), int(part * 1e9))
