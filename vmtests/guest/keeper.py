"""A program that waits for the end of a guest's shell and says what came of it, as small as a program can be.

For whoever goes on from a snapshot: a subshell of bash that does the same runs ten times as much code that an emulator
has to translate first. For Linux on x86-64 only.

    keeper TAG SHELL SCRIPT

It starts SHELL with SCRIPT, its own standard streams and environment, and no other descriptor. At the end it writes
the exit code, as $? is in bash(1), with a line end to descriptor 8, and says on descriptor 3 what agent.sh's subshell
would say: short and plain outputs as they are, and of others the tag alone. It reads the outputs from descriptors 5
and 6. A shell that cannot be started ends with 127.
"""

from vmtests.guest.elf import executable

# Registers and system calls as in the x86-64 ABI's section A.2.1; the numbers are those of syscall_64.tbl.
_CODE = bytes.fromhex(
    "4c8b642410"  # mov 16(%rsp), %r12     the first argument
    "4c8d6c2418"  # lea 24(%rsp), %r13     those behind it
    "4881ec00400000"  # sub $0x4000, %rsp
    "4889e3"  # mov %rsp, %rbx             the answer, and at 0x3000 an output
    "6a3958"  # push $57; pop %rax         fork
    "0f05"  # syscall
    "85c0"  # test %eax, %eax
    "0f8404010000"  # jz child
    "6a3d58"  # push $61; pop %rax         wait4
    "6aff5f"  # push $-1; pop %rdi
    "4889de"  # mov %rbx, %rsi
    "31d2"  # xor %edx, %edx
    "4531d2"  # xor %r10d, %r10d
    "0f05"  # syscall
    "85c0"  # test %eax, %eax
    "0f88e5000000"  # js quit              there was no fork
    "8b0b"  # mov (%rbx), %ecx
    "0fb6c5"  # movzbl %ch, %eax           exit(2)'s
    "83e17f"  # and $0x7f, %ecx
    "7406"  # jz ended
    "8d8180000000"  # lea 128(%rcx), %eax  killed by that signal
    # ended:
    "4889df"  # mov %rbx, %rdi
    "b10a"  # mov $'\n', %cl
    "880f"  # mov %cl, (%rdi)
    "48ffc7"  # inc %rdi
    "4c89e6"  # mov %r12, %rsi
    # tag:
    "a4"  # movsb
    "803e00"  # cmpb $0, (%rsi)
    "75fa"  # jne tag
    "c6073a"  # movb $':', (%rdi)
    "48ffc7"  # inc %rdi
    "4989fc"  # mov %rdi, %r12             where the payload begins
    "e8e4000000"  # call number
    "c6070a"  # movb $'\n', (%rdi)
    "4989fd"  # mov %rdi, %r13             and where it goes on
    "6a0158"  # push $1; pop %rax          write
    "6a085f"  # push $8; pop %rdi
    "4c89e6"  # mov %r12, %rsi
    "418d5501"  # lea 1(%r13), %edx
    "29f2"  # sub %esi, %edx
    "0f05"  # syscall
    "6a055d"  # push $5; pop %rbp
    # stream:
    "41c74500205c2000"  # movl $" \\ ", (%r13)
    "4983c503"  # add $3, %r13
    "31c0"  # xor %eax, %eax               read
    "89ef"  # mov %ebp, %edi
    "488db300300000"  # lea 0x3000(%rbx), %rsi
    "bad0070000"  # mov $2000, %edx
    "0f05"  # syscall
    "39d0"  # cmp %edx, %eax
    "731c"  # jae long                     an error too
    "89c1"  # mov %eax, %ecx
    "4c89ef"  # mov %r13, %rdi
    "e336"  # jrcxz done
    # byte:
    "ac"  # lodsb
    "3c5c"  # cmp $'\\', %al
    "7428"  # je escape
    "3c0a"  # cmp $'\n', %al
    "741e"  # je newline
    "3c3a"  # cmp $':', %al
    "741e"  # je colon
    "3c20"  # cmp $' ', %al
    "7204"  # jb long
    "3c7e"  # cmp $'~', %al
    "761e"  # jbe put
    # long:
    "498d7c24ff"  # lea -1(%r12), %rdi
    "c6070a"  # movb $'\n', (%rdi)         the tag alone
    "48ffc7"  # inc %rdi
    "bd01000000"  # mov $1, %ebp
    "eb37"  # jmp say
    # newline:
    "b06e"  # mov $'n', %al
    "eb02"  # jmp escape
    # colon:
    "b063"  # mov $'c', %al
    # escape:
    "c6075c"  # movb $'\\', (%rdi)
    "48ffc7"  # inc %rdi
    # put:
    "aa"  # stosb
    "e2ca"  # loop byte
    # done:
    "4989fd"  # mov %rdi, %r13
    "ffc5"  # inc %ebp
    "83fd07"  # cmp $7, %ebp
    "7597"  # jne stream
    "89f8"  # mov %edi, %eax
    "4429e0"  # sub %r12d, %eax
    "c6073a"  # movb $':', (%rdi)
    "48ffc7"  # inc %rdi
    "e851000000"  # call number
    "66c7072e0a"  # movw $".\n", (%rdi)
    "48ffc7"  # inc %rdi
    "48ffc7"  # inc %rdi
    "6a025d"  # push $2; pop %rbp          twice, as agent.sh's
    # say:
    "89fa"  # mov %edi, %edx
    "29da"  # sub %ebx, %edx
    # again:
    "6a0158"  # push $1; pop %rax          write
    "6a035f"  # push $3; pop %rdi
    "4889de"  # mov %rbx, %rsi
    "0f05"  # syscall
    "ffcd"  # dec %ebp
    "75f1"  # jnz again
    # quit:
    "6a3c58"  # push $60; pop %rax         exit
    "31ff"  # xor %edi, %edi
    "0f05"  # syscall
    # child:
    "6a095b"  # push $9; pop %rbx
    # close:
    "6a0358"  # push $3; pop %rax          close
    "89df"  # mov %ebx, %edi
    "0f05"  # syscall
    "ffcb"  # dec %ebx
    "83fb02"  # cmp $2, %ebx
    "75f2"  # jne close
    "6a3b58"  # push $59; pop %rax         execve
    "498b7d00"  # mov (%r13), %rdi
    "4c89ee"  # mov %r13, %rsi
    "498d5518"  # lea 24(%r13), %rdx       the environment
    "0f05"  # syscall
    "6a3c58"  # push $60; pop %rax         exit
    "6a7f5f"  # push $127; pop %rdi        as a shell's for what it cannot start
    "0f05"  # syscall
    # number:                              %eax, in decimal digits
    "6a0a59"  # push $10; pop %rcx
    # digits:
    "31d2"  # xor %edx, %edx
    "f7f1"  # div %ecx
    "52"  # push %rdx
    "85c0"  # test %eax, %eax
    "7405"  # jz digit
    "e8f2ffffff"  # call digits
    # digit:
    "58"  # pop %rax
    "0430"  # add $'0', %al
    "aa"  # stosb
    "c3"  # ret
)


def program() -> bytes:
    """Return the executable."""
    return executable(_CODE)
