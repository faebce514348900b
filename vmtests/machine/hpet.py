"""Stops the timers of a guest's HPET that the guest itself has switched off.

A periodic timer whose interrupts the guest has switched off goes on in QEMU, which stops it with the whole HPET only
(hw/timer/hpet.c). The one that Linux ticked by before it found a better one wakes QEMU 250 times a second, which takes
4 % of a processor for as long as the machine is there, and so does each machine that is forked from it.
"""

import contextlib
import io
import socket
from collections.abc import Callable, Iterator, Mapping

from vmtests.errors import HostError

Execute = Callable[[str, Mapping[str, object]], object]
"""Runs a QMP command with its arguments."""

Give = Callable[[str, int], None]
"""Hands QEMU a file descriptor under a name."""

_BASE = 0xFED00000  # of the registers: HPET_BASE in include/hw/timer/hpet.h
_TIMERS = 3
_INTERRUPTS, _PERIODIC = 0x4, 0x8  # Tn_INT_ENB_CNF and Tn_TYPE_CNF (IA-PC HPET specification, 2.3.8)
_ANSWER_SECONDS = 10.0
_NAME = "hpet"


def stop_unused_timers(execute: Execute, give: Give) -> None:
    """Take the period from timers that interrupt nobody; whoever wants one again gives it a new one.

    The guest has to stand still. Raises HostError where QEMU does not let its devices be read and written.
    """
    with _memory(execute, give) as memory:
        for number in range(_TIMERS):
            register = _BASE + 0x100 + 0x20 * number
            configuration = int(_ask(memory, f"readl {register:#x}"), 0)
            if configuration & _PERIODIC and not configuration & _INTERRUPTS:
                _ask(memory, f"writel {register:#x} {configuration & ~_PERIODIC:#x}")


@contextlib.contextmanager
def _memory(execute: Execute, give: Give) -> Iterator[io.BufferedRWPair]:
    """Give QEMU's test interface (docs/devel/testing/qtest.rst), which reaches what a guest can reach."""
    # What is left to be written of a QEMU that has ended fails once more when the stack is left.
    try:
        with contextlib.ExitStack() as stack:
            connection, theirs = socket.socketpair()
            stack.enter_context(connection)
            with theirs:
                give(_NAME, theirs.fileno())
            backend = {"type": "socket", "data": {"addr": {"type": "fd", "data": {"str": _NAME}}, "server": False}}
            execute("chardev-add", {"id": _NAME, "backend": backend})
            stack.callback(execute, "chardev-remove", {"id": _NAME})
            execute("object-add", {"qom-type": "qtest", "id": _NAME, "chardev": _NAME, "log": "/dev/null"})
            stack.callback(execute, "object-del", {"id": _NAME})
            connection.settimeout(_ANSWER_SECONDS)
            yield stack.enter_context(connection.makefile("rwb"))
    except OSError as error:
        raise HostError(f"QEMU's test interface: {error.strerror or error}") from error


def _ask(memory: io.BufferedRWPair, command: str) -> str:
    """Return what follows the `OK` of an answer."""
    memory.write(command.encode() + b"\n")
    memory.flush()
    verdict, _, value = memory.readline(4096).decode(errors="replace").strip().partition(" ")
    if verdict != "OK":
        raise HostError(f"QEMU's test interface: {command} was answered by {verdict!r}")
    return value
