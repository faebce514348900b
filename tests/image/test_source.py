"""Opening images of every format, and refusing what is none."""

import bz2
import gzip
import io
import lzma
import os
import shutil
import socket
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.image.conftest import refusal
from vmtests.errors import InputError
from vmtests.host.tools import Toolbox
from vmtests.image.check import Status
from vmtests.image.source import Format, adopt, open_disk
from vmtests.machine.disk import backing
from vmtests.sizes import MIB
from vmtests.testing.images import SmallImage, table


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
    assert refusal(whole, toolbox).startswith(f"{whole} is damaged: ")


@pytest.mark.parametrize("name", ["disk.img", "/disk.raw", "../disk.raw", "a/b.raw"])
def test_an_archive_gives_its_one_disk_whatever_its_name(
    name: str, tmp_path: Path, toolbox: Toolbox, cache: Path
) -> None:
    """What Compute Engine would refuse boots all the same, and nothing is written by a name in the archive."""
    content = bytes(table([]).content)
    packed = pack(tmp_path / "a.tar.gz", {"README": b"read me", name: content})
    with open_disk(packed, toolbox) as disk:
        assert (disk.format, disk.packing, disk.size) == (Format.RAW, "tar.gz", len(content))
        (check,) = disk.checks
        assert check.ok
        assert f"it holds {name} and 1 more, and not disk.raw alone" in check.sentence
    assert list(cache.iterdir()) == []


def test_an_archive_with_two_disks_is_refused(tmp_path: Path, toolbox: Toolbox, cache: Path) -> None:
    """Nobody can say which one is meant; names out of the archive are escaped."""
    content = bytes(table([]).content)
    packed = pack(tmp_path / "a.tar.gz", {"disk.raw": content, "more\x1b[2J.img": content})
    expected = f"{packed} holds more than one disk: disk.raw, more\\x1b[2J.img"
    assert expected == refusal(packed, toolbox)


def test_an_archive_without_a_disk_is_refused(tmp_path: Path, toolbox: Toolbox, cache: Path) -> None:
    """What is in it is named."""
    packed = pack(tmp_path / "a.tar.gz", {"README": b"read me"})
    assert f"{packed} holds README, and no disk" == refusal(packed, toolbox)


def test_a_link_named_as_the_disk_is_refused(tmp_path: Path, toolbox: Toolbox, cache: Path) -> None:
    """Nothing outside the archive is read, by any of the readers."""
    packed = tmp_path / "a.tar.gz"
    with tarfile.open(packed, "w:gz") as out:
        member = tarfile.TarInfo("disk.raw")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/shadow"
        out.addfile(member)
    assert f"{packed} holds disk.raw, which is a symbolic link, and no disk" == refusal(packed, toolbox)
    (tmp_path / "scratch").mkdir()
    with pytest.raises(InputError, match="which is a symbolic link"):
        adopt(packed, tmp_path / "scratch", toolbox)


def test_another_tar_format_is_a_note(tmp_path: Path, toolbox: Toolbox, cache: Path) -> None:
    """Compute Engine asks for the old GNU format; the disk is read all the same."""
    content = bytes(table([]).content)
    with open_disk(pack(tmp_path / "a", {"disk.raw": content}, tarfile.USTAR_FORMAT), toolbox) as disk:
        (check,) = disk.checks
        assert check.status is Status.NOTE
        assert "it is not a tar of the old GNU format" in check.sentence
        assert disk.read(512, 8) == b"EFI PART"


def squeeze(path: Path, content: bytes, tool: str, toolbox: Toolbox) -> Path:
    """Write `content`, compressed."""
    packers: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "xz": lzma.compress, "bz2": bz2.compress}
    if tool in packers:
        path.write_bytes(packers[tool](content))
        return path
    (path.parent / "plain").write_bytes(content)
    toolbox.run("zstd", "-q", path.parent / "plain", "-o", path)
    return path


