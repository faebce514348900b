"""What a command in the guest gave, and what can go wrong while one runs."""

from dataclasses import dataclass, field
from typing import Protocol, Self

from vmtests.errors import GuestError
from vmtests.text import printable

OUTPUT_LIMIT = 16 << 20
"""Bytes of each output stream of one command that are taken from a guest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A command that ended in the guest.

    `stdout` and `stderr` are decoded as UTF-8, with U+FFFD for what is none; `stdout_bytes` is exact.
    `exit_code` is that of the shell: 128 + n when signal n killed the command. `duration` is in seconds on
    the host's clock.
    """

    command: str
    stdout: str
    stderr: str
    exit_code: int
    duration: float
    stdout_bytes: bytes = field(default=b"", repr=False)

    @classmethod
    def of(cls, command: str, *, stdout: bytes, stderr: bytes, exit_code: int, duration: float) -> Self:
        """Make a result of what the command wrote, as bytes."""
        return cls(
            command=command,
            stdout=stdout.decode(errors="replace"),
            stderr=stderr.decode(errors="replace"),
            exit_code=exit_code,
            duration=duration,
            stdout_bytes=stdout,
        )

    @property
    def ok(self) -> bool:
        """Whether the exit code is zero."""
        return self.exit_code == 0

    @property
    def lines(self) -> list[str]:
        """The lines of `stdout`, which only a newline ends (`str.splitlines` knows ten other characters)."""
        lines = self.stdout.split("\n")
        return lines if lines[-1] else lines[:-1]

    def check(self) -> Self:
        """Return the result itself; raises GuestError with the last line of `stderr` unless it is `ok`."""
        if self.ok:
            return self
        said = [line for line in self.stderr.split("\n") if line.strip()]
        last = printable(said[-1].strip()) if said else "nothing on standard error"
        raise GuestError(f"{printable(self.command)!r} ended with {self.exit_code} in the guest: {last}")


class GuestTimeout(GuestError, TimeoutError):  # noqa: N818 - what happened is a timeout
    """A command did not end within `seconds`; `stdout` and `stderr` hold what it had written until then.

    It is a TimeoutError, too.
    """

    def __init__(
        self, command: str, seconds: float, *, stdout: bytes = b"", stderr: bytes = b"", note: str = ""
    ) -> None:
        self.command = command
        self.seconds = seconds
        self.stdout = stdout.decode(errors="replace")
        self.stderr = stderr.decode(errors="replace")
        said = [line for line in (self.stderr or self.stdout).split("\n") if line.strip()]
        last = f"its last line was {printable(said[-1].strip())!r}" if said else "it had written nothing"
        super().__init__(f"{printable(command)!r} did not end within {seconds:g} s in the guest{note}; {last}")


class Runner(Protocol):
    """Whatever runs shell commands in a guest: the serial shell, ssh, a machine."""

    def run(self, command: str, /) -> Result:
        """Run a command to its end; raises GuestError when the guest does not answer."""
        ...
