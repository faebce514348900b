"""Each run has a directory of its own, and `latest` points at the last."""

import os
import stat
from pathlib import Path

import pytest

from vmtests.errors import InputError
from vmtests.host.results import held, later, new_directory, part, planned


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
    """A results directory that cannot be made is whose who named it, said in one sentence."""
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"no directory for results can be made at .*: Not a directory"):
        new_directory(tmp_path / "file/results")


def test_directory_in_the_place_of_the_link_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results that were packed without their links are told before anything is made, and stay."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results/latest").mkdir(parents=True)
    for make in (
        new_directory,
        later,
        lambda: part(tmp_path / "results/run", "gw0", wanted=False),
    ):
        with pytest.raises(InputError, match="results/latest is a directory, where the link to the last run goes"):
            make()
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["latest"]
    assert new_directory(tmp_path / "results/other").is_dir()


def test_results_are_nobody_elses_business(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs it alone may look into a directory of results, also where several processes share it."""
    monkeypatch.chdir(tmp_path)
    shared = planned(None, "run")  # it has the second in its name
    part(shared, "gw0", wanted=False)
    made = [new_directory(), new_directory(tmp_path / "wanted"), shared]
    assert {0o700} == {stat.S_IMODE(path.stat().st_mode) for path in made}


def test_directory_is_of_one_machine_at_a_time(tmp_path: Path) -> None:
    """Who asks for the results of a machine that runs is told so; afterwards the directory is used again."""
    with held(tmp_path), pytest.raises(InputError, match="has the results of a machine that runs"), held(tmp_path):
        pass
    with held(tmp_path):
        pass


def test_working_directory_that_is_gone_has_no_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who stands in a directory that was removed is told so, and may name another."""
    (gone := tmp_path / "gone").mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(InputError, match="in a working directory that is gone"):
        new_directory()
    assert new_directory(tmp_path / "there") == tmp_path / "there"


def test_place_without_results_is_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could never be made is refused at once; what can be is made when it is wanted, and not before."""
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file: Not a directory"):
        later(tmp_path / "file/results")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match="Permission denied"):
        later(tmp_path / "a/b")
    monkeypatch.undo()
    make = later(tmp_path / "a/b")
    assert not (tmp_path / "a").exists()
    assert make() == tmp_path / "a/b"
