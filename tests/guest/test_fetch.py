"""The output of a command is fetched row by row, from a guest that may send any."""

import itertools
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from vmtests.errors import GuestError
from vmtests.guest import fetch
from vmtests.guest.wire import Encoding, Nonce, Output

OUTPUT = Output(encoding=next(iter(Encoding)), size=10, checksum=1, encoded_size=10)


@pytest.mark.parametrize(
    "rows",
    [
        lambda: (b"%d::0." % number for number in itertools.cycle(range(1, 101))),
        lambda: (b"1:AAAA:4." for _ in itertools.count()),
        lambda: (b"%d:%s:1000." % (number, b"A" * 1000) for number in itertools.cycle(range(1, 101))),
    ],
    ids=["empty", "the same", "large"],
)
def test_rows_without_end_are_given_up(rows: Callable[[], Iterator[bytes]]) -> None:
    """A guest that goes on sending them costs neither memory nor time."""
    sent = 0

    def ask(function: str, *arguments: str, nonce: Nonce, useful: Callable[[bytes], bool]) -> str:
        nonlocal sent
        for row in rows():
            sent += 1
            useful(f"{nonce.tag}@".encode() + row)
        return "1"

    with pytest.raises(GuestError, match="wrote more than 100 bytes"):
        fetch.fetch(ask, "1", "o", OUTPUT, 100)
    assert sent < 1000


def test_count_of_rows_that_there_are_not_costs_nothing() -> None:
    """A guest may say that there are as many as there can be."""

    def ask(function: str, *arguments: str, nonce: Nonce, useful: Callable[[bytes], bool]) -> str:
        return str(16 << 20)

    tracemalloc.start()
    with pytest.raises(GuestError, match="does not come whole"):
        fetch.fetch(ask, "1", "o", OUTPUT, 16 << 20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_rows_that_were_not_asked_for_are_none() -> None:
    """Those that are kept are among those that there can be."""
    taken: list[bool] = []

    def ask(function: str, *arguments: str, nonce: Nonce, useful: Callable[[bytes], bool]) -> str:
        taken.extend(useful(f"{nonce.tag}@{number}:AAAA:4.".encode()) for number in (0, 1, 100, 101, 999_999_999))
        return "1"

    with pytest.raises(GuestError):
        fetch.fetch(ask, "1", "o", OUTPUT, 100)
    assert [False, True, True, False, False] == taken[:5]
