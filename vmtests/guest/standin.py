"""A program that stands in for the shell on a guest's serial line, as small as a program can be.

A guest that goes on from a snapshot runs code that its emulator has not translated yet: a shell that reads a line,
and date(1), take longer than the command that somebody wants. These 258 bytes wait for a line as part of the
snapshot. They set the clock, hand a script to a shell that waits too, and leave the line to the shell that started
them. For Linux on x86-64 only.

What they read is no command to a shell, which may get a line that was sent twice:

    : KIND HALF HALF NIBBLES

KIND is `t` (a time), `s` (a script) or `q` (leave). The halves are those of a `wire.Nonce`; those of a time come back
joined in an answer as agent.sh's: status 0, or 1 where the clock was not set. The nibbles, `a` to `p`, are bytes: the
line's length in two, little-endian, then a timespec (timespec(3type)) and the seed, or the script. A line that has
another length than it says is passed over. The program stays until it is told to leave: its end, and a shell that sees
to it, take as long as many a command.
"""

import struct

from vmtests.guest.elf import executable
from vmtests.guest.wire import Nonce

SEED = 32
"""Bytes that are mixed into the kernel's randomness with each time."""

SCRIPT_LIMIT = 700
"""Bytes of a script that one line can hold."""

_HEAD = 32  # bytes before the nibbles

# Registers and system calls as in the x86-64 ABI's section A.2.1; the numbers are those of syscall_64.tbl. Descriptor
# 7 is /dev/urandom, 9 the pipe to the shell that waits.
_CODE = bytes.fromhex(
    "4881ec00200000"  # sub $0x2000, %rsp
    "4889e3"  # mov %rsp, %rbx            the line, and at 0x1000 the answer
    "31ed"  # xor %ebp, %ebp              the nonce of the last time
    "4531ed"  # xor %r13d, %r13d          what came of it
    # next:
    "31c0"  # xor %eax, %eax              read
    "31ff"  # xor %edi, %edi
    "4889de"  # mov %rbx, %rsi
    "ba00100000"  # mov $0x1000, %edx
    "0f05"  # syscall
    "83f825"  # cmp $37, %eax             a head, a length, a line end
    "7d09"  # jge line
    "85c0"  # test %eax, %eax
    "7fe9"  # jg next
    "e9ce000000"  # jmp quit              the line has ended
    # line:
    "4189c6"  # mov %eax, %r14d
    "8d48df"  # lea -33(%rax), %ecx
    "d1e9"  # shr %ecx
    "4189cf"  # mov %ecx, %r15d           bytes in the nibbles
    "488d7320"  # lea 32(%rbx), %rsi
    "4889f7"  # mov %rsi, %rdi
    # nibbles:
    "66ad"  # lodsw
    "2d61610000"  # sub $0x6161, %eax
    "c0e004"  # shl $4, %al
    "08e0"  # or %ah, %al
    "aa"  # stosb
    "e2f1"  # loop nibbles
    "6644397320"  # cmp %r14w, 32(%rbx)
    "75bc"  # jne next                    something was lost
    "807b0274"  # cmpb $'t', 2(%rbx)
    "7424"  # je time
    "807b0273"  # cmpb $'s', 2(%rbx)
    "0f8596000000"  # jne quit
    "6a0158"  # push $1; pop %rax         write
    "6a095f"  # push $9; pop %rdi
    "488d7322"  # lea 34(%rbx), %rsi
    "418d57fe"  # lea -2(%r15), %edx
    "0f05"  # syscall
    "6a0358"  # push $3; pop %rax         close: the script ends here
    "6a095f"  # push $9; pop %rdi
    "0f05"  # syscall
    "eb92"  # jmp next
    # time:
    "488b4313"  # mov 19(%rbx), %rax      the second half
    "4839e8"  # cmp %rbp, %rax
    "7422"  # je answer                   each time is set once, however often it comes
    "4889c5"  # mov %rax, %rbp
    "b8e3000000"  # mov $227, %eax        clock_settime
    "31ff"  # xor %edi, %edi              CLOCK_REALTIME
    "488d7322"  # lea 34(%rbx), %rsi
    "0f05"  # syscall
    "4189c5"  # mov %eax, %r13d
    "6a0158"  # push $1; pop %rax         write
    "6a075f"  # push $7; pop %rdi
    "488d7332"  # lea 50(%rbx), %rsi
    "6a205a"  # push $32; pop %rdx
    "0f05"  # syscall
    # answer:
    "488dbb00100000"  # lea 0x1000(%rbx), %rdi
    "6a025a"  # push $2; pop %rdx         twice, as agent.sh's
    # copy:
    "b00a"  # mov $'\n', %al
    "aa"  # stosb
    "488d7304"  # lea 4(%rbx), %rsi
    "6a0e59"  # push $14; pop %rcx
    "f3a4"  # rep movsb
    "48ffc6"  # inc %rsi
    "6a0c59"  # push $12; pop %rcx
    "f3a4"  # rep movsb
    "48b83a303a312e0a0000"  # mov ":0:1.\n", %rax
    "4585ed"  # test %r13d, %r13d
    "7402"  # je good
    "fec4"  # inc %ah                     a 1 in the place of the 0
    # good:
    "48ab"  # stosq
    "48ffcf"  # dec %rdi
    "48ffcf"  # dec %rdi
    "ffca"  # dec %edx
    "75cf"  # jne copy
    "6a0158"  # push $1; pop %rax         write
    "89c7"  # mov %eax, %edi
    "488db300100000"  # lea 0x1000(%rbx), %rsi
    "6a425a"  # push $66; pop %rdx
    "0f05"  # syscall
    "e916ffffff"  # jmp next
    # quit:
    "b83c000000"  # mov $60, %eax         exit
    "31ff"  # xor %edi, %edi
    "0f05"  # syscall
)


def program() -> bytes:
    """Return the executable."""
    return executable(_CODE)


def time_line(nonce: Nonce, seconds: float, seed: bytes) -> bytes:
    """Return the line that sets the clock, to seconds since 1970, and mixes in the `SEED` bytes of `seed`."""
    whole, part = divmod(seconds, 1)
    return _line("t", nonce, struct.pack("<qq", int(whole), int(part * 1e9)) + seed)


def script_line(text: bytes) -> bytes:
    """Return the line that hands the waiting shell its script, of at most `SCRIPT_LIMIT` bytes."""
    return _line("s", Nonce(), text + b"\n")


def leave_line() -> bytes:
    """Return the line that ends the program; the shell that waits gets an empty script."""
    return _line("q", Nonce(), b"")


def _line(kind: str, nonce: Nonce, data: bytes) -> bytes:
    head = f": {kind} {' '.join(nonce.halves)} ".encode()
    assert len(head) == _HEAD
    length = _HEAD + 2 * (2 + len(data)) + 1
    nibbles = [nibble for byte in struct.pack("<H", length) + data for nibble in divmod(byte, 16)]
    return head + bytes(ord("a") + nibble for nibble in nibbles) + b"\n"
