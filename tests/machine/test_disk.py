"""The overlay and what it stands on."""

from pathlib import Path

import pytest

from tests.machine.conftest import FakeToolbox
from vmtests.errors import InputError
from vmtests.machine.disk import Backing, backing, make_overlay


def test_raw(tmp_path: Path) -> None:
    """What is not qcow2 is a raw disk of the file's size."""
    image = tmp_path / "disk"
    image.write_bytes(b"\0" * 1024)
    assert Backing(path=image, format="raw", size=1024) == backing(image)


def test_qcow2(tmp_path: Path) -> None:
    """A qcow2 file's disk has the size that its header says."""
    image = tmp_path / "disk"
    image.write_bytes(b"QFI\xfb" + bytes(20) + (5 << 30).to_bytes(8, "big"))
    assert Backing(path=image, format="qcow2", size=5 << 30) == backing(image)


def test_missing(tmp_path: Path) -> None:
    """An image that is not there is named."""
    with pytest.raises(InputError, match="disk cannot be read: No such file"):
        backing(tmp_path / "disk")


def test_directory(tmp_path: Path) -> None:
    """A directory is no image."""
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        backing(tmp_path)


def test_device() -> None:
    """A device is no image."""
    with pytest.raises(InputError, match="/dev/null is not a file"):
        backing(Path("/dev/null"))


def test_empty(tmp_path: Path) -> None:
    """An empty file is no image."""
    (tmp_path / "disk").touch()
    with pytest.raises(InputError, match="is empty"):
        backing(tmp_path / "disk")


def test_too_small(tmp_path: Path) -> None:
    """A disk cannot be smaller than its image."""
    image = Backing(path=tmp_path / "disk", format="raw", size=2 << 30)
    with pytest.raises(InputError, match=r"a disk of 1 GiB is smaller than the image \(2 GiB\)"):
        make_overlay(FakeToolbox(), image, tmp_path / "overlay", 1 << 30)
