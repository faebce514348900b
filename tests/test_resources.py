"""The cache is where the environment says, or an error says what to set."""

from pathlib import Path

import pytest

from vmtests.errors import HostError
from vmtests.resources import cache_dir


@pytest.fixture(autouse=True)
def nothing_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that says nothing of a cache, and a home of the test's own."""
    monkeypatch.delenv("VMTESTS_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_cache_is_where_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own variable is first, then XDG's, then the home directory."""
    assert cache_dir() == tmp_path / ".cache/vmtests"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg/vmtests"
    monkeypatch.setenv("VMTESTS_CACHE", "own")
    assert cache_dir() == tmp_path / "own"


def test_relative_directory_of_xdg_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """XDG's base directory specification has relative paths ignored."""
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    assert cache_dir() == tmp_path / ".cache/vmtests"


def test_user_without_a_home_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's user need be in no /etc/passwd, and may have no HOME."""

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(HostError, match="no home directory") as caught:
        cache_dir()
    assert "VMTESTS_CACHE" in str(caught.value.hint)


def test_relative_cache_in_a_directory_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path leads nowhere where the working directory was removed."""
    (gone := tmp_path / "gone").mkdir()
    monkeypatch.setenv("VMTESTS_CACHE", "cache")
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(HostError, match="the cache cache cannot be made"):
        cache_dir()
