"""What can be seen of a machine that hangs: what QEMU's monitor tells, and what the guest's kernel says when asked.

QMP's `x-query-virtio` and the human monitor's `info registers` are QEMU's own (qapi/virtio.json,
hmp-commands-info.hx); a QEMU that lacks one of them makes the look poorer, never fail.
"""

import contextlib
import hashlib
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from vmtests.boot import hang
from vmtests.boot.hang import Look, Opinion
from vmtests.boot.stages import Stage
from vmtests.boot.verdict import Cause
from vmtests.errors import GuestError, HostError, Owner, VmtestsError
from vmtests.guest.login import SEEN, Prompt, prompt
from vmtests.image.kallsyms import TEXT, Symbols
from vmtests.machine.qmp import QmpCommandError, QmpTimeoutError

PAUSES = (0.3, 0.5, 0.7, 0.5)
"""Seconds between looks: uneven, or a cursor that blinks would be seen at the same moment each time."""

LOUDEST, TRACES, BLOCKED, SYNC = "9", "l", "w", "s"
"""Keys of Documentation/admin-guide/sysrq.rst: all messages on the console, stacks of the processors, stacks of
tasks that wait for a device, and all disks synced."""

# QEMU target/i386/cpu-dump.c, x86_cpu_dump_state(): the interrupt descriptor table. Linux
# Documentation/arch/x86/x86_64/mm.rst: kernel text mapping; the text begins at a multiple of CONFIG_PHYSICAL_ALIGN.
_TABLE = re.compile(r"^IDT= +([0-9a-f]{16}) ", re.MULTILINE)
_WORD = re.compile(r"0x([0-9a-f]{16})")
_FIRST_HANDLERS = ("asm_exc_divide_error", "early_idt_handler_array")
"""What the table begins with: in a kernel that is up, and in one that has just begun (arch/x86/kernel/idt.c)."""
_ALIGN = 2 << 20
_KERNELS = range(0xFFFFFFFF80000000, 0xFFFFFFFFC0000000)

_ANSWER_SECONDS = 1.5
_KEY_SECONDS = 0.2  # the kernel's window after a break is five seconds (drivers/tty/serial/serial_core.c)
_PICTURE_LIMIT = 64 << 20


class Examined(Protocol):
    """What has to be there of a machine, to look at it."""

    def execute(self, command: str, arguments: dict[str, object] | None = None, *, timeout: float = ...) -> object:
        """Run a QMP command."""

    def dump_screen(self, path: Path, *, timeout: float = ...) -> None:
        """Write the screen to a new file."""

    def send_serial(self, data: bytes, port: int = ...) -> None:
        """Type bytes on a serial port."""

    def written(self, port: int, limit: int = ...) -> bytes:
        """Return the last bytes that were written to a serial port."""


