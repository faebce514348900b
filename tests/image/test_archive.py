"""The archive is what Compute Engine imports: `disk.raw` alone, sparse, old GNU format, whole GiB."""

import gzip
import tarfile
from pathlib import Path

import pytest

from vmtests.errors import InputError
from vmtests.host import tools
from vmtests.image import archive
from vmtests.image.source import adopt
from vmtests.sizes import GIB


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A sparse disk of 1 GiB with something at its start and its end."""
    path = tmp_path / "some.raw"
    with path.open("wb") as file:
        file.write(b"begin")
        file.seek(GIB - 3)
        file.write(b"end")
    return path


def test_archive_holds_disk_raw_alone_and_sparse(tmp_path: Path, disk: Path) -> None:
    """The only member is `disk.raw`, a GNU sparse file of the disk's size."""
    archive.pack(disk, tmp_path / "image.tar.gz")
    with tarfile.open(tmp_path / "image.tar.gz") as tar:
        members = tar.getmembers()
    assert [(member.name, member.size, member.type) for member in members] == [
        ("disk.raw", GIB, tarfile.GNUTYPE_SPARSE)
    ]
    assert (tmp_path / "image.tar.gz").stat().st_size < 1 << 20


def test_archive_has_the_old_gnu_format(tmp_path: Path, disk: Path) -> None:
    """The header has the magic of the old GNU format (tar(5): `ustar`, two spaces)."""
    archive.pack(disk, tmp_path / "image.tar.gz")
    with gzip.open(tmp_path / "image.tar.gz") as file:
        assert file.read(512)[257:265] == b"ustar  \0"


def test_equal_disks_give_equal_archives(tmp_path: Path, disk: Path) -> None:
    """Neither time nor file name is in the archive."""
    archive.pack(disk, tmp_path / "one.tar.gz")
    disk.rename(tmp_path / "other.raw")
    archive.pack(tmp_path / "other.raw", tmp_path / "two.tar.gz")
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "two.tar.gz").read_bytes()


def test_disk_of_a_broken_size_is_refused(tmp_path: Path, disk: Path) -> None:
    """A disk that is no whole number of GiB is refused with a hint."""
    with disk.open("ab") as file:
        file.truncate(GIB + 512)
    with pytest.raises(InputError, match="whole number of GiB") as caught:
        archive.pack(disk, tmp_path / "image.tar.gz")
    assert "2G" in (caught.value.hint or "")
    assert not (tmp_path / "image.tar.gz").exists()


def test_place_that_cannot_be_written_is_an_error(tmp_path: Path, disk: Path) -> None:
    """A directory that does not exist is named."""
    with pytest.raises(InputError, match="not writable"):
        archive.pack(disk, tmp_path / "none/image.tar.gz")


def test_adopted_archive_is_the_disk_again(tmp_path: Path, disk: Path) -> None:
    """What was packed is unpacked the same, holes included."""
    archive.pack(disk, tmp_path / "image.tar.gz")
    adopted = adopt(tmp_path / "image.tar.gz", tmp_path, tools.find()).path
    assert adopted.stat().st_size == GIB
    assert adopted.stat().st_blocks * 512 < 1 << 20
    with adopted.open("rb") as file:
        assert file.read(5) == b"begin"
        file.seek(GIB - 3)
        assert file.read() == b"end"


def test_disk_is_adopted_as_it_is(tmp_path: Path, disk: Path) -> None:
    """A raw disk is used where it lies."""
    assert adopt(disk, tmp_path, tools.find()).path == disk
