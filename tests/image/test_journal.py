"""The journal on a disk is read without booting it, and without changing the disk."""

import shutil
from pathlib import Path

import pytest

from vmtests.errors import ImageError
from vmtests.host import tools
from vmtests.image import journal


def _disk(directory: Path, content: Path) -> Path:
    """Return a qcow2 disk with a GPT whose only partition is an ext4 with `content`."""
    toolbox = tools.find()
    root, raw, disk = directory / "root", directory / "raw", directory / "disk.qcow2"
    with root.open("wb") as file:
        file.truncate(24 << 20)
    toolbox.run("mkfs.ext4", "-q", "-d", content, root)
    with raw.open("wb") as file:
        file.truncate(26 << 20)
    toolbox.run("sfdisk", "--quiet", raw, stdin="label: gpt\nstart=2048, size=49152, type=linux\n")
    with raw.open("r+b") as file, root.open("rb") as source:
        file.seek(1 << 20)
        shutil.copyfileobj(source, file)
    toolbox.run("qemu-img", "convert", "-q", "-O", "qcow2", raw, disk)
    return disk


def test_disk_without_a_journal_is_told(tmp_path: Path) -> None:
    """A disk whose file systems have no journal is one sentence."""
    (content := tmp_path / "content").mkdir()
    with pytest.raises(ImageError, match="no ext4 partition of the disk has a journal"):
        journal.export(_disk(tmp_path, content), tmp_path / "out.export", tools.find(), since=0.0)
    assert not (tmp_path / "out.export").exists()
