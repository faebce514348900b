"""The accelerator, chosen by running a virtual CPU.

`/dev/kvm` that opens proves little: on some nested hosts a virtual machine and its CPU are created, and the
firmware dies in the first instructions, with QEMU still up. So a guest of one sector is run, and only its
own answer counts.
"""

import os
import platform
import selectors
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import msgspec

from vmtests.errors import HostError
from vmtests.host.sandbox import tool_env
from vmtests.host.tools import Toolbox
from vmtests.resources import cache_dir
from vmtests.text import printable

PROBE_SECONDS = 8.0
"""How long the guest of one sector may take; where KVM works it answers in a tenth of a second."""

_ANSWER = 0x2A
_EXPECTED_STATUS = _ANSWER << 1 | 1  # QEMU's hw/misc/debugexit.c: the exit status is (value << 1) | 1
_FAILED_VCPU = b"KVM internal error"  # QEMU's accel/kvm/kvm-all.c, kvm_handle_internal_error
_STDERR_LIMIT = 16 << 10  # bytes; registers and code bytes of a dying vCPU are about 2 KiB
_DEVICE = Path("/dev/kvm")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class AcceleratorName(StrEnum):
    """How QEMU runs the guest's instructions."""

    KVM = "kvm"
    TCG = "tcg"


class Request(StrEnum):
    """What the user asked for."""

    AUTO = "auto"
    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """The accelerator that is used, why, and the CPU model that goes with it."""

    name: AcceleratorName
    reason: str
    cpu: str
    scale: int
    """The factor by which time budgets grow: 1 with KVM, 4 without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came out of running a virtual CPU with KVM."""

    works: bool
    reason: str
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    key: str
    outcome: Outcome


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


def probe(toolbox: Toolbox, request: Request = Request.AUTO) -> Accelerator:
    """Return the accelerator for `request`.

    KVM is taken when a guest really ran with it. The outcome is kept in the cache until the host is booted
    again or QEMU changes. Raises HostError when KVM is asked for and does not work.
    """
    if request is Request.TCG:
        return _tcg("tcg was asked for")
    outcome = kvm_outcome(toolbox)
    if outcome.works:
        return Accelerator(name=AcceleratorName.KVM, reason=outcome.reason, cpu="host", scale=1)
    if request is Request.KVM:
        raise HostError(f"KVM does not work: {outcome.reason}", hint=outcome.hint or "use --vm-accel=auto or tcg")
    return _tcg(f"KVM does not work: {outcome.reason}")


def _tcg(reason: str) -> Accelerator:
    return Accelerator(name=AcceleratorName.TCG, reason=reason, cpu="max", scale=4)


def kvm_outcome(toolbox: Toolbox) -> Outcome:
    """Return whether a guest runs with KVM, and what came out."""
    if (refusal := device_refusal(_DEVICE)) is not None:
        return refusal
    key = _key(toolbox)
    place = cache_dir() / "accelerator.json"
    if (known := _recall(place, key)) is not None:
        return known
    outcome = run_guest(toolbox)
    _remember(place, _Record(key=key, outcome=outcome))
    return outcome


def device_refusal(device: Path) -> Outcome | None:
    """Return why `device` cannot be used; None when it opens. This costs nothing and is never cached."""
    if platform.machine() not in {"x86_64", "AMD64"}:
        return Outcome(works=False, reason=f"the host is {platform.machine()}, the guest x86_64")
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return Outcome(
            works=False,
            reason=f"there is no {device}",
            hint="load kvm_intel or kvm_amd; in a virtual machine, allow nested virtualisation",
        )
    except PermissionError:
        return Outcome(
            works=False,
            reason=f"{device} may not be opened",
            hint="add yourself to the group kvm and log in again",
        )
    except OSError as error:
        return Outcome(works=False, reason=f"{device} cannot be opened: {error.strerror}")
    return None


def _key(toolbox: Toolbox) -> str:
    return f"{toolbox.tools['qemu-system-x86_64'].version} {_BOOT_ID.read_text().strip()}"


def _recall(place: Path, key: str) -> Outcome | None:
    try:
        record = msgspec.json.decode(place.read_bytes(), type=_Record)
    except (OSError, msgspec.DecodeError):
        return None
    return record.outcome if record.key == key else None


def _remember(place: Path, record: _Record) -> None:
    with tempfile.NamedTemporaryFile(dir=place.parent, prefix=place.name, delete=False) as new:
        new.write(msgspec.json.encode(record))
    Path(new.name).replace(place)


def run_guest(
    toolbox: Toolbox,
    accelerator: AcceleratorName = AcceleratorName.KVM,
    cpu: str = "host",
    seconds: float = PROBE_SECONDS,
) -> Outcome:
    """Run the guest of one sector and return what came out; takes `seconds` at most."""
    with tempfile.TemporaryDirectory(prefix="vmtests-") as directory:
        disk = Path(directory, "boot.img")
        disk.write_bytes(boot_sector())
        argv = toolbox.argv(
            "qemu-system-x86_64",
            # The i440FX machine has a floppy drive, which boots one bare sector; a disk that small is
            # refused.
            *("-machine", "pc", "-accel", accelerator, "-cpu", cpu, "-m", "64"),
            *("-nodefaults", "-no-user-config", "-display", "none"),
            *("-drive", f"if=floppy,format=raw,readonly=on,file={str(disk).replace(',', ',,')}"),
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
        return Outcome(works=True, reason=f"a guest ran in {took:.2f} s")
    if _FAILED_VCPU in said:
        return Outcome(works=False, reason=f"the vCPU died at once ({_line_with(said, _FAILED_VCPU)})")
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
