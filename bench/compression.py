"""Compares ways to compress the store: size, build, boot, and random reads, of the reference image and of some bloat.

    bench/compression.py --runs runs.jsonl --boot            each way once, a JSON line each
    bench/compression.py --runs runs.jsonl --ways "" --write docs/building.md

Reads are of 4 KiB at 4,000 random places, through this host's kernel from a mount of the store, whose pages nobody has
read; what is under it is in memory, so that they cost what unpacking costs. They need root.
"""

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vmtests.sizes import GIB, MIB

WAYS = (
    "none",
    "lz4",
    "lz4hc,level=12,cluster=64K",
    "zstd,level=3,cluster=64K",
    "zstd,level=3,cluster=64K,dedupe,fragments",
    "zstd,level=15,cluster=128K",
    "lzma,level=6,cluster=128K",
)
READS, READ = 4000, 4096
_PLACE = re.compile(r"(?<=<!-- bench compression -->\n).*?(?=<!-- /bench compression -->)", re.DOTALL)
_VMTESTS = (sys.executable, "-m", "vmtests.cli")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A way, once: bytes of the store, and seconds to write it, to boot, and for all reads; 0 is not measured.

    Where mkfs.erofs did not make the store, `refused` is what the build said of it.
    """

    image: str
    way: str
    size: int = 0
    build_s: float = 0
    boot_s: float = 0
    reads_s: float = 0
    refused: str = ""


def main() -> int:
    """Run them."""
    parser = argparse.ArgumentParser(description="Compare ways to compress the store.")
    parser.add_argument("--ways", default=" ".join(WAYS), metavar="'WAY WAY'", help="which (default: %(default)s)")
    parser.add_argument("--bloat", metavar="SIZE", help="with this much bloat in the image")
    parser.add_argument("--boot", action="store_true", help="boot each, too")
    parser.add_argument("--runs", type=Path, required=True, metavar="FILE", help="add each run to this file")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write what is in --runs into this page")
    arguments = parser.parse_args()
    modules = ("--module", f"bloat:{arguments.bloat}") if arguments.bloat else ()
    for way in arguments.ways.split():
        with tempfile.TemporaryDirectory(prefix="vmtests-bench-") as made:
            run = measure(way, modules, Path(made), boots=arguments.boot)
        with arguments.runs.open("a") as file:
            file.write(json.dumps(asdict(run)) + "\n")
        print(_row([run]), flush=True)
    if arguments.write:
        known = [Run(**json.loads(line)) for line in arguments.runs.read_text().splitlines()]
        text, places = _PLACE.subn(lambda _: render(known), arguments.write.read_text())
        if not places:
            parser.error(f"{arguments.write} has no place for the table")
        arguments.write.write_text(text)
    return 0


def measure(way: str, modules: Sequence[str], work: Path, *, boots: bool) -> Run:
    """Build the image with one way, read from it and boot it."""
    disk = work / "disk.raw"
    image = "+".join(("reference", *modules[1:]))
    built = _told("build", "--out", str(disk), "--compress", way, "--json", *modules)
    if "error" in built:
        return Run(image=image, way=way, refused=built["error"])
    store = next(part for part in _told("inspect", str(disk), "--json")["partitions"] if part["filesystem"] == "erofs")
    boot = _told("boot", str(disk), "--json", "--quiet", "--results", str(work / "results")) if boots else {}
    assert boot.get("verdict", "ready") == "ready", boot
    return Run(
        image=image,
        way=way,
        size=store["size"],
        build_s=built["seconds"]["store"],
        boot_s=round(sum(boot.get("seconds", {}).values()), 1),
        reads_s=round(reads(disk, store["start"], work / "mounted"), 2) if os.geteuid() == 0 else 0,
    )


def _told(*args: str) -> dict[str, Any]:
    ended = subprocess.run([*_VMTESTS, *args], stdout=subprocess.PIPE, check=args[0] != "build")
    told: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return told


def reads(disk: Path, offset: int, place: Path) -> float:
    """Return the seconds of all reads."""
    place.mkdir()
    subprocess.run(["mount", "-t", "erofs", "-o", f"ro,loop,offset={offset}", disk, place], check=True)
    try:
        files = sorted(path for path in place.rglob("*") if path.is_file() and not path.is_symlink())
        source = random.Random(1)
        chosen = source.choices(files, weights=[path.stat().st_size for path in files], k=READS)
        started = time.monotonic()
        for path in chosen:
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
            os.pread(descriptor, READ, source.randrange(max(os.fstat(descriptor).st_size - READ, 1)))
            os.close(descriptor)
        return time.monotonic() - started
    finally:
        subprocess.run(["umount", place], check=True)


def render(runs: Sequence[Run]) -> str:
    """Return a table of all runs."""
    head = "| image | `compression` | store | written in | boot | 4,000 random reads |"
    ways = dict.fromkeys((run.image, run.way) for run in runs)
    rows = [_row([run for run in runs if (run.image, run.way) == way]) for way in ways]
    return "\n".join(["", head, "|---|---|---|---|---|---|", *rows, "", ""])


def _row(runs: Sequence[Run]) -> str:
    def seconds(name: str) -> str:
        known = [value for run in runs if (value := getattr(run, name))]
        return f"{statistics.median(known):.1f} s" if known else ""

    if refused := runs[0].refused:
        return f"| {runs[0].image} | `{runs[0].way}` | {refused[:100]} | | | |"
    size = runs[0].size
    shown = f"{size / GIB:.2f} GiB" if size >= GIB else f"{size / MIB:.0f} MiB"
    cells = (runs[0].image, f"`{runs[0].way}`", shown, seconds("build_s"), seconds("boot_s"), seconds("reads_s"))
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
