"""A guest that writes without end: memory and results stay small, and the verdict is the right one."""

import os
import random
import socket
import threading
from pathlib import Path

import pytest

from tests.boot.consoles import GOOD_BOOT
from vmtests.boot.follow import Follower
from vmtests.machine.wires import Wires
from vmtests.testing import ManualClock

MEGABYTES = int(os.environ.get("FLOOD_MEGABYTES", "2"))
"""Of each flood; 512 of the two make a gigabyte."""
TOKEN = "vmtests-ready-0123456789abcdef"
_CHUNK = 1 << 20
_MEMORY = 64 << 20
_RESULTS = 6
"""Bytes that are kept of one; each log has its limit (`boot.console`)."""
_LINES = b"".join(
    b"%d <script>alert(1)</script> \x1b]0;owned\x07\x1b[2J vmtests-ready-fedcba9876543210 running\r\n" % number
    for number in range(12_000)
)[:_CHUNK]
_NOISE = random.Random(1).randbytes(_CHUNK)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("flood", [_LINES, _NOISE], ids=["lines", "noise"])
def test_gigabyte_from_a_guest_costs_neither_memory_nor_the_verdict(tmp_path: Path, flood: bytes) -> None:
    """Through the port that QEMU's serial line is: escape sequences, HTML and forged marks, then the real one."""
    clock, peak = ManualClock(), 0
    ours, theirs = socket.socketpair()
    with Follower(tmp_path, clock=clock, power_on=clock.now, load=lambda: 1.0, ready_token=TOKEN) as follower, theirs:
        wires = Wires(name="flood", on_dead=lambda: None)
        wires.add_port(ours, follower.feed)
        wires.start()

        def write() -> None:
            theirs.sendall(GOOD_BOOT[: len(GOOD_BOOT) // 2])
            for _ in range(MEGABYTES):
                theirs.sendall(flood)
            theirs.sendall(b"\r\n" + TOKEN.encode() + b" running\r\n")
            theirs.shutdown(socket.SHUT_RDWR)

        writer = threading.Thread(target=write)
        theirs.sendall(flood)
        before = _resident()
        writer.start()
        while writer.is_alive():
            writer.join(0.2)
            peak = max(peak, _resident())
        wires.join()
        verdict = follower.verdict
    assert verdict is not None
    assert verdict.ready
    kept = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    print(f"{MEGABYTES} MB: {(peak - before) >> 20} MiB more memory, {kept >> 20} MiB of results")
    assert peak - before < _MEMORY
    assert kept < _RESULTS * (MEGABYTES + 1) * _CHUNK
