"""Compares how an image is built and packed with the other ways, on one store of real files, in one run.

    bench/build.py --size 4G            a table
    bench/build.py --size 16G --json    one JSON line and nothing else

The ways take turns: mkfs.erofs(1) alone on the directory (the limit), ours (`vmtests build`), systemd-repart(8) alone
with `CopyFiles=` (what the NixOS module does), and a staging copy with mkfs.ext4(8) `-d` (what make-disk-image does);
then `tar -Szcf` and our archive of our disk. Each ends with its file on the disk (fsync(2)). Needed: three times the
size, free; twice for mkfs and ours alone, and less with `--distinct`. With `--runs FILE` each run is a line at the end
of that file, so that the ways can be run in pieces, and `--write PAGE` writes all of them as tables between the page's
two comments.
"""

import argparse
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vmtests.host import tools
from vmtests.host.meter import Meter
from vmtests.host.sandbox import tool_env
from vmtests.host.tools import Toolbox
from vmtests.image.target import sync
from vmtests.sizes import GIB, KIB, MIB, parse_size

POOL = 192 * MIB
"""Bytes of real files that the contents are cut from."""

INODES_PER_GIB = 25_000

WAYS = {
    "mkfs": "mkfs.erofs alone",
    "ours": "vmtests build",
    "repart": "systemd-repart alone, CopyFiles=",
    "ext4": "staging copy, mkfs.ext4 -d",
    "tar": "tar -Szcf of the disk",
    "archive": "our archive of the disk",
}
_PLACE = re.compile(r"(?<=<!-- bench build -->\n).*?(?=<!-- /bench build -->)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One way, once: seconds on the clock, what its processes used, and the bytes that its file occupies."""

    size: str
    paths: int
    inodes: int
    way: str
    seconds: float
    cpu_s: float
    peak_mb: float
    written: int
    allocated: int

    @property
    def store(self) -> tuple[int, int, int]:
        """What it was run on."""
        return parse_size(self.size), self.paths, self.inodes


def main() -> int:
    """Run the ways."""
    parser = argparse.ArgumentParser(description="Compare ways to build and pack an image.")
    parser.add_argument("--size", default="4G", metavar="SIZE", help="bytes of the store (default: %(default)s)")
    parser.add_argument("--paths", type=int, default=2000, metavar="N", help="store paths (default: %(default)s)")
    parser.add_argument("--inodes", type=int, metavar="N", help=f"default: {INODES_PER_GIB} for each GiB")
    parser.add_argument("--distinct", type=int, metavar="N", help="files of which all others are hard links")
    parser.add_argument("-n", type=int, default=1, metavar="N", help="runs of each way (default: %(default)s)")
    parser.add_argument("--ways", default=",".join(WAYS), metavar="WAY,…", help="which (default: %(default)s)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where (default: beside temporary files, removed)")
    parser.add_argument("--runs", type=Path, metavar="FILE", help="add each run to this file, a JSON line each")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write what is in --runs into this page")
    parser.add_argument("--json", action="store_true", help="print the JSON line only")
    arguments = parser.parse_args()
    if unknown := set(arguments.ways.split(",")) - {*WAYS, ""}:
        parser.error(f"no such way: {min(unknown)}")
    runs = measure(arguments)
    if runs:
        print(json.dumps(figures(runs)))
    if arguments.write:
        known = [Run(**json.loads(line)) for line in arguments.runs.read_text().splitlines()]
        text, places = _PLACE.subn(lambda _: render(known), arguments.write.read_text())
        if not places:
            parser.error(f"{arguments.write} has no place for the table")
        arguments.write.write_text(text)
    return 0


def measure(arguments: argparse.Namespace) -> list[Run]:
    """Run what was asked for."""
    size = parse_size(arguments.size)
    inodes = arguments.inodes or INODES_PER_GIB * size // GIB
    wanted = [way for way in WAYS if way in arguments.ways.split(",")]
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="vmtests-bench-", dir=arguments.work) as made:
        ways = Ways(Path(made).absolute(), tools.find())
        for _ in range(arguments.n if wanted else 0):
            if not ways.store.exists():
                ways.fill(size, arguments.paths, inodes, arguments.distinct)
            for way in wanted:
                ways.make_room(way)
                facts = measured(getattr(ways, way))
                run = Run(size=arguments.size, paths=arguments.paths, inodes=inodes, way=way, **facts)
                runs.append(run)
                if arguments.runs:
                    with arguments.runs.open("a") as file:
                        file.write(json.dumps(asdict(run)) + "\n")
                if not arguments.json:
                    print(_row(WAYS[way], [run]), flush=True)
    return runs


