"""Floods a follower through the wires of a machine and prints, for each kind of flood, what came of it.

python -m bench.flood [--size 1G]: a process writes that many bytes to a serial port as fast as they are read. Printed
are bytes a second, the resident memory of this process after a tenth and at the end, the verdict on the boot whose
announcement comes behind the flood, and what the logs take on the disk. Nothing here needs a guest.
"""

import argparse
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from vmtests.boot.follow import Follower
from vmtests.machine.wires import Wires
from vmtests.sizes import MIB, parse_size

TOKEN = "vmtests-ready-0123456789abcdef"
START = b"EFI stub: Loaded initrd\r\nBooting initrd of Debian...\r\nSwitching root.\r\nWelcome to Debian!\r\n"
END = f"\r\n{TOKEN} running\r\n".encode()
KINDS = {
    "short lines": b"y\r\n",
    "log lines": b"".join(b"[%5d.%06d] audit: message %d of a flood\r\n" % (n, n, n) for n in range(2000)),
    "one endless line": b"x",
    "noise": random.Random(1).randbytes(MIB),
    "escape sequences": b"\x1b]0;owned\x07\x1b[31m\x1b[2J\x1b[6n",
    "quoted failures": b"echo Kernel panic - not syncing; [FAILED] Failed to mount /\r\n",
}
WRITER = """
import os, sys
unit, (end, size, port) = sys.stdin.buffer.read(), sys.argv[1:]
block, left = unit * (1048576 // len(unit) + 1), int(size)
while left > 0:
    left -= os.write(int(port), block[:left])
os.write(int(port), bytes.fromhex(end))
"""


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def flood(unit: bytes, size: int) -> str:
    """Follow one flooded boot, and return what came of it in one line."""
    taken, early = 0, 0
    dead = threading.Event()
    with tempfile.TemporaryDirectory() as results, Follower(Path(results), ready_token=TOKEN) as follower:

        def feed(data: bytes) -> None:
            nonlocal taken, early
            follower.feed(data)
            taken += len(data)
            if not early and taken > size // 10:
                early = resident()

        follower.feed(START)
        ours, theirs = socket.socketpair()
        wires = Wires(name="wires", on_dead=dead.set)
        wires.add_port(ours, feed)
        wires.start()
        begin = time.monotonic()
        with theirs:
            subprocess.run(
                [sys.executable, "-c", WRITER, END.hex(), str(size), str(theirs.fileno())],
                input=unit, pass_fds=[theirs.fileno()], check=True,
            )  # fmt: skip
        verdict = follower.wait_verdict()
        seconds = time.monotonic() - begin
        dead.wait()
        late = resident()
        kept = sum(path.stat().st_size for path in Path(results).iterdir())
    memory = f"memory {early / MIB:.1f} -> {late / MIB:.1f} MiB"
    speed = f"{size / seconds / 1e6:6.1f} MB/s"
    return (
        f"{speed}  {memory}  logs {kept / MIB:.0f} MiB  {'ready' if verdict.ready else 'failed'}: {verdict.sentence}"
    )


def main() -> None:
    """Run every kind."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--size", default="1G")
    parser.add_argument("kinds", nargs="*", choices=[*KINDS, []])
    arguments = parser.parse_args()
    size = parse_size(arguments.size)
    for name in arguments.kinds or KINDS:
        print(f"{name:>17}  {flood(KINDS[name], size)}", flush=True)


if __name__ == "__main__":
    main()
