"""A small good image, built once by the project's own builder, and copies of it to break; and what a tree holds."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from vmtests.contract import Contract
from vmtests.errors import InputError
from vmtests.host.tools import Toolbox
from vmtests.image.source import open_disk
from vmtests.testing import SmallImage, small_image


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory, contract: Contract, toolbox: Toolbox) -> SmallImage:
    """A disk that obeys the contract; boot loader and kernel are no more than their headers."""
    return small_image(tmp_path_factory.mktemp("image"), contract, toolbox)


@pytest.fixture(scope="session")
def good_image(good: SmallImage) -> Path:
    """Its path."""
    return good.path


@pytest.fixture
def patient(good: SmallImage, tmp_path: Path) -> SmallImage:
    """A copy of it, to be broken."""
    return good.copy(tmp_path / "disk.raw")


@pytest.fixture(scope="session")
def partition_bytes(good: SmallImage) -> Callable[[int], bytes]:
    """Gives the first 16 KiB of a partition of the good image, by its number."""
    return lambda number: good.read(good.start(number), 1 << 14)


def refusal(path: Path, toolbox: Toolbox) -> str:
    """Return the sentence with which an image is refused."""
    with pytest.raises(InputError) as caught, open_disk(path, toolbox):
        pass
    assert caught.value.exit_code == 2
    assert caught.value.hint
    return caught.value.message


def listed(tree: Path) -> dict[str, tuple[int, bytes | Path | None]]:
    """Return the mode of each path below `tree`, with a file's bytes or where a link leads; no link is followed."""
    found: dict[str, tuple[int, bytes | Path | None]] = {}
    # Not by rglob(), which looks where a link leads: Python 3.11.2 fails where that is a long name.
    inside = (Path(top, name) for top, directories, files in os.walk(tree) for name in (*directories, *files))
    for path in sorted(inside):
        content: bytes | Path | None = None
        if path.is_symlink():
            content = path.readlink()
        elif path.is_file():
            content = path.read_bytes()
        found[str(path.relative_to(tree))] = (path.lstat().st_mode, content)
    return found
