"""Forks a booted machine again and again: time to the first command's answer, and private memory of each.

    bench/fork.py -n 500            one after the other
    bench/fork.py -n 10 --alive 100 and then so many at once, each asked for its own nonce
    bench/fork.py --json            one JSON line and nothing else

`boot_over_fork` is the cold boot behind the snapshot over the median of the forks. Exit status 1 when an answer was
wrong, two forks drew the same random number, a clock was more than a second off, or something was left over.
"""

import argparse
import json
import os
import secrets
import statistics
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from vmtests.boot.stages import Stage
from vmtests.errors import VmtestsError
from vmtests.host.results import new_directory
from vmtests.qemu.lab import Lab
from vmtests.qemu.snapshots import Snapshot
from vmtests.qemu.vm import QemuVm
from vmtests.sizes import MIB
from vmtests.vm import Image

CLOCK_LIMIT = 1.0
_FIRST = "echo {nonce}"
_THEN = "cat /proc/sys/kernel/random/uuid; date +%s.%N"


@dataclass(slots=True)
class Answers:
    """What the forks said."""

    seconds: list[float] = field(default_factory=list)
    uuids: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def ask(self, vm: QemuVm) -> None:
        """Ask a fork for its own nonce."""
        nonce = secrets.token_hex(8)
        lines = vm.run(_FIRST.format(nonce=nonce)).lines
        if lines != [nonce]:
            self.wrong.append(f"{nonce}: {lines}")

    def draw(self, vm: QemuVm) -> None:
        """Ask a fork for a random number and the time."""
        before = time.time()
        lines = vm.run(_THEN).lines
        if len(lines) != 2 or lines[0] in self.uuids:
            self.wrong.append(f"{vm.results.name}: {lines}")
            return
        self.uuids.append(lines[0])
        if not before - CLOCK_LIMIT < float(lines[1]) < time.time() + CLOCK_LIMIT:
            self.wrong.append(f"{vm.results.name}: the clock says {lines[1]}, the host {before}")


def main() -> int:
    """Run the forks."""
    parser = argparse.ArgumentParser(description="Fork a booted machine again and again.")
    parser.add_argument("-n", type=int, default=50, metavar="N", help="forks in a row (default: %(default)s)")
    parser.add_argument("--alive", type=int, default=10, metavar="N", help="forks at once (default: %(default)s)")
    parser.add_argument("--image", default="reference", help="`reference`, or the path of a disk image")
    parser.add_argument("--accel", choices=("auto", "kvm", "tcg"), default="auto")
    parser.add_argument("--results", type=Path, metavar="DIR")
    parser.add_argument("--json", action="store_true", help="print the JSON line only")
    arguments = parser.parse_args()
    with Lab(lambda: new_directory(arguments.results), accelerator=arguments.accel) as lab:
        image = lab.image(arguments.image)
        with lab.start(image) as start:
            snapshot = start.wait()
            boot = start.vm.timeline.starts[Stage.READY]
            answers = Answers()
            _warm(lab, image, snapshot)
            before = _mine()
            for number in range(arguments.n):
                since = time.monotonic()
                with lab.fork(image, snapshot, name=f"fork-{number}") as fork:
                    answers.ask(fork)
                    answers.seconds.append(time.monotonic() - since)
                    answers.draw(fork)
                if not arguments.json:
                    print(f"{number + 1:4} {answers.seconds[-1]:6.3f} s", flush=True)
            private = _many(lab, image, snapshot, answers, arguments.alive, quiet=arguments.json)
            lab.pool.close()
            left = _mine() - before
    median = statistics.median(answers.seconds)
    for wrong in answers.wrong:
        print(f"fork: {wrong}", file=sys.stderr)
    for name in sorted(left):
        print(f"fork: left over: {name}", file=sys.stderr)
    print(
        json.dumps(
            {
                "forks": arguments.n,
                "fork_median_s": round(median, 3),
                "fork_p95_s": round(sorted(answers.seconds)[int(0.95 * (arguments.n - 1))], 3),
                "boot_s": round(boot, 1),
                "boot_over_fork": round(boot / median, 1),
                "alive": arguments.alive,
                "private_mb": round(statistics.median(private), 1),
                "private_most_mb": round(max(private), 1),
                "wrong": len(answers.wrong),
                "left_over": len(left),
            }
        )
    )
    return 1 if answers.wrong or left else 0


def _warm(lab: Lab, image: Image, snapshot: Snapshot) -> None:
    with lab.fork(image, snapshot, name="warm") as fork:
        fork.run("true").check()
    lab.pool.close()


def _many(lab: Lab, image: Image, snapshot: Snapshot, answers: Answers, number: int, *, quiet: bool) -> list[float]:
    """Keep so many forks alive, ask each, and return the private megabytes that each has when all have answered."""
    others = _qemus(snapshot)
    with ExitStack() as stack:
        forks = []
        for alive in range(number):
            forks.append(stack.enter_context(lab.fork(image, snapshot, name=f"alive-{alive}")))
            if not quiet:
                print(f"{alive + 1:4} alive", flush=True)
        for fork in forks:
            answers.ask(fork)
        private = [_private(pid) for pid in _qemus(snapshot) - others]
        for fork in forks:
            answers.draw(fork)
            if not quiet:
                print(f"{fork.results.name}: {answers.uuids[-1]}", flush=True)
        return private


def _qemus(snapshot: Snapshot) -> set[int]:
    """Return the processes that map the snapshot's memory, which the sandboxes around them do not."""
    found = set()
    for pid in descendants():
        try:
            if str(snapshot.template.ram) in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8"):
                found.add(pid)
        except OSError:  # it has just ended
            continue
    return found


def _private(pid: int) -> float:
    """Return the memory that a process alone has written to, in megabytes (proc(5), smaps_rollup).

    What is clean is the page cache's: the snapshot's memory and programs, of which nobody has a copy of their own.
    """
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    kilobytes = sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty"))
    return kilobytes * 1024 / MIB


def descendants() -> list[int]:
    """Return the processes that came of this one."""
    found, todo = [], [os.getpid()]
    while todo:
        pid = todo.pop()
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            children = [int(child) for child in task.read_text().split()]
            found += children
            todo += children
    return found


def _mine() -> set[str]:
    """Name what this process has open, and its processes and threads."""
    files = {str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}
    threads = len(list(Path("/proc/self/task").iterdir()))
    return files | {f"thread {number}" for number in range(threads)} | {f"process {pid}" for pid in descendants()}


if __name__ == "__main__":
    try:
        sys.exit(main())
    except VmtestsError as error:
        sys.exit(f"fork: {error}")
