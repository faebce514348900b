"""Copies each example somewhere, builds its image there and runs its tests, as somebody would who begins with it.

python -m tests.examples DIRECTORY [NAME]...

An example whose build.sh ends with 77 has no tools here, and says so; any other end is a failure. What the host lacks
and the tools tree has is lent to it.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from vmtests.host import tools
from vmtests.host.sandbox import sandbox

PROJECT = Path(__file__).parents[2]
EXAMPLES = PROJECT / "docs/examples"
MISSING = 77
"""How a build.sh ends that lacks a tool (automake's word for a test that cannot be run)."""


_LENT = {"sfdisk": "sfdisk", "mkfs.vfat": "mkfs.vfat", "mkfs.ext4": "mkfs.ext4", "mcopy": "mcopy", "mmd": "mcopy",
         "cpio": "cpio", "zstd": "zstd"}  # fmt: skip
"""Programs, and the tool in whose tree each is."""


def lend(directory: Path) -> str:
    """Write scripts in `directory` for the programs that the host lacks; return a PATH that ends with it."""
    directory.mkdir(parents=True, exist_ok=True)
    toolbox = tools.find()
    for name, tool in _LENT.items():
        script = directory / name
        script.unlink(missing_ok=True)
        if shutil.which(name) is None:
            # A tree is entered at its root.
            entered = shlex.join([*sandbox(toolbox.root(tool)), "sh", "-c", f'cd "$0" && exec {name} "$@"'])
            script.write_text(f'#!/bin/sh\nexec {entered} "$PWD" "$@"\n')
            script.chmod(0o755)
    return f"{os.environ['PATH']}:{directory}"


def names() -> list[str]:
    """Return the examples."""
    return sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())


def own(example: Path) -> None:
    """Make a flake a repository, whose files Nix sees when they are added, and have it use this checkout."""
    flake = example / "flake.nix"
    flake.write_text(flake.read_text().replace("github:OWNER/vmtests", f"git+file://{PROJECT}"))
    for command in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", *command], cwd=example, check=True)


def run(name: str, directory: Path) -> str:
    """Build one and run its tests; return what came of it, nothing where all is well."""
    here = directory / name
    shutil.rmtree(here, ignore_errors=True)
    shutil.copytree(EXAMPLES / name, here)
    if (here / "flake.nix").exists():
        if shutil.which("nix") is None:
            return "left out: there is no nix here"
        own(here)
    if (here / "build.sh").exists():
        with (here / "build.log").open("w") as log:
            environment = {**os.environ, "PATH": lend(directory / "bin")}
            done = subprocess.run(
                ["./build.sh"], cwd=here, stdout=log, stderr=subprocess.STDOUT, env=environment, check=False
            )
        lines = (here / "build.log").read_text(errors="replace").strip().splitlines() or ["nothing"]
        if done.returncode == MISSING:
            return f"left out: {lines[-1]}"
        if done.returncode:
            return f"build.sh ended with {done.returncode}: {lines[-1]}"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--vm-results=results"]
    tested = subprocess.run(command, cwd=here, env={**os.environ, "CI": "1"}, check=False)
    return f"pytest ended with {tested.returncode}" if tested.returncode else ""


def main(directory: Path, wanted: Sequence[str]) -> int:
    """Run all, or those that are named; return 1 where one failed."""
    directory.mkdir(parents=True, exist_ok=True)
    failed = False
    for name in wanted or names():
        begun = time.monotonic()
        told = run(name, directory.absolute())
        failed |= bool(told) and not told.startswith("left out")
        print(f"{name}: {told or 'well'} ({time.monotonic() - begun:.0f} s)", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Builds and runs the examples as somebody would who begins with one.")
    parser.add_argument("directory", type=Path, help="where they are copied to")
    parser.add_argument("name", nargs="*", help=f"some of them only: {', '.join(names())}")
    arguments = parser.parse_args()
    if unknown := sorted({*arguments.name} - {*names()}):
        parser.error(f"no example is called {unknown[0]}; there are {', '.join(names())}")
    sys.exit(main(arguments.directory, arguments.name))
