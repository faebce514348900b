"""Each run has a directory of its own, and `latest` points at the last."""

import stat
from pathlib import Path

import pytest

from vmtests.errors import HostError
from vmtests.host.results import new_directory, part, planned


def test_wanted_directory_is_used_as_it_is(tmp_path: Path) -> None:
    """A directory that was asked for is made, and nothing else."""
    assert new_directory(tmp_path / "a/b") == tmp_path / "a/b"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_latest_points_at_the_last_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs in one second get two directories; `latest` is a relative link to the second."""
    monkeypatch.chdir(tmp_path)
    first, second = new_directory(), new_directory()
    assert first != second
    assert (tmp_path / "results/latest").readlink() == Path(second.name)


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    """A results directory that cannot be made is the host's fault, said in one sentence."""
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match="no directory for results"):
        new_directory(tmp_path / "file/results")


def test_results_are_nobody_elses_business(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs it alone may look into a directory of results, also where several processes share it."""
    monkeypatch.chdir(tmp_path)
    part(planned(None, "run"), "gw0", wanted=False)
    made = [new_directory(), new_directory(tmp_path / "wanted"), planned(None, "run")]
    assert {0o700} == {stat.S_IMODE(path.stat().st_mode) for path in made}
