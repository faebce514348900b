"""A guest that tells whether an accelerator works: it has the machine that is used, and a firmware of some bytes.

`/dev/kvm` that opens proves little: on some nested hosts a virtual machine and its CPU are created, and the firmware
dies in the first instructions, with QEMU still up. So a guest is run on q35 from flash, as firmware is, and only its
own answer counts. It does what firmware does first: it leaves real mode, writes to memory, and talks to devices.
"""

import os
import selectors
import struct
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vmtests.host.sandbox import tool_env
from vmtests.host.tools import Toolbox
from vmtests.text import printable

PROBE_SECONDS = 30.0
"""How long the guest may take; where KVM works it answers in a tenth of a second, where it is slow in some."""

_ANSWER = 0x2A
_EXPECTED_STATUS = _ANSWER << 1 | 1  # QEMU's hw/misc/debugexit.c: the exit status is (value << 1) | 1
_FAILED_VCPU = b"KVM internal error"  # QEMU's accel/kvm/kvm-all.c, kvm_handle_internal_error
_STDERR_LIMIT = 16 << 10  # bytes; registers and code bytes of a dying vCPU are about 2 KiB
_ROUNDS = 100
"""Times that the guest leaves its CPU for QEMU: what virtualisation costs, and nested virtualisation above all."""

_FLASH_SIZE = 64 << 10
_BASE = (1 << 32) - _FLASH_SIZE  # flash ends where the address space of 32 bits does
_CODE, _FLAT, _TABLE, _DESCRIPTORS, _RESET = 0xFF00, 0xFF40, 0xFF80, 0xFF90, 0xFFF0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came out of running a guest, and the seconds that it took from the start of QEMU."""

    works: bool
    reason: str
    hint: str | None = None
    seconds: float = 0.0


def flash() -> bytes:
    """Return a firmware that a CPU begins with at its reset (Intel's manual, volume 3, "First instruction")."""
    image = bytearray(_FLASH_SIZE)

    def put(place: int, *code: bytes) -> None:
        whole = b"".join(code)
        image[place : place + len(whole)] = whole

    put(_RESET, b"\xe9", struct.pack("<h", _CODE - (_RESET + 3)))  # jmp _CODE
    put(
        _CODE,
        b"\xfa",  # cli: no interrupt may wake the halt below
        b"\xdb\xe3",  # fninit: an FPU instruction, which a half-working hypervisor has to emulate
        b"\x2e\x66\x0f\x01\x16" + struct.pack("<H", _TABLE),  # lgdt cs:[_TABLE]
        b"\x0f\x20\xc0\x0c\x01\x0f\x22\xc0",  # mov eax, cr0; or al, 1; mov cr0, eax
        b"\x66\xea" + struct.pack("<IH", _BASE + _FLAT, 0x08),  # jmp 0x08:_FLAT, with 32 bits
    )
    loop = (
        b"\xe6\x80"  # out 0x80, al: QEMU's own device
        b"\x89\x0d\x00\x7c\x00\x00"  # mov [0x7c00], ecx
        b"\x49"  # dec ecx
    )
    put(
        _FLAT,
        b"\x66\xb8\x10\x00\x8e\xd8",  # mov ax, 0x10; mov ds, ax
        b"\xb9" + struct.pack("<I", _ROUNDS),  # mov ecx, _ROUNDS
        loop + b"\x75" + struct.pack("<b", -len(loop) - 2),  # jnz loop
        b"\xb0" + bytes([_ANSWER]),  # mov al, _ANSWER
        b"\xe6\xf4",  # out 0xf4, al: isa-debug-exit, QEMU ends with (_ANSWER << 1) | 1
        b"\xf4\xeb\xfd",  # hlt, and again
    )
    put(_TABLE, struct.pack("<HI", 3 * 8 - 1, _BASE + _DESCRIPTORS))
    put(
        _DESCRIPTORS,
        bytes(8),
        b"\xff\xff\x00\x00\x00\x9a\xcf\x00",  # code, all of the address space
        b"\xff\xff\x00\x00\x00\x92\xcf\x00",  # data
    )
    return bytes(image)


def run_guest(toolbox: Toolbox, accelerator: str, cpu: str, cpus: int = 1, seconds: float = PROBE_SECONDS) -> Outcome:
    """Run the guest on a machine of `cpus` processors and return what came out; takes `seconds` at most."""
    with tempfile.TemporaryDirectory(prefix="vmtests-") as directory:
        image = Path(directory, "flash.img")
        image.write_bytes(flash())
        argv = toolbox.argv(
            "qemu-system-x86_64",
            *("-machine", "q35", "-accel", accelerator, "-cpu", cpu, "-smp", str(cpus), "-m", "64"),
            *("-nodefaults", "-no-user-config", "-display", "none"),
            *("-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={str(image).replace(',', ',,')}"),
            *("-device", "isa-debug-exit,iobase=0xf4,iosize=1"),
        )
        return watch(argv, seconds)


def watch(argv: Sequence[str], seconds: float) -> Outcome:
    """Run a probe's command line to its end, to QEMU's word that the vCPU died, or for `seconds`."""
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=tool_env(),
            start_new_session=True,
        )
    except OSError as error:
        return Outcome(works=False, reason=f"{argv[0]} cannot be run: {error.strerror}")
    with process:
        assert process.stderr is not None
        started = time.monotonic()
        try:
            said, ended = _read(process.stderr.fileno(), started + seconds)
            if ended:
                process.wait(max(0.1, started + seconds - time.monotonic()))
        except subprocess.TimeoutExpired:
            ended = False
        finally:
            process.kill()
    status = process.returncode
    took = time.monotonic() - started
    if ended and status == _EXPECTED_STATUS:
        return Outcome(works=True, reason=f"a guest ran in {took:.2f} s", seconds=took)
    if _FAILED_VCPU in said:
        return Outcome(works=False, reason=f"the vCPU died at once ({_line_with(said, _FAILED_VCPU)})")
    if not ended:
        return Outcome(works=False, reason=f"a guest of some bytes gave no answer in {seconds:g} s")
    return Outcome(works=False, reason=f"QEMU ended with status {status}: {_last_line(said)}")


def _read(fd: int, deadline: float) -> tuple[bytes, bool]:
    """Read standard error up to its end, a dead vCPU or the deadline; say also whether it ended."""
    said = b""
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            if not selector.select(left):
                continue
            if not (data := os.read(fd, 4096)):
                return said, True
            said = (said + data)[-_STDERR_LIMIT:]
            if _FAILED_VCPU in said:
                # QEMU stays up, paused, and would keep us waiting for nothing.
                return said, False
    return said, False


def _line_with(said: bytes, part: bytes) -> str:
    return _clean(next(line for line in said.splitlines() if part in line))


def _last_line(said: bytes) -> str:
    return _clean(next((line for line in reversed(said.splitlines()) if line.strip()), b"no message"))


def _clean(line: bytes) -> str:
    return printable(line.decode(errors="replace").strip())
