"""A guest of one sector that tells whether an accelerator works.

`/dev/kvm` that opens proves little: on some nested hosts a virtual machine and its CPU are created, and the firmware
dies in the first instructions, with QEMU still up. So a guest is run, and only its own answer counts.
"""

import os
import re
import selectors
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vmtests.host.architecture import GUEST
from vmtests.host.sandbox import Sandboxed, tool_env
from vmtests.host.tools import Toolbox
from vmtests.text import printable

PROBE_SECONDS = 30.0
"""How long the guest may take; where KVM works it answers in a tenth of a second, where it is slow in some."""

_ANSWER = 0x2A
_EXPECTED_STATUS = _ANSWER << 1 | 1  # QEMU's hw/misc/debugexit.c: the exit status is (value << 1) | 1
# QEMU's accel/kvm/kvm-all.c (kvm_handle_internal_error, kvm_cpu_exec), target/i386/kvm/kvm.c (kvm_arch_handle_exit)
_FAILED_VCPU = re.compile(rb".*(?:KVM internal error|kvm run failed|KVM: (?:entry failed|unknown exit)).*")
_STDERR_LIMIT = 16 << 10  # bytes; registers and code bytes of a dying vCPU are about 2 KiB


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came out of running a guest, and the seconds that it took from the start of QEMU."""

    works: bool
    reason: str
    hint: str | None = None
    seconds: float = 0.0


def boot_sector() -> bytes:
    """Return 512 bytes that a BIOS loads to 0x7c00 and runs in real mode; they report that they ran."""
    code = b"".join(
        (
            b"\xfa",  # cli: no interrupt may wake the halt below
            b"\xdb\xe3",  # fninit: an FPU instruction, which a half-working hypervisor has to emulate
            b"\xb0" + bytes([_ANSWER]),  # mov al, 0x2a
            b"\xe6\xf4",  # out 0xf4, al: isa-debug-exit, QEMU ends with (0x2a << 1) | 1
            b"\xf4",  # hlt
            b"\xeb\xfd",  # jmp back to the hlt
        )
    )
    return code.ljust(510, b"\0") + b"\x55\xaa"


def run_guest(toolbox: Toolbox, accelerator: str, cpu: str, cpus: int = 1, seconds: float = PROBE_SECONDS) -> Outcome:
    """Run the guest on a machine of `cpus` processors and return what came out; takes `seconds` at most."""
    with tempfile.TemporaryDirectory(prefix="vmtests-") as directory:
        disk = Path(directory, "boot.img")
        disk.write_bytes(boot_sector())
        argv = toolbox.argv(
            GUEST.qemu,
            # The i440FX machine has a floppy drive, which boots one bare sector; a disk that small is
            # refused.
            *("-machine", "pc", "-accel", accelerator, "-cpu", cpu, "-smp", str(cpus), "-m", "64"),
            *("-nodefaults", "-no-user-config", "-display", "none"),
            *("-drive", f"if=floppy,format=raw,readonly=on,file={str(disk).replace(',', ',,')}"),
            *("-device", "isa-debug-exit,iobase=0xf4,iosize=1"),
        )
        return watch(argv, seconds)


def watch(argv: Sequence[str], seconds: float) -> Outcome:
    """Run a probe's command line to its end, to QEMU's word that the vCPU died, or for `seconds`."""
    try:
        process = Sandboxed[bytes](
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=tool_env(),
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
    if (died := _FAILED_VCPU.search(said)) is not None:
        return Outcome(works=False, reason=f"the vCPU died at once ({_clean(died[0])})")
    if not ended:
        return Outcome(works=False, reason=f"a guest of one sector gave no answer in {seconds:g} s")
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
            if _FAILED_VCPU.search(said):
                # QEMU stays up, paused, and would keep us waiting for nothing.
                return said, False
    return said, False


def _last_line(said: bytes) -> str:
    return _clean(next((line for line in reversed(said.splitlines()) if line.strip()), b"no message"))


def _clean(line: bytes) -> str:
    return printable(line.decode(errors="replace").strip())
