"""The journal on a disk is read without booting it, and without changing the disk."""

import lzma
import re
import shutil
from pathlib import Path

import pytest

from vmtests.errors import ImageError
from vmtests.host import tools
from vmtests.image import journal


def _disk(directory: Path, content: Path, renamed: tuple[bytes, bytes] = (b"", b"")) -> Path:
    """Return a qcow2 disk with a GPT whose only partition is an ext4 with `content`, in which a name is another."""
    toolbox = tools.find()
    root, raw, disk = directory / "root", directory / "raw", directory / "disk.qcow2"
    with root.open("wb") as file:
        file.truncate(40 << 20)
    plain = ("-O", "^metadata_csum,^dir_index") if renamed[0] else ()  # a directory without checksums can be changed
    toolbox.run("mkfs.ext4", "-q", *plain, "-d", content, root)
    if renamed[0]:
        data = root.read_bytes()
        assert renamed[0] in data
        root.write_bytes(data.replace(*renamed))
    with raw.open("wb") as file:
        file.truncate(42 << 20)
    toolbox.run("sfdisk", "--quiet", raw, stdin="label: gpt\nstart=2048, size=81920, type=linux\n")
    with raw.open("r+b") as file, root.open("rb") as source:
        file.seek(1 << 20)
        shutil.copyfileobj(source, file)
    toolbox.run("qemu-img", "convert", "-q", "-O", "qcow2", raw, disk)
    return disk


def test_journal_is_exported_from_when_the_machine_was_switched_on(tmp_path: Path) -> None:
    """What was said since then is exported; an earlier boot's is not, and the disk stays as it is."""
    (place := tmp_path / "content/var/log/journal" / ("2" * 32)).mkdir(parents=True)
    # Three entries that systemd-journal-remote 252 wrote: one of a boot, two of the next, 100 and 120 seconds later.
    packed = Path(__file__).with_name("two-boots.journal.xz").read_bytes()
    (place / "system.journal").write_bytes(lzma.decompress(packed))
    disk = _disk(tmp_path, tmp_path / "content")
    before = disk.read_bytes()
    out = tmp_path / "out.export"
    for since, told in ((1700000050.0, ["this boot begins", "its last words"]), (1700000500.0, [])):
        size = journal.export(disk, out, tools.find(), since=since)
        assert size == out.stat().st_size
        assert told == re.findall(r"^MESSAGE=(.*)$", out.read_text(), re.MULTILINE)
    assert before == disk.read_bytes()


def test_names_on_the_disk_lead_nowhere_on_the_host(tmp_path: Path) -> None:
    """A guest may give files names that lead upwards, and links in place of journals: nothing is written there."""
    (place := tmp_path / "content/var/log/journal" / ("2" * 32)).mkdir(parents=True)
    packed = Path(__file__).with_name("two-boots.journal.xz").read_bytes()
    (place / "system.journal").write_bytes(lzma.decompress(packed))
    (victim := tmp_path / "victim").write_text("as it was")
    (place / "linked.journal").symlink_to(victim)
    up = f"{'../' * 20}{tmp_path}/made.journal"
    for directory in (place, place.parent):
        (directory / ("x" * len(up))).write_bytes(b"by the guest")
    disk = _disk(tmp_path, tmp_path / "content", (b"x" * len(up), up.encode()))
    before = sorted(tmp_path.iterdir())
    journal.export(disk, tmp_path / "out.export", tools.find(), since=1700000050.0)
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "out.export", tmp_path / "out.txt"])
    assert victim.read_text() == "as it was"
    assert "its last words" in (tmp_path / "out.export").read_text()


def test_disk_without_a_journal_is_told(tmp_path: Path) -> None:
    """A disk whose file systems have no journal is one sentence."""
    (content := tmp_path / "content").mkdir()
    with pytest.raises(ImageError, match="no ext4 partition of the disk has a journal"):
        journal.export(_disk(tmp_path, content), tmp_path / "out.export", tools.find(), since=0.0)
    assert not (tmp_path / "out.export").exists()
