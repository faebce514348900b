"""A machine that hangs is looked at: what is asked of QEMU and of the guest's kernel, and what is kept."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from vmtests.boot.stages import Stage
from vmtests.boot.verdict import Cause
from vmtests.image.kallsyms import TEXT, Symbols
from vmtests.machine.qmp import QmpCommandError
from vmtests.qemu.examine import PAUSES, QemuDoctor

_REGISTERS = (
    "CPU#0\r\nRAX=0000000000000001 RBX=0000000000000000\r\n"
    "RIP=ffffffff994b5a0b RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1\r\n"
    "IDT=     fffffe0000000000 00000fff\r\n"
)
_AWAKE = _REGISTERS.replace("HLT=1", "HLT=0")
_GATE = "fffffe0000000000: 0x99a08e0000101030 0x00000000ffffffff\r\n"


class SmallImage:
    """A machine that answers as QEMU 10 does; `refuses` are commands that it does not have."""

    def __init__(
        self,
        refuses: Sequence[str] = (),
        screens: Sequence[bytes] = (b"a",),
        in_use: int = 0,
        registers: str = _REGISTERS,
        said: bytes = b"",
    ) -> None:
        self.refuses = refuses
        self.said = said
        self.registers = registers
        self.screens = list(screens)
        self.in_use = in_use
        self.done: list[str] = []
        self.typed = bytearray()

    def execute(self, command: str, arguments: Mapping[str, object] | None = None, *, timeout: float = 30.0) -> object:
        """Answer a QMP command."""
        given = dict(arguments or {})
        self.done.append(f"{command} {given.get('command-line', '')}".strip())
        if command in self.refuses:
            raise QmpCommandError(f"QMP: {command}: not found")
        answers: dict[str, object] = {
            "query-status": {"status": "running", "running": True},
            "human-monitor-command": _GATE if str(given.get("command-line")).startswith("x /2gx") else self.registers,
            "query-blockstats": [{"stats": {"rd_operations": 40, "wr_operations": 2}}],
            "x-query-virtio": [
                {"path": "/machine/scsi0/virtio-backend", "name": "virtio-scsi"},
                {"name": "virtio-rng"},
            ],
            "x-query-virtio-status": {"num-vqs": 4},
            "x-query-virtio-queue-status": {"inuse": self.in_use},
        }
        return answers.get(command)

    def dump_screen(self, path: Path, *, timeout: float = 30.0) -> None:
        """Write the next screen."""
        self.execute("screendump", {"filename": "of its own"}, timeout=timeout)
        with path.open("xb") as file:
            file.write(self.screens.pop(0) if len(self.screens) > 1 else self.screens[0])

    def send_serial(self, data: bytes, port: int = 0) -> None:
        """Take what is typed."""
        self.typed += data

    def written(self, port: int, limit: int = 512) -> bytes:
        """Return what the console has said."""
        return self.said


def _doctor(patient: SmallImage, directory: Path, symbols: Symbols | None = None) -> QemuDoctor:
    find = None if symbols is None else lambda: symbols
    return QemuDoctor(patient, directory, scale=0.01, sleep=lambda _: None, symbols=find)


def test_look_keeps_registers_disk_and_screen(tmp_path: Path) -> None:
    """A look leaves registers.txt, block.txt and screen.png in a directory that it makes, and nothing else."""
    patient = SmallImage()
    found = _doctor(patient, tmp_path / "diagnosis").look(Stage.INITRD)
    assert "the only processor sleeps: the guest waits for something" == found.says
    assert ["block.txt", "registers.txt", "screen.png"] == sorted(
        path.name for path in (tmp_path / "diagnosis").iterdir()
    )
    assert "RIP=ffffffff994b5a0b" in (tmp_path / "diagnosis/registers.txt").read_text()


def test_look_changes_nothing_in_the_guest(tmp_path: Path) -> None:
    """No interrupt, no break and no key is sent before the doctor provokes."""
    patient = SmallImage()
    _doctor(patient, tmp_path).look(Stage.INITRD)
    assert {"inject-nmi", "chardev-send-break"} & set(patient.done) == set()
    assert b"" == patient.typed


def test_look_sees_a_screen_that_changes(tmp_path: Path) -> None:
    """Pictures of the screen are compared over all looks, so that a cursor that blinks is seen."""
    patient = SmallImage(screens=[b"a", b"b", *[b"a"] * len(PAUSES)])
    assert Cause.SCREEN_ONLY is _doctor(patient, tmp_path).look(Stage.KERNEL).cause


def test_requests_in_flight_are_counted_without_control_queues(tmp_path: Path) -> None:
    """Of a virtio-scsi controller's queues the first two carry no disk request."""
    found = _doctor(SmallImage(in_use=3), tmp_path).look(Stage.INITRD)
    assert Cause.DISK_STALLED is found.cause
    assert found.says.startswith("6 disk requests are in flight")


