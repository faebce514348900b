"""The HPET's timers, with registers that a thread in QEMU's place keeps."""

import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping

import pytest

from vmtests.errors import HostError
from vmtests.machine.hpet import stop_unused_timers
from vmtests.machine.qmp import QmpCommandError

LEVEL, INTERRUPTS, PERIODIC = 0x2, 0x4, 0x8
TIMERS = (0xFED00100, 0xFED00120, 0xFED00140)


class Qemu:
    """Takes the QMP commands, and answers the test interface."""

    def __init__(self) -> None:
        self.registers: dict[int, int] = {}
        self.commands: list[str] = []
        self.refuses = ""
        self._end: socket.socket | None = None
        self._thread: threading.Thread | None = None

    def execute(self, command: str, arguments: Mapping[str, object]) -> object:
        """Run a command."""
        self.commands.append(command)
        if command == self.refuses:
            raise QmpCommandError(f"QMP: {command}: no")
        match arguments:
            case {"qom-type": "qtest"}:
                self._thread = threading.Thread(target=self._answer, daemon=True)
                self._thread.start()
        return {}

    def give(self, name: str, descriptor: int) -> None:
        """Take the test interface's end, which the other side closes."""
        assert name == "hpet"
        self._end = socket.socket(fileno=os.dup(descriptor))

    def _answer(self) -> None:
        assert self._end is not None
        with self._end as connection, connection.makefile("rw") as lines:
            for line in lines:
                name, *numbers = line.split()
                address, *value = (int(number, 0) for number in numbers)
                if name == "writel":
                    self.registers[address] = value[0]
                known = self.registers.get(address)
                value_read = f" {known:#018x}" if name == "readl" and known is not None else ""
                lines.write(f"OK{value_read}\n" if known is not None else "FAIL\n")
                lines.flush()

    def close(self) -> None:
        """End."""
        if self._thread is not None:
            self._thread.join(10)
        if self._end is not None:
            self._end.close()


@pytest.fixture
def qemu() -> Iterator[Qemu]:
    """Return what is in QEMU's place."""
    qemu = Qemu()
    yield qemu
    qemu.close()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (PERIODIC, 0),
        (PERIODIC | LEVEL, LEVEL),
        (PERIODIC | INTERRUPTS, PERIODIC | INTERRUPTS),
        (LEVEL, LEVEL),
        (INTERRUPTS, INTERRUPTS),
    ],
    ids=["left alone", "other bits", "in use", "unused", "one-shot"],
)
def test_timer_that_nobody_hears_loses_its_period(qemu: Qemu, before: int, after: int) -> None:
    """A periodic timer that interrupts nobody is stopped; one that somebody ticks by is not."""
    qemu.registers = dict.fromkeys(TIMERS, before)
    stop_unused_timers(qemu.execute, qemu.give)
    assert qemu.registers == dict.fromkeys(TIMERS, after)
    assert ["chardev-add", "object-add", "object-del", "chardev-remove"] == qemu.commands


@pytest.mark.parametrize(
    ("spoil", "left"),
    [
        (lambda qemu: setattr(qemu, "refuses", "chardev-add"), ["chardev-add"]),
        (lambda qemu: setattr(qemu, "refuses", "object-add"), ["chardev-add", "object-add", "chardev-remove"]),
        (lambda qemu: None, ["chardev-add", "object-add", "object-del", "chardev-remove"]),
    ],
    ids=["no chardev", "no test interface", "no registers"],
)
def test_what_qemu_does_not_let_is_told(qemu: Qemu, spoil: Callable[[Qemu], None], left: list[str]) -> None:
    """Where it fails it says so, and what was added is removed."""
    spoil(qemu)
    with pytest.raises(HostError, match=r": no$|'FAIL'"):
        stop_unused_timers(qemu.execute, qemu.give)
    assert left == qemu.commands
