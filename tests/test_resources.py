"""The cache is where the environment says, or an error says what to set."""

import os
import pwd
from pathlib import Path

import pytest

from vmtests import resources
from vmtests.errors import HostError, InputError
from vmtests.resources import cache_dir, read_named, read_object


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


@pytest.mark.parametrize("home", ["", "relative"])
def test_home_that_is_none_is_looked_up(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is put into `/`, nor beside what somebody works on, for a HOME that is empty or relative."""
    monkeypatch.setenv("HOME", home)
    assert resources._cache() == Path(pwd.getpwuid(os.getuid()).pw_dir) / ".cache/vmtests"


def test_home_that_is_not_there_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root could make what a service's user is not to have (/nonexistent); a cache that is named is made."""
    monkeypatch.setenv("HOME", str(home := tmp_path / "none"))
    with pytest.raises(HostError, match=r"home directory .*/none is not there") as caught:
        cache_dir()
    assert "VMTESTS_CACHE" in str(caught.value.hint)
    assert not home.exists()
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    assert cache_dir().is_dir()


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


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none", "No such file"),
        ("directory", "Is a directory"),
        ("loop", "symbolic links"),
        ("n" * 300, "name too long"),
        ("a\0b", "null byte"),
        ("bytes", "is no text"),
        ("/dev/zero", "more than 1 MiB"),
    ],
)
def test_file_that_was_named_and_is_none_is_one_sentence(tmp_path: Path, name: str, said: str) -> None:
    """Whatever somebody names is read as a text with an end, or refused."""
    (tmp_path / "directory").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=said) as refused:
        read_named(tmp_path / name, "contract", "name another", limit=1 << 20)
    assert refused.value.message.startswith(("contract ", "'contract "))
    assert refused.value.hint == "name another"


@pytest.mark.parametrize("text", ["", "[]", "null", '"x"', "{", "[" * 100_000, '{"a":' * 100_000, "1" * 5000])
def test_what_is_no_object_of_json_is_nothing(tmp_path: Path, text: str) -> None:
    """What a killed run has left, or what somebody has put there, nested without end as well."""
    (tmp_path / "left").write_text(text)
    assert read_object(tmp_path / "left") == {}


def test_pipe_is_not_waited_for_among_results(tmp_path: Path) -> None:
    """A directory of results has files; nobody waits for what is none."""
    os.mkfifo(tmp_path / "pipe")
    assert read_object(tmp_path / "pipe") == read_object(tmp_path) == {}