def figures(runs: Sequence[Run]) -> dict[str, float | str]:
    """Return the figures of the line, medians of pairs where two ways are compared."""

    def ratio(one: str, other: str) -> float:
        pairs = zip(of(one), of(other), strict=False)
        return round(statistics.median(first.seconds / second.seconds for first, second in pairs), 2)

    def of(way: str) -> list[Run]:
        return [run for run in runs if run.way == way]

    told: dict[str, float | str] = {"size": runs[0].size, "paths": runs[0].paths, "inodes": runs[0].inodes}
    if ours := of("ours"):
        told["build_s"] = round(statistics.median(run.seconds for run in ours), 1)
        told["written_over_allocated"] = round(max(run.written / run.allocated for run in ours), 2)
        told["peak_rss_mb"] = round(max(run.peak_mb for run in ours))
    for name, one, other in (
        ("over_mkfs", "ours", "mkfs"),
        ("repart_over_ours", "repart", "ours"),
        ("ext4_over_ours", "ext4", "ours"),
        ("archive_speedup", "tar", "archive"),
    ):
        if of(one) and of(other):
            told[name] = ratio(one, other)
    if of("tar") and of("archive"):
        told["archive_s"] = round(statistics.median(run.seconds for run in of("archive")), 1)
        pairs = zip(of("archive"), of("tar"), strict=False)
        told["archive_size_ratio"] = round(max(one.allocated / other.allocated for one, other in pairs), 2)
    return told


def render(runs: Sequence[Run]) -> str:
    """Return a table for each store that ways were run on."""
    parts = []
    for store in sorted({run.store for run in runs}):
        own = [run for run in runs if run.store == store]
        parts.append(f"{own[0].size}iB in {own[0].paths:,} paths and {own[0].inodes:,} inodes:\n")
        parts.append("| | wall | processors | memory | written | size | runs |\n|---|---|---|---|---|---|---|")
        parts += [
            _row(words, found) for way, words in WAYS.items() if (found := [run for run in own if run.way == way])
        ]
        told = {key: value for key, value in figures(own).items() if "over" in key or "archive" in key}
        parts.append(f"\n{', '.join(f'`{key}` {value}' for key, value in told.items())}\n")
    return "\n".join(["", *parts, ""])


def _row(words: str, runs: Sequence[Run]) -> str:
    def median(value: Callable[[Run], float]) -> float:
        return statistics.median(map(value, runs))

    cells = (
        words,
        f"{median(lambda run: run.seconds):.1f} s",
        f"{median(lambda run: run.cpu_s):.1f} s",
        f"{median(lambda run: run.peak_mb):.0f} MB",
        f"{median(lambda run: run.written) / GIB:.2f} GiB",
        f"{median(lambda run: run.allocated) / GIB:.2f} GiB",
        str(len(runs)),
    )
    return f"| {' | '.join(cells)} |"


def measured(way: Callable[[], Path]) -> Mapping[str, Any]:
    """Run one way; all that is dirty in memory is written first, so that nobody pays for another."""
    os.sync()
    started = time.monotonic()
    with Meter(own=False) as meter:
        file = way()
        sync(file)
    usage = meter.usage
    return {
        "seconds": round(time.monotonic() - started, 2),
        "cpu_s": round(usage.cpu_s, 1),
        "peak_mb": round(usage.peak_bytes / 1e6, 1),
        "written": usage.written_bytes,
        "allocated": file.stat().st_blocks * 512,
    }


