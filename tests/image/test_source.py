"""Opening images of every format, and refusing what is none."""

import gzip
import io
import os
import socket
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from vmtests.errors import InputError
from vmtests.host.tools import Toolbox
from vmtests.image.source import Format, open_disk
from vmtests.sizes import MIB
from vmtests.testing.images import SmallImage, table


def refusal(path: Path, toolbox: Toolbox) -> str:
    """Return the sentence with which an image is refused."""
    with pytest.raises(InputError) as caught, open_disk(path, toolbox):
        pass
    assert caught.value.exit_code == 2
    assert caught.value.hint
    return caught.value.message


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toolbox: Toolbox) -> Path:
    """An empty cache."""
    monkeypatch.setenv("VMTESTS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pack(path: Path, members: dict[str, bytes], form: int = tarfile.GNU_FORMAT) -> Path:
    """Write a gzip tar."""
    with tarfile.open(path, "w:gz", format=form) as packed:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
    return path


def test_a_raw_disk_is_read_where_it_is(good_image: Path, toolbox: Toolbox) -> None:
    """Any range can be read, and beyond the end there is nothing."""
    with open_disk(good_image, toolbox) as disk:
        assert disk.format is Format.RAW
        assert disk.size == good_image.stat().st_size
        assert disk.read(512, 8) == b"EFI PART"
        assert len(disk.read(disk.size - 3, 10)) == 3
        assert disk.read(disk.size + 3, 10) == b""


def test_a_qcow2_is_read_as_the_disk_in_it(patient: SmallImage, toolbox: Toolbox, cache: Path) -> None:
    """Every byte of a converted and compressed image is that of the disk, and nothing is left."""
    image = patient.path.with_suffix(".qcow2")
    toolbox.run("qemu-img", "convert", "-c", "-O", "qcow2", patient.path, image)
    with open_disk(image, toolbox) as disk:
        assert (disk.format, disk.size) == (Format.QCOW2, patient.size)
        for offset, length in (
            (0, 4096),
            (MIB - 100, 4096),
            (patient.start(2), 8192),
            (patient.size - 512, 600),
        ):
            assert disk.read(offset, length) == patient.read(offset, length)
        descriptor, place = disk.range(MIB, 2 * MIB)
        assert os.pread(descriptor, 4096, place) == patient.read(MIB, 4096)
        assert list(cache.iterdir()) == []


def test_an_overlay_is_read_through_its_backing_file(patient: SmallImage, toolbox: Toolbox, cache: Path) -> None:
    """A qcow2 that holds nothing itself shows the raw disk below it."""
    image = patient.path.with_name("a,b c.qcow2")
    toolbox.run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", patient.path, image)
    with open_disk(image, toolbox) as disk:
        assert disk.read(512, 8) == b"EFI PART"


def test_a_missing_backing_file_is_named(patient: SmallImage, toolbox: Toolbox) -> None:
    """An overlay without its base is no disk."""
    image = patient.path.with_name("overlay.qcow2")
    toolbox.run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", patient.path, image)
    patient.path.unlink()
    assert f"{image} is backed by {patient.path}, which does not exist" == refusal(image, toolbox)


def test_a_cut_qcow2_is_refused(patient: SmallImage, toolbox: Toolbox) -> None:
    """A qcow2 whose clusters lie beyond its end is not whole."""
    image = patient.path.with_suffix(".qcow2")
    toolbox.run("qemu-img", "convert", "-O", "qcow2", patient.path, image)
    os.truncate(image, image.stat().st_size - 3 * 65536)
    found = refusal(image, toolbox)
    assert found.startswith(f"{image} is truncated or damaged: qemu-img check finds ")


def test_a_cut_qcow2_header_is_refused(tmp_path: Path, toolbox: Toolbox) -> None:
    """A qcow2 that is nothing but its magic has one sentence too."""
    (tmp_path / "x").write_bytes(b"QFI\xfb\0\0\0\3")
    expected = f"{tmp_path}/x is a qcow2 image that cannot be opened: "
    assert refusal(tmp_path / "x", toolbox).startswith(expected)


def test_an_archive_is_unpacked_with_its_holes(patient: SmallImage, toolbox: Toolbox, cache: Path) -> None:
    """An archive as Compute Engine takes it is the disk it was made of, and nothing is left of it."""
    packed = patient.pack()
    with open_disk(packed, toolbox) as disk:
        assert (disk.format, disk.size) == (Format.ARCHIVE, patient.size)
        assert [check.ok for check in disk.checks] == [True]
        for offset in (0, MIB, patient.start(2), patient.start(3), patient.size - 17 * 512):
            assert disk.read(offset, 8192) == patient.read(offset, 8192)
        descriptor, _ = disk.range(0, MIB)
        assert os.fstat(descriptor).st_blocks * 512 < 64 * MIB
        assert list(cache.iterdir()) == []


def test_a_cut_archive_is_refused(tmp_path: Path, toolbox: Toolbox, cache: Path) -> None:
    """Gzip data that ends too early is no archive."""
    whole = pack(tmp_path / "a.tar.gz", {"disk.raw": os.urandom(200_000)})
    os.truncate(whole, 100_000)
    assert f"{whole} is truncated: its gzip data ends too early" == refusal(whole, toolbox)


def test_a_damaged_archive_is_refused(tmp_path: Path, toolbox: Toolbox, cache: Path) -> None:
    """The checksum at the end of the gzip data is looked at."""
    whole = pack(tmp_path / "a.tar.gz", {"disk.raw": bytes(100_000)})
    content = bytearray(whole.read_bytes())
    content[-8] ^= 1
    whole.write_bytes(content)
    assert refusal(whole, toolbox).startswith(f"{whole} is damaged: CRC check failed")


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["disk.img"], "disk.img"),
        (["/disk.raw"], "/disk.raw"),
        (["../disk.raw"], "../disk.raw"),
        (["disk.raw", "more\x1b[2J"], "disk.raw and more\\x1b[2J"),
    ],
)
def test_an_archive_holds_the_disk_alone(
    names: list[str], found: str, tmp_path: Path, toolbox: Toolbox, cache: Path
) -> None:
    """Compute Engine takes `disk.raw` and nothing else."""
    packed = pack(tmp_path / "a.tar.gz", dict.fromkeys(names, bytes(100_000)))
    expected = f"{packed} holds {found}; an image archive holds disk.raw and nothing else"
    assert expected == refusal(packed, toolbox)