@pytest.mark.parametrize("tool", ["gz", "xz", "bz2", "zst"])
def test_a_compressed_disk_is_taken(tool: str, tmp_path: Path, toolbox: Toolbox, cache: Path) -> None:
    """A stream is unpacked; one that ends too early, or holds no disk, has a sentence of its own."""
    content = bytes(table([]).content)
    whole = squeeze(tmp_path / f"x.raw.{tool}", content, tool, toolbox)
    with open_disk(whole, toolbox) as disk:
        assert (disk.packing, disk.size, disk.read(512, 8)) == (tool, len(content), b"EFI PART")
    os.truncate(whole, whole.stat().st_size - 20)
    assert refusal(whole, toolbox).endswith("data ends too early")
    junk = squeeze(tmp_path / f"y.{tool}", b"hello" * (MIB // 4), tool, toolbox)
    expected = f"{junk} holds no disk: what is inside begins with 68656c6c6f68656c"
    assert expected == refusal(junk, toolbox)


def test_zeros_are_not_unpacked_to_their_end(tmp_path: Path, toolbox: Toolbox, cache: Path) -> None:
    """A megabyte that unpacks to a terabyte is refused at once."""
    piece = gzip.compress(bytes(64 * MIB), 9)
    (tmp_path / "bomb.raw.gz").write_bytes(piece * 500)
    assert refusal(tmp_path / "bomb.raw.gz", toolbox).endswith("what is inside begins with 1 MiB of zeros")


def test_a_header_of_any_size_is_not_kept_in_memory(tmp_path: Path, toolbox: Toolbox, cache: Path) -> None:
    """A name in a tar can be as long as it says."""
    member = tarfile.TarInfo("long")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 8 << 30
    (tmp_path / "a.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(MIB))
    assert "is damaged: its headers have 8589934592 bytes" in refusal(tmp_path / "a.tar", toolbox)


def test_a_map_of_holes_without_end_is_not_kept_in_memory(tmp_path: Path, toolbox: Toolbox, cache: Path) -> None:
    """The map of a sparse member can go on for as long as its blocks say so."""
    member = tarfile.TarInfo("disk.raw")
    member.type = tarfile.GNUTYPE_SPARSE
    head = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    head[482] = 1
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    block = b"00000001000\0" * 42 + b"\1" + bytes(7)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(bytes(head) + block * (10 << 11), 1))
    assert "the headers of its archive do not end" in refusal(tmp_path / "a.tar.gz", toolbox)


def test_zeros_beside_the_disk_are_not_unpacked_to_their_end(
    tmp_path: Path, toolbox: Toolbox, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither those behind the end of an archive nor those of another member: both may be terabytes."""
    disk, other = tarfile.TarInfo("disk.raw"), tarfile.TarInfo("notes.txt")
    content = bytes(table([]).content)
    disk.size, other.size = len(content), 8 << 30
    whole = disk.tobuf(tarfile.GNU_FORMAT) + content.ljust(-(-len(content) // 512) * 512, b"\0")
    zeros = gzip.compress(bytes(4 * MIB), 9)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(whole) + zeros * 8000)
    said = f"{tmp_path}/a.tar.gz is damaged: more than 64 MiB follow the end of its archive"
    assert refusal(tmp_path / "a.tar.gz", toolbox) == said
    (tmp_path / "a.tar").write_bytes(whole + bytes(1024))
    os.truncate(tmp_path / "a.tar", 1 << 42)
    with open_disk(tmp_path / "a.tar", toolbox) as found:  # it has no checksum behind the end
        assert found.size == len(content)
    monkeypatch.setattr("vmtests.image.unpack.GIB", 16 * MIB)
    (tmp_path / "b.tar.gz").write_bytes(gzip.compress(other.tobuf(tarfile.GNU_FORMAT)) + zeros * 16)
    assert "is damaged: beside a disk it holds more than " in refusal(tmp_path / "b.tar.gz", toolbox)


def test_a_map_of_holes_that_is_none_is_told_in_our_words(tmp_path: Path, toolbox: Toolbox, cache: Path) -> None:
    """The map of a sparse member in a pax archive is decimal numbers, a line each (GNU tar, Sparse Formats)."""
    member = tarfile.TarInfo("disk.raw")
    member.size = 512
    member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "1048576"}
    (tmp_path / "a.tar").write_bytes(member.tobuf(tarfile.PAX_FORMAT) + b"x" * 512 + bytes(1024))
    assert refusal(tmp_path / "a.tar", toolbox) == f"{tmp_path}/a.tar is damaged: its archive cannot be read"


@pytest.mark.parametrize(("form", "driver"), [("vmdk", "vmdk"), ("vhd", "vpc"), ("vhdx", "vhdx"), ("vdi", "vdi")])
def test_the_formats_of_other_machines_are_taken(
    form: str, driver: str, patient: SmallImage, toolbox: Toolbox, cache: Path
) -> None:
    """Whatever its name, what qemu-img reads is read, and adopted as qcow2."""
    image = patient.path.with_name("image")
    options = ("-o", "subformat=fixed,force_size") if form == "vhd" else ()
    made = image.with_name("made")
    toolbox.run("qemu-img", "convert", "-f", "raw", "-O", driver, *options, patient.path, made)
    made.rename(image)  # a VMDK's own descriptor has the name of then
    with open_disk(image, toolbox) as disk:
        assert (disk.format.value, disk.size) == (form, patient.size)
        assert disk.read(512, 8) == b"EFI PART"
    adopted = adopt(image, patient.path.parent, toolbox).path
    assert backing(adopted).format == "qcow2"
    assert backing(adopted).size == patient.size


def test_an_image_in_an_archive_in_another_format_is_taken(
    patient: SmallImage, toolbox: Toolbox, cache: Path, tmp_path: Path
) -> None:
    """A zip with a compressed qcow2, and what a machine gets of it."""
    image = tmp_path / "x.qcow2"
    toolbox.run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", patient.path, image)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as packed:
        packed.writestr("x.qcow2.gz", gzip.compress(image.read_bytes(), 1))
    with open_disk(tmp_path / "x.zip", toolbox) as disk:
        assert (disk.format, disk.packing, disk.size) == (Format.QCOW2, "gz.zip", patient.size)
        assert disk.read(512, 8) == b"EFI PART"
    assert backing(adopt(tmp_path / "x.zip", tmp_path, toolbox).path).format == "qcow2"


def test_a_directory_stands_for_the_one_image_in_it(patient: SmallImage, toolbox: Toolbox, tmp_path: Path) -> None:
    """Two images, or none, are refused."""
    place = tmp_path / "output"
    place.mkdir()
    patient.path.rename(place / "disk.raw")
    (place / "manifest.json").write_text("{}")
    with open_disk(place, toolbox) as disk:
        assert disk.read(512, 8) == b"EFI PART"
    (place / "other.qcow2").write_text("x")
    assert refusal(place, toolbox) == f"{place} is a directory with 2 disk images: disk.raw, other.qcow2"


def test_partitions_beside_their_disk_are_not_others(patient: SmallImage, toolbox: Toolbox, tmp_path: Path) -> None:
    """What systemd-repart (--split) and mkosi (SplitArtifacts=) leave is one disk; an older disk is another."""
    place = tmp_path / "output"
    place.mkdir()
    disk = patient.path.rename(place / "disk.raw")
    (place / "disk.esp.raw").write_bytes(bytes(65536))
    (place / "disk.root-x86-64.raw").write_bytes(bytes(65536))
    (place / "SHA256SUMS").write_text(f"{'0' * 64}  disk.raw\n")
    with open_disk(place, toolbox) as found:
        assert found.read(512, 8) == b"EFI PART"
    shutil.copy(disk, place / "disk.old.raw")
    assert refusal(place, toolbox) == f"{place} is a directory with 2 disk images: disk.old.raw, disk.raw"


def test_a_guest_cannot_turn_its_raw_disk_into_another_format(patient: SmallImage, toolbox: Toolbox) -> None:
    """A raw disk that begins as a qcow2 does is raw: by its name, and by its partition table."""
    patient.write(0, b"QFI\xfb\0\0\0\3" + bytes(12))
    for name in ("disk.raw", "disk.img"):
        image = patient.path.rename(patient.path.with_name(name))
        patient.path = image
        with open_disk(image, toolbox) as disk:
            assert (disk.format, disk.size) == (Format.RAW, patient.size)
        adopted = adopt(image, image.parent, toolbox).path
        assert (backing(adopted).format, backing(adopted).size) == ("raw", patient.size)


def test_a_format_that_is_said_is_not_looked_for(patient: SmallImage, toolbox: Toolbox) -> None:
    """With a format from outside neither name nor content decides, here and in a machine."""
    image = patient.path.rename(patient.path.with_name("disk"))
    with image.open("r+b") as file:
        file.write(b"QFI\xfb" + bytes(16))
        file.seek(510)
        file.write(bytes(2))
    with open_disk(image, toolbox, form=Format.RAW) as disk:
        assert disk.format is Format.RAW
    assert backing(adopt(image, image.parent, toolbox, form=Format.RAW).path).format == "raw"


def test_one_part_of_a_split_image_is_named_as_such(tmp_path: Path, toolbox: Toolbox) -> None:
    """The parts have to be put together first."""
    (tmp_path / "x.raw.002").write_bytes(os.urandom(MIB))
    expected = "is one part of something that was split, not a disk image that vmtests reads"
    assert refusal(tmp_path / "x.raw.002", toolbox) == f"{tmp_path}/x.raw.002 {expected}"


def _nothing(path: Path) -> str:
    return f"{path} does not exist"


def _empty(path: Path) -> str:
    path.touch()
    return f"{path} is empty"


def _directory(path: Path) -> str:
    path.mkdir()
    return f"{path} is a directory without a disk image"


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
    path.write_text("hello\n" * 30_000, encoding="utf-8")
    return f"{path} is not a disk: neither its first nor its last sectors hold a GPT"


def _short(path: Path) -> str:
    path.write_text("hello\n", encoding="utf-8")
    return f"{path} has 6 bytes, too few for a disk"


def _zstd(path: Path) -> str:
    path.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(MIB))
    return f"{path} is truncated: its zstd data ends too early"


def _bare_ext4(path: Path) -> str:
    disk = bytearray(MIB)
    disk[1024 + 0x38 : 1024 + 0x3A] = b"\x53\xef"
    path.write_bytes(disk)
    return f"{path} is a bare ext2 file system without a partition table"


def _truncated(path: Path) -> str:
    path.write_bytes(table([]).content[: MIB // 2])
    return f"{path} is truncated: its partition table says 4096 sectors of 512 bytes, but there are 1024"


@pytest.mark.parametrize(
    "make",
    [_nothing, _empty, _directory, _pipe, _socket, _text, _short, _zstd, _bare_ext4, _truncated],
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


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_whose_data_is_nonsense_is_damaged(
    tmp_path: Path, good_image: Path, toolbox: Toolbox, method: int
) -> None:
    """Each of its compressors complains with an error of its own."""
    packed = tmp_path / "x.zip"
    with zipfile.ZipFile(packed, "w", method) as archive:
        archive.write(good_image, "disk.raw")
        begin = 30 + len("disk.raw")
    with packed.open("r+b") as file:
        os.pwrite(file.fileno(), b"\xff" * 200, begin + 12)
    assert f"{packed} is damaged: " in refusal(packed, toolbox)
