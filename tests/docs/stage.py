"""Where a page's commands are run: a directory with the files that they name, as somebody who reads it would have."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.docs.blocks import ROOT, Command
from tests.report.test_history import write as write_runs
from tests.signals import heed

DISKS = ("disk.raw", "old.raw", "new.raw", "a.raw", "b.raw", "yesterday.raw", "today.raw")


def prepare(place: Path, disk: Path) -> None:
    """Write disks, which are all `disk`, 20 runs of it, the last of which is results/latest, and a contract."""
    (place / "contract.toml").write_text('[[mount]]\nwhere = "/"\nfilesystem = "ext4"\n')
    for name in DISKS:
        (place / name).symlink_to(disk)
    runs = write_runs(place / "results", 20, initrd=lambda _: 10.0)
    (runs / "run000").rename(runs / "20261127T020000Z")
    (runs / "latest").symlink_to("run019")


def environment(place: Path) -> Mapping[str, str]:
    """Return ours, in front the commands of environments that a page or `make` made in the place, and of this one."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("VMTESTS_RESULTS", "PYTEST_"))}
    path = f"{place}/venv/bin:{place}/.venv/bin:{Path(sys.executable).parent}:{kept.get('PATH', '')}"
    return {**kept, "PATH": path, "COLUMNS": "120"}


def run(command: Command, place: Path, *, seconds: float) -> tuple[str, str]:
    """Run a command as a person's shell does; return what it said, and what is wrong with how it ended, or nothing.

    One that serves until Ctrl-C gets that after its first line.
    """
    serves = "until Ctrl-C" in command.text or command.text.startswith("vmtests emulator")
    with subprocess.Popen(
        ["bash", "-o", "pipefail", "-c", command.text],
        cwd=place,
        env=environment(place),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        preexec_fn=heed,
    ) as process:
        assert process.stdout is not None
        said = ""
        try:
            if serves:
                said = process.stdout.readline()
                os.killpg(process.pid, signal.SIGINT)
            said += process.communicate(timeout=seconds)[0]
        except subprocess.TimeoutExpired:
            said += "\n(it did not end)"
        finally:
            _end(process)
    right = {0, 130, -signal.SIGINT} if serves else {command.status}
    wrong = "" if process.returncode in right else f"{command.text}\n{said[-3000:]}\nexit status {process.returncode}"
    return said, wrong


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def tracked(place: Path) -> None:
    """Copy the repository's files, as a fresh clone has them."""
    for name in _names():
        target = place / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target, follow_symlinks=False)


def _names() -> Iterator[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    yield from (name for name in listed.split("\0") if name and (ROOT / name).exists())