def test_a_link_named_as_the_disk_is_refused(tmp_path: Path, toolbox: Toolbox, cache: Path) -> None:
    """Nothing outside the archive is read."""
    packed = tmp_path / "a.tar.gz"
    with tarfile.open(packed, "w:gz") as out:
        member = tarfile.TarInfo("disk.raw")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/shadow"
        out.addfile(member)
    assert "holds disk.raw; an image" in refusal(packed, toolbox)


def test_another_tar_format_is_a_breach(tmp_path: Path, toolbox: Toolbox, cache: Path) -> None:
    """Compute Engine asks for the old GNU format; the disk is read all the same."""
    content = bytes(table([]).content)
    with open_disk(pack(tmp_path / "a", {"disk.raw": content}, tarfile.USTAR_FORMAT), toolbox) as disk:
        expected = "the archive is not a tar of the old GNU format, which Compute Engine asks for"
        assert [expected] == [check.sentence for check in disk.checks if not check.ok]
        assert disk.read(512, 8) == b"EFI PART"


def test_gzip_without_a_tar_is_refused(tmp_path: Path, toolbox: Toolbox, cache: Path) -> None:
    """A compressed disk is not the archive of one."""
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"hello" * 1000))
    expected = f"{tmp_path}/x.gz is compressed with gzip, but holds no whole tar archive"
    assert expected == refusal(tmp_path / "x.gz", toolbox)


def _nothing(path: Path) -> str:
    return f"{path} does not exist"


def _empty(path: Path) -> str:
    path.touch()
    return f"{path} is empty"


def _directory(path: Path) -> str:
    path.mkdir()
    return f"{path} is a directory, not a disk image"


def _pipe(path: Path) -> str:
    os.mkfifo(path)
    return f"{path} is a pipe, not a disk image"


def _socket(path: Path) -> str:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path has room for 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)
    return f"{path} is a socket, not a disk image"


def _text(path: Path) -> str:
    path.write_text("hello\n" * 30_000)
    return f"{path} is not a disk: neither its first nor its last sectors hold a GPT"


def _short(path: Path) -> str:
    path.write_text("hello\n")
    return f"{path} has 6 bytes, too few for a disk"


def _bios(path: Path) -> str:
    disk = bytearray(MIB)
    disk[450], disk[510:512] = 0x83, b"\x55\xaa"
    path.write_bytes(disk)
    return f"{path} is for BIOS only: it has an MBR partition table (types 83) and no GPT"


def _zstd(path: Path) -> str:
    path.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(MIB))
    return f"{path} is compressed with zstd, not a disk image that vmtests reads"


def _bare_ext4(path: Path) -> str:
    disk = bytearray(MIB)
    disk[1024 + 0x38 : 1024 + 0x3A] = b"\x53\xef"
    path.write_bytes(disk)
    return f"{path} is a bare ext4 file system without a partition table"


def _truncated(path: Path) -> str:
    path.write_bytes(table([]).content[: MIB // 2])
    return f"{path} is truncated: its partition table says 4096 sectors of 512 bytes, but there are 1024"


@pytest.mark.parametrize(
    "make",
    [_nothing, _empty, _directory, _pipe, _socket, _text, _short, _bios, _zstd, _bare_ext4, _truncated],
)
def test_what_is_no_image_is_refused_in_one_sentence(
    make: Callable[[Path], str], tmp_path: Path, toolbox: Toolbox
) -> None:
    """Bad input is named as what it is, with a hint."""
    assert make(tmp_path / "input") == refusal(tmp_path / "input", toolbox)


def test_a_character_device_is_refused(toolbox: Toolbox) -> None:
    """/dev/null is no disk, and is not opened."""
    assert refusal(Path(os.devnull), toolbox) == "/dev/null is a character device, not a disk image"


def test_an_unreadable_image_is_refused(tmp_path: Path, toolbox: Toolbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of somebody else's has its own sentence (root reads all, so the kernel's answer is played)."""

    def deny(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "x").touch()
    monkeypatch.setattr(os, "open", deny)
    assert f"{tmp_path}/x cannot be read: permission denied" == refusal(tmp_path / "x", toolbox)
