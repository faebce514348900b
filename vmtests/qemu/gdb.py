"""A debugger on a machine: QEMU's gdb stub on a socket that only this user reaches, and names for addresses.

The stub listens on a socket that was made here and handed over (QMP `chardev-add`; QEMU docs/system/gdb.rst): QEMU
itself may create no file there, and a TCP port would be open to everybody on the host.
"""

import os
import shlex
import socket
import struct
from pathlib import Path
from typing import Any

from vmtests.errors import HostError, VmtestsError, at_named
from vmtests.image.kallsyms import TEXT, Symbols
from vmtests.machine.qemu import QemuMachine
from vmtests.qemu.examine import QemuDoctor

_PATH_LIMIT = 107  # bytes of a socket's path (unix(7))
_FUNCTION = 0x12  # STB_GLOBAL, STT_FUNC
_HEADER, _SECTION, _SYMBOL = "<16sHHIQQQIHHHHHH", "<IIQQQQIIQQ", "<IBBHQQ"
_NAMES = b"\0.text\0.symtab\0.strtab\0.shstrtab\0"


def open_stub(machine: QemuMachine, doctor: QemuDoctor, directory: Path, *, fixed: bool = False) -> str:
    """Open the stub of a running machine and return the line that starts gdb on it; the guest stops when gdb comes.

    The socket and the kernel's symbols, where the guest's kernel is known, are written to `directory`, which has to be
    this user's alone; where it is not, a comment of the shell at the line's end says why. Opening it twice is no
    error. A kernel that is `fixed` (nokaslr) is known before it runs. Raises HostError.
    """
    path = directory / "gdb.sock"
    if len(os.fsencode(path)) > _PATH_LIMIT:
        raise HostError(f"{path} is too long for a socket", hint="set XDG_RUNTIME_DIR or TMPDIR to a shorter one")
    if path.is_socket() and not _listens(machine):
        path.unlink()  # of a QEMU before this one
    if not path.is_socket():
        _listen(machine, path)
    words = ["gdb", "-ex", "set architecture i386:x86-64", "-ex", f"target remote {path}"]
    try:
        known, base = doctor.kernel(fixed=fixed)
    except VmtestsError as error:
        return f"{shlex.join(words)}  # without names: {error.message}"
    symbols = directory / "kernel.elf"
    try:
        symbols.write_bytes(elf(known, base))
    except OSError as error:
        raise at_named(f"{symbols} cannot be written", error, "name another directory with --vm-results") from error
    return shlex.join([*words, str(symbols)])


def _listen(machine: QemuMachine, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        try:
            listening.bind(os.fspath(path))
            listening.listen(1)
        except OSError as error:
            raise HostError(f"{path} cannot be made: {error.strerror}") from error
        try:
            machine.give("gdb", listening.fileno())
            address = {"type": "fd", "data": {"str": "gdb"}}
            backend = {"type": "socket", "data": {"addr": address, "server": True, "wait": False}}
            machine.execute("chardev-add", {"id": "gdb", "backend": backend})
            machine.execute("human-monitor-command", {"command-line": "gdbserver chardev:gdb"})
        except BaseException:
            path.unlink()
            raise


def _listens(machine: QemuMachine) -> bool:
    known: Any = machine.execute("query-chardev") or []
    return any(device.get("label") == "gdb" for device in known)


def elf(symbols: Symbols, base: int) -> bytes:
    """Return an ELF file (elf(5)) with nothing but the functions of a kernel whose text begins at `base`."""
    moved = base - TEXT
    ends = (*symbols.addresses[1:], symbols.addresses[-1] + 1)
    names, table = bytearray(b"\0"), bytearray(struct.pack(_SYMBOL, 0, 0, 0, 0, 0, 0))
    for name, start, end in zip(symbols.names, symbols.addresses, ends, strict=True):
        place = (start + moved) % 2**64
        table += struct.pack(_SYMBOL, len(names), _FUNCTION, 0, 1, place, end - start)
        names += name.encode() + b"\0"
    first, size = (symbols.addresses[0] + moved) % 2**64, ends[-1] - symbols.addresses[0]
    head = struct.calcsize(_HEADER)
    at = [head, head + len(table), head + len(table) + len(names)]
    sections = [
        (0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
        (1, 8, 6, first, head, size, 0, 0, 16, 0),  # SHT_NOBITS, allocated and executable
        (7, 2, 0, 0, at[0], len(table), 3, 1, 8, struct.calcsize(_SYMBOL)),
        (15, 3, 0, 0, at[1], len(names), 0, 0, 1, 0),
        (23, 3, 0, 0, at[2], len(_NAMES), 0, 0, 1, 0),
    ]
    after = at[2] + len(_NAMES)
    header = struct.pack(
        _HEADER, b"\x7fELF\2\1\1", 2, 62, 1, 0, 0, after, 0, head, 0, 0, struct.calcsize(_SECTION), len(sections), 4
    )
    return b"".join([header, table, names, _NAMES, *(struct.pack(_SECTION, *section) for section in sections)])
