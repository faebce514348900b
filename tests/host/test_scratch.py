"""Scratch directories end with their owner, however that ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vmtests.host.scratch import remove, scratch

_KILLED = """
import os, pathlib, signal, sys
from vmtests.host.scratch import scratch
with scratch(pathlib.Path(sys.argv[1])) as path:
    (path / "large").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_scratch_ends_with_its_block(tmp_path: Path) -> None:
    """Nothing is left of a scratch directory, whatever is in it."""
    with scratch(tmp_path) as path:
        (path / "deep").mkdir()
        (path / "deep/file").touch()
    assert not path.exists()


@pytest.mark.parametrize(("depth", "name"), [(1500, "d"), (100, "d" * 200)], ids=["levels", "characters"])
def test_scratch_may_be_deep(tmp_path: Path, depth: int, name: str) -> None:
    """Deeper than Python may call itself, or with paths that are longer than the kernel takes them."""
    with scratch(tmp_path) as path:
        inner = os.open(path, os.O_RDONLY)
        for _ in range(depth):
            os.mkdir(name, dir_fd=inner)
            outer, inner = inner, os.open(name, os.O_RDONLY, dir_fd=inner)
            os.close(outer)
        os.fchmod(inner, 0o500)
        os.close(inner)
    assert not path.exists()


def test_link_leads_nowhere_when_it_is_removed(tmp_path: Path) -> None:
    """What it names stays as it is."""
    (tmp_path / "other").mkdir(mode=0o700)
    (tmp_path / "other/file").touch(mode=0o400)
    (tmp_path / "link").symlink_to("other")
    remove(tmp_path / "link")
    assert (tmp_path / "other/file").stat().st_mode & 0o777 == 0o400


def test_scratch_of_the_living_is_left_alone(tmp_path: Path) -> None:
    """Another run's scratch directory stays as long as that run lives."""
    with scratch(tmp_path) as one, scratch(tmp_path) as other:
        assert one.is_dir()
        assert one != other


def test_scratch_of_a_killed_run_is_removed_by_the_next(tmp_path: Path) -> None:
    """What a run left that was killed with SIGKILL is removed when another begins."""
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.glob("scratch-*/large")
    with scratch(tmp_path):
        assert not left.exists()


def test_shared_scratch_ends_with_the_last_of_its_owners(tmp_path: Path) -> None:
    """Who names the same run gets the same directory; it stays until the last has left it."""
    with scratch(tmp_path, "run") as one:
        with scratch(tmp_path, "run") as other:
            (other / "file").touch()
        assert one == other
        assert (one / "file").exists()
    assert not one.exists()
