"""What became of a command in a guest, and its output, line by line, until every line has come undamaged."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

from vmtests.errors import GuestError
from vmtests.guest import wire
from vmtests.guest.wire import Nonce
from vmtests.sizes import whole

_TRIES = 3
_IDLE_ROUNDS = 20
_ROW = 16  # bytes that a row costs at least


class Ask(Protocol):
    """Calls a function of the guest's agent, and returns its answer; `useful` gets every other line."""

    def __call__(self, function: str, *arguments: str, nonce: Nonce, useful: Callable[[bytes], bool]) -> str:
        """Raise GuestError when no answer comes."""
        ...


def nonsense() -> GuestError:
    """Return the error for an answer that the agent never gives."""
    return GuestError("the guest's shell gave an answer that makes no sense")


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """An answer about a command: a word, an exit code or a size, and the outputs once it ended."""

    word: str
    number: int
    outputs: tuple[wire.Output, wire.Output] | None

    @classmethod
    def parse(cls, answer: str) -> Self:
        """Read an answer of `_vm_state`; raises GuestError."""
        try:
            word, number, *outputs = answer.split()
            described = (wire.Output.parse(outputs[:4]), wire.Output.parse(outputs[4:])) if outputs else None
            return cls(word=word, number=int(number), outputs=described)
        except ValueError as error:
            raise nonsense() from error


def fetch(ask: Ask, job: str, stream: str, output: wire.Output, limit: int) -> bytes:
    """Return what the command `job` wrote to `stream`, `o` or `e`; raises GuestError, also for over `limit` bytes."""
    if output.size == 0:
        return b""
    for _ in range(_TRIES):
        data = wire.decode(output, _rows(ask, job, stream, limit), limit)
        if data is not None:
            return data
    raise GuestError(f"the output of a command came damaged {_TRIES} times from the guest")


def _rows(ask: Ask, job: str, stream: str, limit: int) -> dict[int, bytes]:
    """Fetch the lines of an encoded output, those that came damaged again."""
    rows: dict[int, bytes] = {}
    room = 4 * limit + 4096  # hexadecimal digits with spaces are three bytes for one
    first, last = 1, limit  # more rows than bytes there cannot be
    idle = 0
    while idle < _IDLE_ROUNDS:
        nonce, before = Nonce(), len(rows)
        pattern = wire.row_pattern(nonce.tag)

        def useful(line: bytes, pattern: re.Pattern[bytes] = pattern, wanted: tuple[int, int] = (first, last)) -> bool:
            nonlocal room
            match = pattern.search(line)
            if match is None or len(match[2]) != int(match[3]) or not wanted[0] <= int(match[1]) <= wanted[1]:
                return False
            room -= max(len(match[2]), _ROW)  # also of rows that hold nothing there are not endlessly many
            if room < 0:
                raise GuestError(f"a command in the guest wrote more than {limit} bytes")
            rows[int(match[1])] = match[2]
            return True

        answer = ask("_vm_dump", job, stream, str(first), str(last), nonce=nonce, useful=useful)
        if (count := whole(answer)) is None or count > limit:
            raise nonsense()
        first, last = 1, count
        while first in rows:
            first += 1
        while last in rows:
            last -= 1
        if first > count:
            return rows
        idle = idle + 1 if len(rows) == before else 0
    raise GuestError("the output of a command does not come whole from the guest")
