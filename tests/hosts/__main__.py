"""Make each host as a tree, run the README's commands in it, and write the README's table.

    python -m tests.hosts [--command COMMAND] [--readme] [CELL...]

A tree is entered by pivot_root(8) in a mount and process namespace of its own: in a plain chroot user namespaces do
not work. It shares this host's network, with its resolver, its certificates and what it says to apt and pip; of its
caches it has nothing. Trees and packages are kept below $VMTESTS_CACHE/hosts.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.hosts.cells import CELLS, Cell
from vmtests.errors import HostError, VmtestsError
from vmtests.resources import cache_dir

REPOSITORY = Path(__file__).parents[2]
RESULTS = Path("results/hosts")
COMMAND = "make boot"
SECONDS = 3600
"""A cell that takes longer has failed."""

_MARKS = "<!-- hosts -->\n", "<!-- /hosts -->\n"

_ENTER = r"""
set -e
mount --bind "$1" "$1"; cd "$1"; mkdir -p .outside
mount -t proc proc proc; mount --rbind /dev dev; mount --rbind /sys sys
mount -t tmpfs -o mode=1777 tmpfs tmp; mount -t tmpfs tmpfs run
pivot_root . .outside; cd /; umount -l /.outside; rmdir /.outside
shift; exec "$@"
"""


def main() -> int:
    """Run the cells that are named, or all; return 0 when all got through."""
    parser = argparse.ArgumentParser(prog="make hosts", description="Run the README's commands on every host.")
    parser.add_argument("--command", default=COMMAND, help=f"what is run in each, by default `{COMMAND}`")
    parser.add_argument("--readme", action="store_true", help="write the table in the README")
    parser.add_argument("cells", nargs="*", metavar="CELL", help=", ".join(cell.name for cell in CELLS))
    arguments = parser.parse_args()
    by_name = {cell.name: cell for cell in CELLS}
    if unknown := [name for name in arguments.cells if name not in by_name]:
        parser.error(f"there is no cell {unknown[0]}; there are {', '.join(by_name)}")
    if os.geteuid() != 0:
        raise HostError("make hosts enters trees, which only root may do", hint="sudo make hosts")
    RESULTS.mkdir(parents=True, exist_ok=True)
    rows = {}
    for name in arguments.cells or by_name:
        rows[name] = _run(by_name[name], arguments.command)
        print(f"{name}: {rows[name]}", flush=True)
    table = _table(rows)
    print(table)
    (RESULTS / "table.md").write_text(table, encoding="utf-8")
    if arguments.readme:
        _write_readme(table)
    return int(any("failed" in row for row in rows.values()))


def _run(cell: Cell, command: str) -> str:
    """Run one cell and say how it went."""
    log = RESULTS / f"{cell.name}.log"
    print(f"{cell.name}: its output is in {log}", flush=True)
    with log.open("wb") as file, _host(cell) as root:
        started = time.monotonic()
        status = _enter(cell, root, f"cd vmtests && {command}", file.fileno())
        seconds = time.monotonic() - started
        if status != 0:
            return f"failed with {status} after {seconds:.0f} s"
        killed = _enter(cell, root, "cd vmtests && sh /kill.sh", file.fileno()) if command == COMMAND else 0
    if killed != 0:
        return f"ready, failed when it was killed ({seconds:.0f} s)"
    said = log.read_text(encoding="utf-8", errors="replace")
    ready = re.search(r"ready after ([\d.]+) s|ready in ([\d.]+)", said)
    return f"{seconds:.0f} s" + (f", of which the boot took {ready[1] or ready[2]} s" if ready else "")


@contextmanager
def _host(cell: Cell) -> Iterator[Path]:
    """Give the root of a new host, with a clone of the repository's HEAD in the home of who works there."""
    base = _base(cell)
    scratch = Path(tempfile.mkdtemp(prefix=f"{cell.name}.", dir=base.parent))
    try:
        root = scratch / "root"
        subprocess.run(["cp", "-a", "--reflink=auto", base, root], check=True)
        home = root / ("root" if cell.user == "root" else "home/tester")
        if cell.user != "root":
            subprocess.run(["chroot", root, "useradd", "-m", "-s", "/bin/bash", "tester"], check=True)
        clone = ["git", "clone", "--quiet", "--no-hardlinks", f"file://{REPOSITORY}", str(home / "vmtests")]
        subprocess.run(clone, check=True, stdout=sys.stderr)
        subprocess.run(
            [
                "chroot",
                root,
                "chown",
                "-R",
                f"--reference=/{home.relative_to(root)}",
                f"/{home.relative_to(root)}/vmtests",
            ],
            check=True,
        )
        if not cell.keys:
            for key in (
                *root.glob("usr/share/keyrings/debian-archive-*"),
                *root.glob("etc/apt/trusted.gpg.d/*trixie*"),
            ):
                key.unlink()
        _hand_in(root)
        yield root
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _base(cell: Cell) -> Path:
    """Return the tree of the cell's packages, made now if there is none."""
    name = f"{cell.suite}-{'-'.join(('root' if cell.user == 'root' else 'user', 'own' if cell.own else 'bare'))}"
    place = cache_dir() / "hosts" / name
    listed = place.with_name(f"{name}.packages")
    wanted = "\n".join(cell.packages)
    if place.is_dir() and listed.is_file() and listed.read_text(encoding="utf-8") == wanted:
        return place
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    downloads = place.parent / f"packages-{cell.suite}"
    downloads.mkdir(exist_ok=True)
    mirror = os.environ.get("VMTESTS_MIRROR")
    kept = shlex.quote(str(downloads))
    command = [
        *("mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", f"--include={','.join(cell.packages)}"),
        '--setup-hook=mkdir -p "$1/var/cache/apt/archives"',
        f'--setup-hook=find {kept} -name "*.deb" -exec cp -t "$1/var/cache/apt/archives" {{}} +',
        "--skip=download/empty,cleanup/apt/cache",
        f'--customize-hook=find "$1/var/cache/apt/archives" -name "*.deb" -exec mv -t {kept} {{}} +',
        *(cell.suite, str(place), *([mirror] if mirror else [])),
    ]
    print(f"{cell.name}: making the tree {place}", flush=True)
    if subprocess.run(command, check=False).returncode != 0:
        shutil.rmtree(place, ignore_errors=True)
        raise HostError(f"the tree of {cell.name} cannot be made", hint="mmdebstrap said why")
    listed.write_text(wanted, encoding="utf-8")
    return place


