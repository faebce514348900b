"""A cache on a file system that is not Linux's own is told so before anything is fetched for it."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from vmtests.errors import HostError
from vmtests.host import place


def test_file_system_of_linux_is_good(tmp_path: Path) -> None:
    """Where all can be had, nothing is said, and nothing is left."""
    place.check(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_file_system_that_counts_no_blocks_has_room(tmp_path: Path) -> None:
    """Of ramfs, and of a tmpfs without a limit, nobody knows how much is free: /proc is such, too."""
    assert (place.free(tmp_path) or 0) > 0
    assert place.free(Path("/proc")) is None


def refuse(number: int) -> Callable[..., None]:
    """Return a call that the file system refuses."""

    def call(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize(
    ("target", "name", "said"),
    [
        ("pathlib.Path", "touch", "names with colons"),
        ("pathlib.Path", "chmod", "permissions"),
        ("pathlib.Path", "symlink_to", "symbolic links"),
        ("pathlib.Path", "hardlink_to", "hard links"),
        ("fcntl", "flock", "locks"),
    ],
)
def test_what_a_file_system_refuses_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, name: str, said: str
) -> None:
    """What vfat, exfat and shared folders do not have is named, with another place as the way out."""
    monkeypatch.setattr(f"{target}.{name}", refuse(errno.EPERM))
    with pytest.raises(HostError, match=said) as caught:
        place.check(tmp_path)
    assert "VMTESTS_CACHE" in str(caught.value.hint)


def test_permissions_that_are_not_kept_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that takes a mode and forgets it has no permissions."""
    monkeypatch.setattr(Path, "chmod", lambda *_: None)
    with pytest.raises(HostError, match="permissions"):
        place.check(tmp_path)


def test_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """Where nothing can be made at all, that is said."""
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match="cannot be written: Not a directory"):
        place.check(tmp_path / "file")


def test_noexec_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no program may run, no tree is unpacked."""
    real = os.statvfs(tmp_path)
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((*real[:8], os.ST_NOEXEC, real[9])))
    with pytest.raises(HostError, match="noexec"):
        place.check(tmp_path)


@pytest.mark.parametrize("name", ["a:b", 'a"b', "a\nb"])
def test_name_that_apt_cannot_take_is_told(tmp_path: Path, name: str) -> None:
    """What apt's configuration and a search path take for a mark of their own is no name for a cache."""
    (tmp_path / name).mkdir()
    with pytest.raises(HostError, match="in its name"):
        place.check(tmp_path / name)


@pytest.mark.parametrize("name", ["a b", "größe", "$HOME 'x'; #&*[a]{b}(c)|!=@\\~%,"])
def test_other_names_are_good(tmp_path: Path, name: str) -> None:
    """All else was tried with a tree, and is a name as any."""
    (tmp_path / name).mkdir()
    place.check(tmp_path / name)
