"""A person's terminal on a guest's serial line (`pytest --vm-console`)."""

import codecs
import contextlib
import os
import re
import select
import socket
import termios
import tty
from collections.abc import Iterator

from vmtests import progress
from vmtests.errors import InputError, VmtestsError
from vmtests.text import printable
from vmtests.vm.vm import Vm

LEAVE = b"\x1d"
"""What ends it: Ctrl-], as with telnet(1)."""

_READ = 32 << 10
_TYPED_LIMIT = 64 << 10  # bytes that may wait for a guest that reads nothing; what is typed then is lost

# ECMA-48: what moves the cursor, erases, inserts, deletes or colours; other sequences may set titles, fill
# clipboards, or have the terminal type answers.
_TOKEN = re.compile(
    r"(?P<kept>\x1b\[[0-9;]{0,32}[@A-HJ-MPXdm])"
    r"|(?P<dropped>\x1b\[[0-?]{0,32}[ -/]{0,4}[@-~]|\x1b\][^\x07\x1b]{0,4096}(?:\x07|\x1b\\)|\x1b[ -/]{0,4}[0-Z\\^-~])"
    r"|(?P<begun>\x1b(?:\[[0-?]{0,32}[ -/]{0,4}|\][^\x07\x1b]{0,4096}\x1b?|[ -/]{0,4})\Z)"
    r"|(?P<text>[^\x1b]+|\x1b)"
)
_CONTROLS = "\r\n\b\t\a"


class Screened:
    """Makes what a guest writes fit for a terminal: it edits and colours lines, and does nothing else there."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._begun = ""

    def feed(self, data: bytes) -> bytes:
        """Return what may be shown of it now; the beginning of a sequence waits for the rest."""
        text, self._begun = self._begun + self._decoder.decode(data), ""
        shown: list[str] = []
        for token in _TOKEN.finditer(text):
            match token.lastgroup:
                case "kept":
                    shown.append(token[0])
                case "begun":
                    self._begun = token[0]
                case "text":
                    shown.extend(_escaped(c) for c in token[0])
        return "".join(shown).encode()


def _escaped(c: str) -> str:
    return c if c.isprintable() or c in _CONTROLS else c.encode("unicode_escape").decode()


@contextlib.contextmanager
def own() -> Iterator[int]:
    """Give the terminal of this process, whatever its standard input is; raises InputError when there is none."""
    try:
        descriptor = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise InputError("there is no terminal to attach to a guest", hint="--vm-console is for a person") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def attach(line: socket.socket, terminal: int) -> None:
    """Connect a terminal with a serial line, until `LEAVE` is typed, or either of both ends."""
    saved = termios.tcgetattr(terminal)
    tty.setraw(terminal)
    try:
        _connect(line, terminal)
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, saved)


def _connect(line: socket.socket, terminal: int) -> None:
    screened, typed, guest = Screened(), bytearray(), line.fileno()
    while True:
        readable, writable, _ = select.select([guest, terminal], [guest] if typed else [], [])
        with contextlib.suppress(BlockingIOError):
            try:
                if writable:
                    del typed[: line.send(typed, socket.MSG_DONTWAIT)]
                if guest in readable:
                    if not (data := line.recv(_READ)):
                        return
                    _write(terminal, screened.feed(data))
            except ConnectionError:
                return
        if terminal in readable:
            keys, ended, _ = os.read(terminal, _READ).partition(LEAVE)
            if ended or not keys:
                return
            typed += keys[: _TYPED_LIMIT - len(typed)]


def _write(terminal: int, data: bytes) -> None:
    while data:
        data = data[os.write(terminal, data) :]


def visit(vm: Vm, why: str) -> None:
    """Attach the terminal of this process to a machine, until the person leaves, and say `why`.

    What keeps it from that is told.
    """
    try:
        with own() as terminal, vm.line() as line:
            told = f"\r\n{printable(why)}\r\n{vm.results.name}: this is the guest's console; Ctrl-] goes on\r\n"
            _write(terminal, told.encode())
            attach(line, terminal)
            _write(terminal, b"\r\n")
    except VmtestsError as error:
        progress.stderr().print(f"vmtests: {error}")
