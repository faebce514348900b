"""Files appear whole beside their place, whoever else makes something there."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmtests.errors import InputError
from vmtests.host.scratch import owned, remove
from vmtests.image import target


@pytest.mark.parametrize("moment", ["before", "while"])
def test_a_directory_that_another_process_takes_for_a_dead_ones_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Between its making and its lock nobody owns it: the other removes it, before or while we wait for the lock."""
    taken: list[Path] = []

    @contextlib.contextmanager
    def owned_late(directory: Path) -> Iterator[None]:
        if not taken and moment == "before":
            taken.append(directory)
            remove(directory)
        with owned(directory):
            if not taken:
                taken.append(directory)
                remove(directory)
            yield

    monkeypatch.setattr(target, "owned", owned_late)
    with target.beside(tmp_path / "disk.raw") as scratch:
        assert scratch.is_dir()
        assert scratch not in taken
    assert not list(tmp_path.iterdir())


def test_where_whatever_is_made_goes_away_there_is_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not tried for ever."""

    @contextlib.contextmanager
    def never(directory: Path) -> Iterator[None]:
        remove(directory)
        yield

    monkeypatch.setattr(target, "owned", never)
    with pytest.raises(InputError, match="somebody removes"), target.beside(tmp_path / "disk.raw"):
        pass