class QemuDoctor:
    """Examines a machine under QEMU; what it finds is written to `directory`, which is made when it is needed.

    `scale` stretches what the guest gets to answer (1 for KVM). `symbols` returns names for the addresses of the
    guest's kernel; it is called when they are needed, and raises ImageError where there are none. `serial` says that
    the kernel is known to talk on the serial line.
    """

    def __init__(
        self,
        machine: Examined,
        directory: Path,
        *,
        scale: float = 1.0,
        symbols: Callable[[], Symbols] | None = None,
        serial: bool = False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._machine = machine
        self._directory = directory
        self._scale = scale
        self._symbols = symbols
        self._serial = serial
        self._sleep = sleep

    def look(self, stage: Stage, /) -> Opinion:
        """Look at processors, disk and screen, several times, and change nothing."""
        with contextlib.suppress(OSError):
            self._directory.mkdir(parents=True, exist_ok=True)
        try:
            looks = [self._look()]
        except QmpTimeoutError as error:
            return Opinion(
                says="QEMU does not answer on its monitor either",
                evidence=(("monitor", error.message),),
                cause=Cause.QEMU_SILENT,
                hint="QEMU hangs or was stopped (SIGSTOP); look at its process and at the host's disk",
                owner=Owner.HOST,
            )
        for pause in PAUSES:
            self._sleep(pause)
            looks.append(self._look())
        self.keep()
        if stage.before(Stage.KERNEL) or all(cpu.halted for look in looks for cpu in look.cpus):
            return hang.opinion(stage, looks, serial=self._serial)  # and no address is named
        name, note = self._names()
        found = hang.opinion(stage, looks, name, serial=self._serial)
        return found.followed_by(Opinion(evidence=(("symbols", note),) if note else ()))

    def _names(self) -> tuple[Callable[[int], str], str]:
        """Return what names an address of the kernel, and where nothing does, why."""
        if self._symbols is None:
            return hex, ""
        try:
            known, base = self.kernel()
        except VmtestsError as error:
            return hex, error.message
        return (lambda address: known.name(address, base)), ""

    def kernel(self, *, fixed: bool = False) -> tuple[Symbols, int]:
        """Return the symbols of the kernel that runs, and where its text begins; raises VmtestsError for neither.

        With `fixed` it is where it was linked to be, and need not run yet.
        """
        if self._symbols is None:
            raise HostError("the image's kernel is not known")
        if (handler := self._first_handler()) not in _KERNELS:
            if fixed:
                return self._symbols(), TEXT
            raise GuestError("the processor has no kernel's interrupt handlers")
        known = self._symbols()
        for base in (known.base(name, handler) for name in _FIRST_HANDLERS):
            if base is not None and not base % _ALIGN:
                return known, base
        raise GuestError(f"{hex(handler)} is not {' or '.join(_FIRST_HANDLERS)} of the image's kernel")

    def _first_handler(self) -> int:
        """Return the address of the handler of interrupt 0, which tells where KASLR has put the kernel; 0 for none.

        A walk through the page tables (`info mem`) would tell it too, and stop a guest for seconds.
        """
        table = _TABLE.search(self._monitor("info registers"))
        words = _WORD.findall(self._monitor(f"x /2gx 0x{table[1]}")) if table else []
        if len(words) != 2:
            return 0
        low, high = (int(word, 16) for word in words)
        # Intel SDM volume 3, "64-Bit IDT Gate Descriptors".
        return low & 0xFFFF | low >> 48 << 16 | (high & 0xFFFFFFFF) << 32

    def provoke(self, heard: Callable[[], Sequence[str]], /) -> Opinion:
        """Ask the kernel by sysrq on the serial line for its stacks, then by a non-maskable interrupt.

        A kernel that takes no sysrq there gives the keys to whoever reads the line: where that is somebody else's
        prompt, nothing is typed.
        """
        strange = prompt(self._machine.written(0, SEEN)) is Prompt.STRANGE
        for key in () if strange else (LOUDEST, TRACES, BLOCKED):
            self.sysrq(key)
        self._hear(heard)
        said = hang.kernel_words(heard())
        self._command("inject-nmi")
        before = len(heard())
        self._hear(heard)
        if len(heard()) > before:
            said = said.followed_by(Opinion(evidence=(("nmi", heard()[before]),)))
        else:
            said = said.followed_by(Opinion(evidence=(("nmi", "no answer to a non-maskable interrupt"),)))
        self._write("kernel.txt", "".join(f"{line}\n" for line in heard()))
        return said

    def sysrq(self, key: str) -> None:
        """Send a break and a key on the console: the kernel's own shell, where CONFIG_MAGIC_SYSRQ_SERIAL is set."""
        self._command("chardev-send-break", {"id": "serial0"})
        self._machine.send_serial(key.encode())
        self._sleep(_KEY_SECONDS)

    def keep(self) -> None:
        """Write registers, disk statistics and the screen to the directory."""
        self._write("registers.txt", self._monitor("info registers -a"))
        self._write("block.txt", self._monitor("info block -v") + self._monitor("info blockstats"))
        self._dump(self._directory / "screen.png")

    def _write(self, name: str, text: str) -> None:
        # A full disk loses the file; what was seen is in the opinion all the same.
        with contextlib.suppress(OSError):
            self._directory.mkdir(parents=True, exist_ok=True)
            (self._directory / name).write_text(text)

    def _look(self) -> Look:
        status = self._command("query-status")
        return Look(
            t=time.monotonic(),
            cpus=hang.parse_registers(self._monitor("info registers -a")),
            status=str(status.get("status", "running")) if isinstance(status, dict) else "running",
            requests=self._requests(),
            in_flight=self._in_flight(),
            screen=self._screen(),
        )

    def _command(self, name: str, arguments: dict[str, object] | None = None) -> Any:
        try:
            return self._machine.execute(name, arguments, timeout=5.0)
        except QmpCommandError:
            return None  # this QEMU, or this machine, does not have it

    def _monitor(self, line: str) -> str:
        return str(self._command("human-monitor-command", {"command-line": line}) or "").replace("\r", "")

    def _requests(self) -> int:
        total = 0
        for device in self._command("query-blockstats") or []:
            stats = device.get("stats", {})
            total += sum(int(stats.get(f"{kind}_operations", 0)) for kind in ("rd", "wr", "flush", "unmap"))
        return total

    def _in_flight(self) -> int | None:
        """Return the requests that a disk controller has taken and not answered."""
        count: int | None = None
        for device in self._command("x-query-virtio") or []:
            kind = device.get("name")
            if kind not in {"virtio-scsi", "virtio-blk"}:
                continue
            status = self._command("x-query-virtio-status", {"path": device["path"]}) or {}
            # Queues 0 and 1 of virtio-scsi are for control and events (virtio 1.2, section 5.6.2).
            for queue in range(2 if kind == "virtio-scsi" else 0, min(int(status.get("num-vqs", 0)), 16)):
                one = self._command("x-query-virtio-queue-status", {"path": device["path"], "queue": queue})
                if one is None:
                    break
                count = (count or 0) + int(one.get("inuse", 0))
        return count

    def _screen(self) -> str:
        path = self._directory / ".screen"
        try:
            self._dump(path)
            with path.open("rb") as file:
                return hashlib.sha256(file.read(_PICTURE_LIMIT)).hexdigest()
        except OSError:
            return ""
        finally:
            with contextlib.suppress(OSError):
                path.unlink()

    def _dump(self, path: Path) -> None:
        with contextlib.suppress(QmpCommandError, OSError):  # it has no screen, or the disk is full
            path.unlink(missing_ok=True)
            self._machine.dump_screen(path, timeout=5.0)

    def _hear(self, heard: Callable[[], Sequence[str]]) -> None:
        """Wait until the guest has said what it had to say, or nothing for its time."""
        end, count = time.monotonic() + _ANSWER_SECONDS * self._scale, -1
        while time.monotonic() < end and len(heard()) != count:
            count = len(heard())
            self._sleep(_ANSWER_SECONDS * self._scale / 4)
