"""Consoles that mean harm: the verdict is right or says that it cannot tell, memory is flat, and time is linear."""

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vmtests.boot.console import ConsoleLog, Line
from vmtests.boot.follow import Follower
from vmtests.boot.stages import MATCH_LIMIT, Stage
from vmtests.boot.verdict import Cause
from vmtests.testing import ManualClock

from .consoles import IN_INITRD

TOKEN = "vmtests-ready-0123456789abcdef"
MACHINE_UP = IN_INITRD + b"Welcome to Debian GNU/Linux 13 (trixie)!\r\n"
GREETING = b"\r\n" + TOKEN.encode() + b" hello\r\n"
READY = b"\r\n" + TOKEN.encode() + b" running\r\n"
SIZE = 9_000
FLOODS = {
    "short lines": b"y\r\n",
    "counted lines": b"".join(b"line %d of a flood\r\n" % number for number in range(500)),
    "a line of 2 MB": b"x" * 2_000_000,
    "binary noise": random.Random(1).randbytes(SIZE),
    "escape sequences": b"\x1b]0;owned\x07\x1b[31m\x1b[2J\x1b[6n",
    "escapes without an end": b"\x1b]\x1bP\x1b[",
    "half characters": b"\xe2\x82\xf0\x9f",
    "started jobs": b"".join(b"         Starting job %d...\r\n" % number for number in range(400)),
    "cut names": b"".join("         Starting u…%d...\r\n".encode() % number for number in range(400)),
    "units": b"".join(b"u%d.service: Changed dead -> start\r\n" % number for number in range(400)),
    "quoted failures": b"echo Kernel panic - not syncing; [FAILED] Failed to mount /; grub> \r\n",
}


