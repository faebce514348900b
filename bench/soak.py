"""Does the same again and again, and says what grew: memory, open files, threads, processes, the cache.

    python -m bench.soak forks -n 1000     a kept machine is forked, and each fork asked for its own nonce
    python -m bench.soak boots -n 100      the reference image is booted, cold
    python -m bench.soak polls --hours 24  an instance on the emulator that says a line each minute is followed for as
                                           many polls of its serial port as that takes; it only says that it boots

What there is after each tenth, a line each, and a JSON line at the end. Exit status 1 when something went wrong, or
the least of the second half is more than the least of the first: a file, thread or process, 16 MiB of memory, 1 MiB of
the cache (which other runs have to leave alone). The least, since the next machine may just be made.
"""

import argparse
import gc
import json
import os
import secrets
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.fork import descendants
from vmtests.emulator import Emulator
from vmtests.emulator.fake import FakeHypervisor
from vmtests.errors import VmtestsError
from vmtests.gce.lab import GceLab
from vmtests.gce.serialport import Chunk, PollPace
from vmtests.gce.settings import Settings
from vmtests.host.results import new_directory
from vmtests.qemu.lab import Lab
from vmtests.resources import cache_dir, fixture
from vmtests.sizes import MIB

_MEMORY_MB, _CACHE_MB = 16, 1
_PACE = PollPace()
_WAIT = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What there is, after so many times; megabytes are of 2**20 bytes."""

    done: int
    memory_mb: float
    files: int
    threads: int
    processes: int
    cache_mb: float

    @classmethod
    def take(cls, done: int) -> "Sample":
        """Look at this process and at the cache."""
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
        cache = 0
        for directory, _, names in os.walk(cache_dir()):
            for name in names:
                try:
                    cache += Path(directory, name).lstat().st_blocks * 512
                except FileNotFoundError:  # it has just been removed
                    continue
        return cls(
            done=done,
            memory_mb=round(pages * os.sysconf("SC_PAGE_SIZE") / MIB, 1),
            files=len(list(Path("/proc/self/fd").iterdir())),
            threads=len(list(Path("/proc/self/task").iterdir())),
            processes=len(descendants()),
            cache_mb=round(cache / MIB, 1),
        )


def growth(samples: list[Sample]) -> list[str]:
    """Name what there is more of in the second half than in the first, by the least of each."""
    most = {"memory_mb": _MEMORY_MB, "cache_mb": _CACHE_MB}
    rows = [asdict(sample) for sample in samples]
    early, late = rows[: len(rows) // 2], rows[len(rows) // 2 :]

    def more(name: str) -> float:
        return float(min(row[name] for row in late) - min(row[name] for row in early))

    return [name for name in rows[0] if name != "done" and more(name) > most.get(name, 0)]


def forks(arguments: argparse.Namespace) -> Iterator[None]:
    """Fork a kept machine."""
    with Lab(lambda: new_directory(arguments.results)) as lab:
        image = lab.image("reference")
        with lab.start(image) as start:
            snapshot = start.wait()
            for number in range(arguments.n):
                nonce = secrets.token_hex(8)
                with lab.fork(image, snapshot, name=f"fork-{number}") as vm:
                    if vm.run(f"echo {nonce}").lines != [nonce]:
                        sys.exit(f"soak: fork {number} answers something else")
                yield


def boots(arguments: argparse.Namespace) -> Iterator[None]:
    """Boot cold."""
    with Lab(lambda: new_directory(arguments.results)) as lab:
        image = lab.image("reference")
        for number in range(arguments.n):
            with lab.machine(image, name=f"boot-{number}") as vm:
                if not (verdict := vm.wait_verdict()).ready:
                    sys.exit(f"soak: boot {number}: {verdict.stage}: {verdict.sentence}")
            yield


def polls(arguments: argparse.Namespace) -> Iterator[None]:
    """Follow an instance; every minute counts as one."""
    hypervisor = FakeHypervisor(boot=lambda _: fixture("consoles/debian-cloud-ready.log").read_bytes())
    with (
        Emulator(hypervisor=hypervisor) as emulator,
        GceLab(
            lambda: new_directory(arguments.results),
            Settings.find(endpoint=emulator.endpoint),
            poll_pace=PollPace(busy=0.002, quiet=0.002),
            lifetime=24 * 3600,
        ) as lab,
        lab.machine(lab.image("reference")) as vm,
    ):
        (machine,) = hypervisor.machines.values()
        machine.host.serial(1, f"\r\n{vm._token} running\r\n".encode())  # noqa: SLF001
        vm.wait_ready()
        serial, asked = vm.instance.serial, threading.Semaphore(0)

        def counted(start: int = 0, port: int = 1) -> Chunk:
            asked.release()
            return serial(start, port)

        vm.instance.serial = counted  # type: ignore[method-assign]
        for minute in range(arguments.n):
            line = f"[{60 * minute}.000000] the guest says something in minute {minute}"
            while asked.acquire(blocking=False):
                pass  # those of the time in which nobody looked
            machine.host.serial(1, f"{line}\r\n".encode())
            for _ in range(_polls_a_minute()):
                if not asked.acquire(timeout=_WAIT):
                    sys.exit(f"soak: nobody has asked for {_WAIT:.0f} s, in minute {minute}")
            if vm.console[-1].text != line:
                sys.exit(f"soak: minute {minute} was not heard: {vm.console[-1].text}")
            yield


def _polls_a_minute() -> int:
    """Return how often the port of a guest that says a line a minute is asked for in that time."""
    count, pause, left = 1, _PACE.busy, 60.0
    while (left := left - pause) > 0:
        count, pause = count + 1, min(1.5 * pause, _PACE.quiet)
    return count


def main() -> int:
    """Run one of them."""
    parser = argparse.ArgumentParser(description="Do the same again and again, and say what grew.")
    parser.add_argument("what", choices=("forks", "boots", "polls"))
    parser.add_argument("-n", type=int, default=100, metavar="N", help="how often (default: %(default)s)")
    parser.add_argument("--hours", type=int, metavar="N", help="polls: of so many hours, which are 60 N minutes")
    parser.add_argument("--results", type=Path, metavar="DIR")
    arguments = parser.parse_args()
    arguments.n = arguments.n if arguments.hours is None else 60 * arguments.hours
    if arguments.n < 10:
        parser.error("fewer than ten tell nothing")
    began, samples = time.monotonic(), list[Sample]()
    for done, _ in enumerate({"forks": forks, "boots": boots, "polls": polls}[arguments.what](arguments), start=1):
        if done % (arguments.n // 10) == 0:
            samples.append(Sample.take(done))
            print(samples[-1], flush=True)
    grown = growth(samples)
    seconds = round(time.monotonic() - began)
    print(json.dumps({"what": arguments.what, "n": arguments.n, "seconds": seconds, "grown": grown}))
    return 1 if grown else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except VmtestsError as error:
        sys.exit(f"soak: {error}")
