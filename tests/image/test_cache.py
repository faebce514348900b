"""The cache keeps what is used, and nothing else for long."""

import os
from pathlib import Path

import pytest
from filelock import FileLock

from vmtests.contract import Contract
from vmtests.host.host import Host
from vmtests.host.tools import Toolbox
from vmtests.image import cache
from vmtests.image.reference import Modules
from vmtests.image.spec import ImageSpec, StoreSpec
from vmtests.testing.images import STORE_PATH


def _entries(images: Path, count: int) -> list[Path]:
    """Make images, each used a second after the last."""
    made = []
    for number in range(count):
        entry = images / f"reference-{number:02}"
        entry.mkdir(parents=True)
        (entry / "disk.raw").touch()
        os.utime(entry, (number, number))
        made.append(entry)
    return made


def test_image_that_a_session_stands_on_is_not_removed(tmp_path: Path) -> None:
    """The oldest images go, but not one that a session has, which may be any number of builds old, until it ends."""
    entries = _entries(tmp_path, cache.KEEP + 3)
    with Host() as first, Host() as second:
        first.keep(entries[0])
        second.keep(entries[0])
        cache._prune(tmp_path)
        assert sorted(tmp_path.glob("reference-??")) == [entries[0], *entries[3:]]
    cache._prune(tmp_path)
    assert sorted(tmp_path.glob("reference-??")) == entries[3:]


def test_image_that_is_just_fetched_is_not_removed(tmp_path: Path) -> None:
    """Between its being found and its being kept, its lock is held."""
    entries = _entries(tmp_path, cache.KEEP + 1)
    with FileLock(tmp_path / f"{entries[0].name}.lock"):
        cache._prune(tmp_path)
    assert entries[0].exists()


def test_what_a_killed_build_left_is_removed_by_any_later_one(tmp_path: Path) -> None:
    """Also where the image has another key by now; one that is being built is left alone."""
    left, busy = tmp_path / ".reference-old.abcdefgh", tmp_path / ".reference-new.abcdefgh"
    for directory in (left, busy):
        directory.mkdir()
        (directory / "disk.raw").touch()
    with FileLock(tmp_path / "reference-new.lock"):
        cache._prune(tmp_path)
    assert (left.exists(), busy.exists()) == (False, True)


def test_what_cannot_be_removed_is_not_kept_with_the_image(
    tmp_path: Path, contract: Contract, toolbox: Toolbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory cannot be emptied without a descriptor, of which a process may have no more just then."""
    (kernel := tmp_path / "kernel").write_bytes(b"kernel")
    (tmp_path / "store" / STORE_PATH.rpartition("/")[2]).mkdir(parents=True)
    store = StoreSpec(directory=tmp_path / "store", paths=(STORE_PATH,))
    small = ImageSpec(version=1, name="small", esp={contract.boot.kernel: kernel}, store=store)
    monkeypatch.setattr(cache, "_describe", lambda *_: small)
    monkeypatch.setattr("vmtests.image.target.remove", lambda _: None)
    cache._build(tmp_path / "reference", contract, Modules(), toolbox)
    assert [path.name for path in (tmp_path / "reference").iterdir()] == ["disk.raw"]
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".reference")] == []
