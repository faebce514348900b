"""What a guest whose boot failed can still tell, asked in whatever shell it has.

Each item is a shell command and the file that its output goes to. A stage-1 shell lacks most programs, so every
command tries the best first and ends with something that even busybox has.
"""

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vmtests.errors import GuestError
from vmtests.guest.inits import SHOWN
from vmtests.guest.line import SerialLine
from vmtests.guest.result import OUTPUT_LIMIT, Result
from vmtests.guest.wire import Nonce
from vmtests.sizes import MIB, whole
from vmtests.text import printable


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A file of the diagnosis, the command that fills it, and how many bytes it may have."""

    file: str
    command: str
    limit: int = MIB


# The whole journal comes last: it is the largest, and the time may be up before it has come.
ITEMS = (
    Item(file="failed-units.txt", command="systemctl --failed --full --no-pager --no-legend"),
    Item(file="jobs.txt", command="systemctl list-jobs --full --no-pager"),
    Item(file="mounts.txt", command="findmnt -A || cat /proc/self/mountinfo"),
    Item(file="mountinfo.txt", command="cat /proc/self/mountinfo"),
    Item(
        file="block-devices.txt",
        command="cat /proc/partitions; blkid; lsblk -o NAME,SIZE,TYPE,FSTYPE,LABEL,PARTLABEL,UUID,MOUNTPOINTS; "
        "ls -l /dev/disk/by-partlabel /dev/disk/by-label",
    ),
    Item(file="cmdline.txt", command="cat /proc/cmdline"),
    Item(file="modules.txt", command="cat /proc/modules"),
    Item(
        file="failed-units-status.txt",
        command="systemctl status --full --no-pager -n 30 $(systemctl --failed --plain --no-legend | cut -d ' ' -f 1)",
    ),
    Item(file="units.txt", command=SHOWN),
    Item(file="dmesg.txt", command="dmesg"),
    Item(file="journal.txt", command="journalctl -b -o short-monotonic --no-hostname --no-pager -n 2000"),
    Item(file="journal.export", command="journalctl -b -o export --no-pager", limit=32 * MIB),
)


class Shell(Protocol):
    """A root shell."""

    def run(self, command: str, /, timeout: float = ..., *, limit: int = ...) -> Result:
        """Run a command; raises GuestError when the guest does not answer or writes more than `limit` bytes."""


class PlainShell:
    """Runs commands at a prompt and takes their output as the line carries it: for guests without any tool to encode.

    The kernel's messages may be in between, and bytes that are no text may be lost. `connection` is a socket on a
    serial line at which `SerialShell.login` has found a shell.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._line = SerialLine(connection)

    def run(self, command: str, /, timeout: float = 60.0, *, limit: int = OUTPUT_LIMIT) -> Result:
        """Run a command; `stdout` has both its outputs. Raises GuestError when its end does not come in time."""
        begin, end = Nonce(), Nonce()
        typed = (
            f"printf '\\n%s%s\\n' {' '.join(begin.halves)}; {{ {command}; }} 2>&1; "
            f"printf '\\n%s%s %s\\n' {' '.join(end.halves)} $?\n"
        )
        started = time.monotonic()
        self._line.send(typed.encode())
        lines: list[bytes] | None = None
        size = 0
        while (left := timeout - (time.monotonic() - started)) > 0:
            if (line := self._line.read_line(left)) is None:
                break
            if begin.tag.encode() in line:
                lines = []
            elif end.tag.encode() in line and lines is not None:
                code = whole(line.rpartition(b" ")[2].strip().decode("ascii", "replace"))
                return Result.of(
                    command,
                    stdout=b"\n".join(lines).strip(b"\n") + b"\n",
                    stderr=b"",
                    exit_code=1 if code is None else code,
                    duration=time.monotonic() - started,
                )
            elif lines is not None and (size := size + len(line)) <= limit:
                lines.append(line)
        raise GuestError(f"the end of {printable(command, 40)!r} did not come in {timeout:.0f} s")


def gather(shell: Shell, directory: Path, deadline: float) -> Iterator[tuple[str, str]]:
    """Fill `directory`, until `time.monotonic()` passes the deadline; yield each file and what became of it."""
    for item in ITEMS:
        left = deadline - time.monotonic()
        if left <= 0:
            yield item.file, "the time was up"
            continue
        try:
            result = shell.run(item.command, left, limit=item.limit)
        except GuestError as error:
            yield item.file, error.message
            continue
        if not result.stdout_bytes.strip():
            first = result.stderr.strip().splitlines()[:1]
            yield item.file, f"empty{f': {first[0]}' if first else ''}"
            continue
        try:
            (directory / item.file).write_bytes(result.stdout_bytes)
        except OSError as error:
            yield item.file, f"cannot be written: {error.strerror}"
            continue
        yield item.file, f"{len(result.stdout_bytes)} bytes"
