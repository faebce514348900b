"""A guest's serial line as lines of bytes, read by pexpect in small windows."""

import socket
from typing import TYPE_CHECKING

import pexpect
from pexpect.socket_pexpect import SocketSpawn

from vmtests.errors import GuestError
from vmtests.text import printable

if TYPE_CHECKING:
    _Spawn = SocketSpawn[bytes]
else:
    _Spawn = SocketSpawn

LINE_LIMIT = 1 << 20
"""Bytes that a guest may write without a line end."""

_READ = 4096
# pexpect looks at the last `searchwindowsize` bytes only, so the window must be larger than one read.
_WINDOW = 4 * _READ
_SEND_SECONDS = 10.0
_LEAST_WAIT = 0.001  # seconds; zero would make the socket non-blocking


class _Socket(_Spawn):
    """pexpect's socket, with its errors told apart and what is kept of a line bounded."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection, timeout=None, maxread=_READ, searchwindowsize=_WINDOW)
        self.delaybeforesend = None
        self.delayafterread = None
        self.received = 0
        self.unended = 0

    def read_nonblocking(self, size: int = 1, timeout: float | None = -1) -> bytes:
        """Read what is there; raises pexpect.EOF and pexpect.TIMEOUT, and GuestError for an endless line."""
        try:
            data = super().read_nonblocking(size, timeout)
        except BlockingIOError as error:
            raise pexpect.TIMEOUT("nothing yet") from error
        except OSError as error:
            raise pexpect.EOF("closed") from error
        self.received += len(data)
        self.unended += len(data)
        if self.unended > LINE_LIMIT:
            raise GuestError(f"the guest wrote {LINE_LIMIT} bytes to the serial line without a line end")
        return data


class SerialLine:
    """Reads lines from, and writes bytes to, a connected socket that stays its owner's.

    Every method raises GuestError as soon as the other side closes.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(_SEND_SECONDS)
        self._spawn = _Socket(connection)
        self._last = b""

    @property
    def received(self) -> int:
        """Bytes that came so far."""
        return self._spawn.received

    @property
    def partial(self) -> bytes:
        """The last bytes that came, where no line end followed yet: a prompt, for example."""
        return self._spawn.buffer[-512:]

    @property
    def last(self) -> str:
        """What the guest wrote last, for messages."""
        return printable((self.partial.strip() or self._last).decode(errors="replace"))

    def send(self, data: bytes) -> None:
        """Write; raises GuestError when the other side takes nothing for ten seconds."""
        try:
            self._spawn.send(data)
        except TimeoutError as error:
            raise GuestError("the serial line takes no input", hint="is the machine paused?") from error
        except OSError as error:
            raise self._closed() from error

    def read_line(self, timeout: float) -> bytes | None:
        """Return the next line without its end, or None when there is none after `timeout` seconds."""
        found = self._spawn.expect_exact([b"\n", pexpect.TIMEOUT, pexpect.EOF], max(timeout, _LEAST_WAIT))
        if found == 1:
            return None
        if found == 2:
            raise self._closed()
        self._spawn.unended = len(self._spawn.buffer)
        line = (self._spawn.before or b"").rstrip(b"\r")
        if line.strip():
            self._last = line
        return line

    def _closed(self) -> GuestError:
        return GuestError(f"the serial line closed; the guest's last words were {self.last!r}", hint="did QEMU end?")