@pytest.mark.parametrize(
    "command", ["query-status", "human-monitor-command", "query-blockstats", "x-query-virtio", "screendump"]
)
def test_look_is_poorer_where_qemu_lacks_a_command(tmp_path: Path, command: str) -> None:
    """A QEMU without a command still gives an opinion."""
    found = _doctor(SmallImage(refuses=[command]), tmp_path).look(Stage.INITRD)
    assert found.evidence
    assert None is found.cause


def test_kernel_that_was_moved_is_named(tmp_path: Path) -> None:
    """Where a processor stands is told by name: the table of its interrupt handlers says where the kernel is."""
    symbols = Symbols(
        addresses=(TEXT, TEXT + 0x8B5A00, TEXT + 0xE01030), names=("_text", "default_idle", "asm_exc_divide_error")
    )
    doctor = _doctor(SmallImage(registers=_AWAKE), tmp_path, symbols)
    assert "default_idle+0xb" in str(doctor.look(Stage.INITRD))


def test_kernel_that_has_just_begun_is_named(tmp_path: Path) -> None:
    """Until its own handlers are there, Linux has early ones; what is told of the kernel is the same."""
    symbols = Symbols(
        addresses=(TEXT, TEXT + 0x8B5A00, TEXT + 0xE01030), names=("_text", "default_idle", "early_idt_handler_array")
    )
    doctor = _doctor(SmallImage(registers=_AWAKE), tmp_path, symbols)
    assert "default_idle+0xb" in str(doctor.look(Stage.INITRD))


def test_kernel_of_another_image_is_not_named(tmp_path: Path) -> None:
    """A kernel whose first handler is not where the image's has it is not the image's: addresses stay numbers."""
    symbols = Symbols(addresses=(TEXT, TEXT + 0x10), names=("_text", "asm_exc_divide_error"))
    doctor = _doctor(SmallImage(registers=_AWAKE), tmp_path, symbols)
    said = str(doctor.look(Stage.INITRD))
    assert "0xffffffff994b5a0b" in said
    assert "0xffffffff99a01030 is not asm_exc_divide_error" in said


def test_kernel_is_asked_by_sysrq_and_then_by_interrupt(tmp_path: Path) -> None:
    """A break comes before each key, the console is made loud first, and the interrupt is last."""
    patient = SmallImage()
    said = _doctor(patient, tmp_path).provoke(lambda: ["Uhhuh. NMI received for unknown reason 21 on CPU 0."])
    assert b"9lw" == patient.typed
    assert ["chardev-send-break"] * 3 + ["inject-nmi"] == patient.done
    assert ("nmi", "no answer to a non-maskable interrupt") in said.evidence
    assert "Uhhuh" in (tmp_path / "kernel.txt").read_text()


@pytest.mark.parametrize(
    "said",
    [
        b"Please enter passphrase for disk luks (cryptroot): ",
        b"Please unlock disk cryptroot: \r\nEnter passphrase: [   12.0] clocksource: tsc\r\n",
        b"-- Press any key to proceed --\r\n",
    ],
)
def test_nothing_is_typed_at_somebody_elses_prompt(tmp_path: Path, said: bytes) -> None:
    """A kernel that takes no sysrq on the line would give the keys to who asks for a passphrase."""
    patient = SmallImage(said=said)
    _doctor(patient, tmp_path).provoke(list)
    assert b"" == bytes(patient.typed)