def _flood(name: str, size: int) -> bytes:
    unit = FLOODS[name]
    return unit if len(unit) > size else (unit * (size // len(unit) + 1))[:size]


def _in_pieces(follower: Follower, data: bytes) -> None:
    for start in range(0, len(data), 4096):
        follower.feed(data[start : start + 4096])


@pytest.mark.parametrize("name", FLOODS)
def test_flooded_boot_is_ready_all_the_same(make: Callable[..., Follower], name: str) -> None:
    """The announcement is heard after, and in the middle of, whatever a service writes on the console."""
    follower = make(ready_token=TOKEN)
    follower.feed(MACHINE_UP + GREETING)
    _in_pieces(follower, _flood(name, SIZE))
    assert None is follower.verdict
    follower.feed(READY + _flood(name, 1000))
    verdict = follower.verdict
    assert verdict is not None
    assert (True, Stage.READY) == (verdict.ready, verdict.stage)


def test_memory_is_flat(make: Callable[..., Follower]) -> None:
    """Once the limits are reached, more of every kind of flood takes no more memory."""
    follower = make(ready_token=TOKEN)
    follower.feed(MACHINE_UP)
    sizes = []
    for _ in range(3):
        for name in FLOODS:
            _in_pieces(follower, _flood(name, SIZE // 4))
        statm = Path("/proc/self/statm").read_text(encoding="utf-8").split()
        sizes.append(int(statm[1]) * os.sysconf("SC_PAGE_SIZE"))
    assert sizes[-1] - sizes[0] < 3_000_000


@pytest.mark.parametrize("name", FLOODS)
def test_time_is_linear(make: Callable[..., Follower], name: str) -> None:
    """The last quarter of a flood takes no longer than the first; a noisy host is not noisy three times."""
    flood = _flood(name, SIZE)
    quarter = len(flood) // 4

    def ratio() -> float:
        follower = make(ready_token=TOKEN)
        follower.feed(MACHINE_UP)
        seconds = []
        for start in range(0, 4 * quarter, quarter):
            begin = time.thread_time()
            _in_pieces(follower, flood[start : start + quarter])
            seconds.append(time.thread_time() - begin)
        return seconds[-1] / max(min(seconds[:2]), 0.002)

    assert any(ratio() < 5 for _ in range(3))


def test_stage_lines_of_a_guest_that_greeted_make_no_ready(make: Callable[..., Follower], clock: ManualClock) -> None:
    """Once a guest has greeted, only its announcement counts: what looks like the end may be any program's words."""
    follower = make(ready_token=TOKEN)
    follower.feed(MACHINE_UP + GREETING)
    follower.feed(b"[  OK  ] Reached target multi-user.target - Multi-User System.\r\nhost login: ")
    follower.feed(b"\r\nvmtests-ready-fedcba9876543210 running\r\n")
    clock.advance(40.0)
    assert None is follower.verdict
    follower.feed(READY)
    verdict = follower.verdict
    assert verdict is not None
    assert verdict.ready


def test_quiet_guest_is_where_it_greets_from(make: Callable[..., Follower]) -> None:
    """With `quiet` the greetings alone tell stage 1 from the system; an older guest's does not say which it is."""
    for said, stage in ((b" hello", Stage.INITRD), (b" hello from initrd", Stage.INITRD)):
        follower = make(ready_token=TOKEN)
        follower.feed(b"Booting `Debian GNU/Linux'\r\n\r\n" + TOKEN.encode() + said + b"\r\n")
        assert stage is follower.stage
        follower.feed(b"\r\n" + TOKEN.encode() + b" hello from userspace\r\n")
        assert (Stage.USERSPACE, None) == (follower.stage, follower.verdict)


def test_announcement_that_is_only_quoted_does_not_count(make: Callable[..., Follower], clock: ManualClock) -> None:
    """A manager that shows the command which it runs has not run it: the token is in two parts there."""
    follower = make(ready_token=TOKEN)
    first, rest = TOKEN[:15], TOKEN[15:]
    follower.feed(MACHINE_UP + GREETING)
    follower.feed(f'announce.service: About to execute: /bin/sh -c "printf %s%s {first} {rest} running"\r\n'.encode())
    follower.feed(f"{TOKEN} $state\r\n".encode())
    clock.advance(1.0)
    assert None is follower.verdict


def test_forged_restart_and_stages_do_not_move_a_boot_back(make: Callable[..., Follower]) -> None:
    """Lines of earlier stages are lines like any other in a later one."""
    follower = make(ready_token=TOKEN)
    follower.feed(MACHINE_UP + b"EFI stub: Loaded initrd\r\nBooting initrd of Debian...\r\nSwitching root.\r\n")
    assert Stage.USERSPACE is follower.stage
    assert None is follower.verdict


@pytest.mark.parametrize(
    "line",
    [
        "bash-5.2# echo Kernel panic - not syncing: Fatal exception",
        "Starting panic.service - Kernel panic - not syncing...",
        "logger: [FAILED] Failed to mount sysroot.mount - /sysroot.",
        "cat[77]: You are in emergency mode.",
        "audit: Out of memory: Killed process 1 (init)",
        "MESSAGE=Kernel panic - not syncing: Attempted to kill init!",
        "  error: file `/boot/x' not found.",
        "grep 'BdsDxe: No bootable option or device was found' log",
    ],
)
@pytest.mark.parametrize("stage", [IN_INITRD, MACHINE_UP])
def test_quoted_failure_is_none(make: Callable[..., Follower], clock: ManualClock, stage: bytes, line: str) -> None:
    """A line that quotes a failure, and a unit that is named like one, end no boot."""
    follower = make(ready_token=TOKEN)
    follower.feed(stage + line.encode() + b"\r\n")
    clock.advance(5.0)
    assert None is follower.verdict


def test_panic_without_the_kernels_stamp_is_a_programs(make: Callable[..., Follower], clock: ManualClock) -> None:
    """Of a kernel that stamps its lines, a line without a stamp is not the kernel's."""
    follower = make()
    follower.feed(b"[    0.000000] Linux version 6.12.1\r\n" + MACHINE_UP)
    follower.feed(b"Kernel panic - not syncing: says a program\r\n")
    clock.advance(5.0)
    assert None is follower.verdict
    follower.feed(b"[   12.345678] Kernel panic - not syncing: Fatal exception\r\n")
    clock.advance(2.0)
    verdict = follower.verdict
    assert verdict is not None
    assert Cause.KERNEL_PANIC is verdict.cause


@pytest.mark.parametrize("name", FLOODS)
def test_nothing_that_is_shown_can_act_on_a_terminal(make: Callable[..., Follower], name: str) -> None:
    """Lines, the pulse and the verdict have printable characters only, and are not long."""
    follower = make()
    follower.feed(IN_INITRD)
    _in_pieces(follower, _flood(name, 3_000))
    verdict = follower.wait_verdict()
    shown = [str(follower.pulse), verdict.sentence, *(item.text for item in verdict.evidence)]
    assert all(text.isprintable() for text in (*shown, *(line.text for line in follower.lines)))
    assert max(map(len, shown)) < MATCH_LIMIT


def test_flood_does_not_fill_the_disk(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A log that has reached its limit is closed with one event, and the boot is followed on."""
    directory = tmp_path_factory.mktemp("results")
    with ConsoleLog(directory, limit=100_000) as log:
        for number in range(5000):
            log.raw(b"y\r\n" * 100)
            log.add([Line(t=float(number), text="y", stage=Stage.USERSPACE)], boot=1)
        errors = [log.take_error() for _ in range(3)]
    assert 2 == len([error for error in errors if error is not None])
    assert max(path.stat().st_size for path in directory.iterdir()) <= 100_000
