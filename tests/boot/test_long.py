"""Recordings that are long, or that hold what is not theirs: little of them is read, and the verdict is the boot's."""

from collections.abc import Callable, Iterator

import pytest

from vmtests.boot import skim
from vmtests.boot.follow import Follower
from vmtests.boot.replay import explain
from vmtests.resources import fixture
from vmtests.testing import ManualClock

READY = (fixture("consoles") / "debian-cloud-ready.log").read_bytes()
PANIC = b"[    0.000000] Linux version 5.4.0\r\n[    1.000000] Kernel panic - not syncing: Fatal exception\r\n"
_LETTERS = bytes.maketrans(b"0123456789", b"ghijklmnop")  # lines that differ in digits only are taken for the same
PASTED = b"\r\nroot@guest:~# cat /var/log/console-of-yesterday\r\n" + PANIC + b"root@guest:~# "


def _dense(megabytes: int) -> Iterator[bytes]:
    """Yield a boot that is ready, and behind it lines of real consoles, each of which is another."""
    lines = [line for line in READY.splitlines() if len(line) > 20]
    yield READY
    number = 0
    for _ in range(megabytes * 4):
        chunk = bytearray()
        while len(chunk) < 1 << 18:
            chunk += b"%s %s\n" % (lines[number % len(lines)], (b"%d" % number).translate(_LETTERS))
            number += 1
        yield bytes(chunk)


def test_of_dense_text_little_is_read() -> None:
    """Where every line holds words that matter, and none is like another, what is passed on does not grow with it."""
    few, many = (sum(map(len, skim.Skim(_dense(megabytes)))) for megabytes in (4, 12))
    assert few < 3 << 20
    assert many - few < 1 << 19


def test_a_line_of_a_hundred_megabytes_is_no_burden() -> None:
    """Of a line without an end its begin is kept, and what comes behind it counts."""
    line = [b"x" * (1 << 20)] * 100
    assert sum(map(len, skim.Skim(line))) < 4 << 20
    assert explain([READY.replace(b"\r\n", b"\n"), *line]).verdict.ready


def test_a_log_that_a_shell_shows_is_another_machines() -> None:
    """A kernel's log of another day that somebody looks at is neither a boot nor a panic of this one."""
    told = explain([READY, PASTED])
    assert (told.verdict.word, told.boots) == ("ready", 1)


def test_a_log_that_a_shell_shows_is_another_machines_live(make: Callable[..., Follower], clock: ManualClock) -> None:
    """The same on a machine that is watched; what it says itself behind the next prompt counts."""
    follower = make()
    follower.feed(READY)
    clock.advance(60.0)
    follower.feed(PASTED)
    clock.advance(10.0)
    verdict = follower.verdict
    assert verdict is not None
    assert verdict.ready
    assert follower.failure_after_ready is None
    follower.feed(b"\r\n[   99.000000] Kernel panic - not syncing: Fatal exception\r\n")
    clock.advance(10.0)
    assert follower.failure_after_ready is not None


@pytest.mark.parametrize("log", ["xfs-rhel", "openrc-ok"])
def test_two_logs_in_one_file_are_two_boots(log: str) -> None:
    """Of logs that follow one another the last counts, however the first ended."""
    data = (fixture("consoles/written") / f"{log}.log").read_bytes()
    alone = explain([data])
    told = explain([data, b"\n", data])
    assert told.verdict.word == alone.verdict.word
    assert told.boots >= alone.boots


def test_a_log_in_one_piece_is_skimmed_as_one_in_many() -> None:
    """Whoever has read a file whole gives it so."""
    data = b"".join(b"[%5d.000000] nothing in particular, %d\r\n" % (number, number) for number in range(200_000))
    shown = sum(map(len, skim.Skim([data])))
    assert shown == sum(map(len, skim.Skim(data[at : at + skim.CHUNK] for at in range(0, len(data), skim.CHUNK))))
    assert shown < len(data) / 2
