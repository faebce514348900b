"""A program for the guest, as bytes: writes `!` over the first byte of a file through a shared mapping.

The guest has no compiler and, as an image under test, maybe no interpreter either; a static ELF file of 200 bytes
runs on every x86-64 Linux.
"""

import struct

_CODE = bytes.fromhex(
    "488b7c2410"  # mov  rdi, [rsp+16]     argv[1]
    "b802000000"  # mov  eax, 2            open(argv[1], O_RDWR)
    "be02000000"  # mov  esi, 2
    "0f05"  # syscall
    "4989c0"  # mov  r8, rax               the descriptor
    "b809000000"  # mov  eax, 9            mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_SHARED, descriptor, 0)
    "31ff"  # xor  edi, edi
    "be00100000"  # mov  esi, 4096
    "ba03000000"  # mov  edx, 3
    "41ba01000000"  # mov  r10d, 1
    "4531c9"  # xor  r9d, r9d
    "0f05"  # syscall
    "c60021"  # mov  byte [rax], '!'       a failed call above ends here with SIGSEGV
    "4889c7"  # mov  rdi, rax              msync(address, 4096, MS_SYNC)
    "b81a000000"  # mov  eax, 26
    "ba04000000"  # mov  edx, 4
    "0f05"  # syscall
    "89c7"  # mov  edi, eax                exit(-result)
    "f7df"  # neg  edi
    "b83c000000"  # mov  eax, 60
    "0f05"  # syscall
)
_BASE, _HEADERS = 0x400000, 64 + 56

# elf(5): the file header and one program header, a loadable segment that is the whole file.
MMAP_WRITER = (
    struct.pack(
        "<4s5B7xHHIQQQIHHHHHH",
        b"\x7fELF",
        2,
        1,
        1,
        0,
        0,
        2,
        62,
        1,
        _BASE + _HEADERS,
        64,
        0,
        0,
        64,
        56,
        1,
        0,
        0,
        0,
    )
    + struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, _HEADERS + len(_CODE), _HEADERS + len(_CODE), 0x1000)
    + _CODE
)