class Ways:
    """The ways, in a directory; each makes one file, for which what others have made is removed."""

    def __init__(self, work: Path, toolbox: Toolbox) -> None:
        self._work = work
        self._toolbox = toolbox
        self.store = work / "store"
        self.disk = work / "disk.raw"
        self._other = work / "other"
        self._loader = work / "loader"

    def fill(self, size: int, paths: int, inodes: int, distinct: int | None) -> None:
        """Write the store and describe it."""
        fill(self.store, size, paths, inodes, pool(self._toolbox), distinct)
        self._loader.write_bytes(b"MZ" + bytes(100 * KIB))
        described = {
            "version": 1,
            "name": "bench",
            "esp": {"/EFI/BOOT/BOOTX64.EFI": str(self._loader)},
            "store": {
                "directory": str(self.store),
                "paths": [f"/nix/store/{path.name}" for path in sorted(self.store.iterdir())],
            },
        }
        (self._work / "image.json").write_text(json.dumps(described))

    def make_room(self, way: str) -> None:
        """Remove what other ways have made; what packs a disk has one."""
        self._other.unlink(missing_ok=True)
        if way not in {"tar", "archive"}:
            self.disk.unlink(missing_ok=True)
        elif not self.disk.exists():
            self.ours()

    def ours(self) -> Path:
        """`vmtests build`."""
        _command([*_VMTESTS, "build", "--spec", str(self._work / "image.json"), "--out", str(self.disk)])
        return self.disk

    def mkfs(self) -> Path:
        """mkfs.erofs on the directory."""
        argv = ("mkfs.erofs", "--quiet", "-T1", "--all-root", "--hard-dereference", self._other, self.store)
        _command(self._toolbox.argv(*map(str, argv)))
        return self._other

    def repart(self) -> Path:
        """systemd-repart, from nothing to the disk."""
        definitions = self._work / "repart.d"
        shutil.rmtree(definitions, ignore_errors=True)
        definitions.mkdir()
        for name, text in {
            "10-esp": f"Type=esp\nFormat=vfat\nSizeMinBytes=128M\nCopyFiles={self._loader}:/loader\n",
            "20-store": f"Type=linux-generic\nFormat=erofs\nMinimize=best\nCopyFiles={self.store}:/\n",
            "30-root": "Type=root-x86-64\nFormat=ext4\nSizeMinBytes=512M\n",
        }.items():
            (definitions / f"{name}.conf").write_text(f"[Partition]\n{text}")
        _command(
            self._toolbox.argv(
                *("systemd-repart", "--offline=yes", "--sector-size=512", "--dry-run=no", "--empty=create"),
                *("--size=auto", "--no-pager", f"--definitions={definitions}", str(self._other)),
            ),
            TMPDIR=str(self._work),
            SYSTEMD_REPART_MKFS_OPTIONS_EROFS="--all-root --hard-dereference",
        )
        return self._other

    def ext4(self) -> Path:
        """A copy of the store, and mkfs.ext4 on it."""
        staging = self._work / "staging"
        _command(["cp", "-a", "--reflink=auto", str(self.store), str(staging)])
        with self._other.open("wb") as file:
            file.truncate(sum(path.lstat().st_blocks for path in staging.rglob("*")) * 512 * 5 // 4 + GIB)
        _command(self._toolbox.argv("mkfs.ext4", "-q", "-d", staging, self._other))
        shutil.rmtree(staging)
        return self._other

    def tar(self) -> Path:
        """GNU tar and gzip."""
        _command(["tar", "--format=oldgnu", "-C", str(self._work), "-Szcf", str(self._other), self.disk.name])
        return self._other

    def archive(self) -> Path:
        """Our archive."""
        code = "import sys, pathlib; from vmtests.image import archive; archive.pack(*map(pathlib.Path, sys.argv[1:]))"
        _command([sys.executable, "-c", code, str(self.disk), str(self._other)])
        return self._other


_VMTESTS = (sys.executable, "-m", "vmtests.cli")


def _command(argv: Sequence[str], **variables: str) -> None:
    ended = subprocess.run(
        argv, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env=tool_env(variables),
    )  # fmt: skip
    if ended.returncode:
        sys.exit(f"{argv[0]} ended with status {ended.returncode}: {ended.stderr[-1000:]}")


def pool(toolbox: Toolbox) -> bytes:
    """Return real content: programs, libraries and texts, one after the other."""
    base = (toolbox.tree or Path("/")) / "usr"
    content = bytearray()
    files = sorted(path for path in base.rglob("*") if path.is_file() and not path.is_symlink())
    random.Random(1).shuffle(files)
    for path in files:
        content += path.read_bytes()[: 8 * MIB]
        if len(content) >= POOL:
            break
    return bytes(content)


def fill(store: Path, size: int, paths: int, inodes: int, content: bytes, distinct: int | None = None) -> None:
    """Write `size` bytes in about `inodes` inodes below `paths` store paths; most files are small, most bytes not.

    After `distinct` files, those that follow are hard links to them: all ways read them as files of their own, and the
    store itself takes less of the disk.
    """
    source = random.Random(2)
    count = max(inodes - 3 * paths, paths)
    distinct = min(distinct or count, count)
    weights = [source.lognormvariate(0, 2) for _ in range(distinct)]
    scale = size / (sum(weights) * count / distinct)
    written: list[Path] = []
    for index in range(count):
        number = index % paths
        directory = store / f"{number:032x}-path" / "share/doc"
        if index < paths:
            directory.mkdir(parents=True)
        if index >= distinct:
            os.link(written[index % distinct], directory / f"{index}")
            continue
        left = int(weights[index] * scale)
        written.append(directory / f"{index}")
        with written[-1].open("wb") as file:
            while left > 0:
                length = min(left, 4 * MIB)
                start = source.randrange(len(content) - length)
                file.write(content[start : start + length])
                left -= length


if __name__ == "__main__":
    sys.exit(main())