def _hand_in(root: Path) -> None:
    """Give a host what this one says to its resolver, to TLS, to apt and to pip."""
    for name in ("etc/resolv.conf", "etc/pip.conf", "etc/ssl/certs/ca-certificates.crt"):
        if (source := Path("/", name)).is_file():
            shutil.copyfile(source, root / name)
    shown = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=False).stdout
    lines = [line for line in shown.splitlines() if re.match(r"Acquire::(https?::|Check-)", line)]
    (root / "etc/apt/apt.conf.d/90host").write_text("\n".join([*lines, ""]), encoding="utf-8")
    exports = [f"export {key}={shlex.quote(value)}\n" for key, value in _environment(os.environ).items()]
    (root / "etc/profile.d/host.sh").write_text("".join(exports), encoding="utf-8")
    for script in ("confine.py", "kill.sh"):
        shutil.copyfile(Path(__file__).with_name(script), root / script)


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    wanted = re.compile(r"PIP_(?!FIND_LINKS)\w+|(https?|no|all)_proxy|VMTESTS_MIRROR", re.IGNORECASE)
    return {key: value for key, value in own.items() if wanted.fullmatch(key)}


def _enter(cell: Cell, root: Path, command: str, output: int) -> int:
    """Run a command of a login shell in the cell; it, and all that it started, ends with us."""
    inside = ["su", "-", "root" if cell.user == "root" else "tester", "-c", command]
    if cell.confined:
        inside = ["python3", "/confine.py", *inside]
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
    # The console of a boot is binary, and goes to a file with everything else.
    with subprocess.Popen(
        [
            "env",
            "-i",
            f"PATH={os.environ['PATH']}",
            "TERM=dumb",
            *unshare,
            "--",
            "sh",
            "-c",
            _ENTER,
            "sh",
            root,
            *inside,
        ],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
    ) as process:
        try:
            return process.wait(SECONDS)
        except BaseException:
            process.kill()
            raise


def _table(rows: Mapping[str, str]) -> str:
    lines = [
        f"| `{cell.name}` | {' | '.join(cell.description)} | {rows[cell.name]} |"
        for cell in CELLS
        if cell.name in rows
    ]
    return "\n".join(["| cell | host | who | it has | took |", "| --- | --- | --- | --- | --- |", *lines, ""])


def _write_readme(table: str) -> None:
    readme = REPOSITORY / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(_MARKS[0])
    _, _, after = rest.partition(_MARKS[1])
    readme.write_text(f"{before}{_MARKS[0]}{table}{_MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except VmtestsError as error:
        sys.exit(f"make hosts: {error}")
