"""Runs a command as a container's root or user runs it: `python3 confine.py COMMAND...`.

What Docker's default profile takes away: nobody makes or enters a namespace, mounts, or changes the root by
pivot_root (they are told EPERM), and root has a container's capabilities only (seccomp(2), capabilities(7)). It runs
inside the cell, so it imports nothing of ours.
"""

import ctypes
import os
import struct
import sys

_KEPT = {0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31}
"""Docker's default capabilities: chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service,
net_raw, sys_chroot, mknod, audit_write, setfcap."""

_DENIED = {
    "mount": 165,
    "umount2": 166,
    "pivot_root": 155,
    "setns": 308,
    "unshare": 272,
    "open_tree": 428,
    "fsopen": 430,
}
_CLONE, _CLONE3 = 56, 435
_NAMESPACES = 0x7E020000  # all CLONE_NEW* that clone(2) takes
_EPERM, _ENOSYS = 1, 38

# linux/filter.h, linux/seccomp.h
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_PR_CAPBSET_DROP, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 24, 22, 2


def _filter() -> bytes:
    def step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("HBBI", code, if_true, if_false, value)

    program = [step(_LOAD, 0)]  # struct seccomp_data, nr
    for number in _DENIED.values():
        program += [step(_EQUAL, number, 0, 1), step(_RETURN, _ERRNO | _EPERM)]
    # Its flags are behind a pointer; the C library tries clone(2) next.
    program += [step(_EQUAL, _CLONE3, 0, 1), step(_RETURN, _ERRNO | _ENOSYS)]
    program += [
        step(_EQUAL, _CLONE, 0, 3),
        step(_LOAD, 16),  # the first argument, its lower half
        step(_ANY_BIT, _NAMESPACES, 0, 1),
        step(_RETURN, _ERRNO | _EPERM),
    ]
    return b"".join([*program, step(_RETURN, _ALLOW)])


def main() -> None:
    """Give up what a container has not, and become the command."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in set(range(64)) - _KEPT:
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    code = _filter()
    held = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(held))
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.c_char_p(program), 0, 0) != 0:
        sys.exit(f"confine: {os.strerror(ctypes.get_errno())}")
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
