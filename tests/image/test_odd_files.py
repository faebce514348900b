"""Files as strangers have them: old formats, names that say nothing, parts, and what a download left."""

import bz2
import gzip
import io
import os
import struct
import tarfile
import uuid
import zipfile
from pathlib import Path

import pytest

from vmtests.errors import InputError
from vmtests.host.formats import Other, Packing, identify
from vmtests.host.tools import Toolbox
from vmtests.image.crc32c import crc32c
from vmtests.image.source import adopt, open_disk
from vmtests.machine.disk import backing
from vmtests.sizes import MIB
from vmtests.testing.images import SmallImage, kernel, program, table


def refused(path: Path, toolbox: Toolbox) -> InputError:
    """Return the error with which an image is refused."""
    with pytest.raises(InputError) as caught, open_disk(path, toolbox):
        pass
    return caught.value


@pytest.mark.parametrize("driver", ["qcow", "qed", "parallels"])
def test_the_older_formats_of_qemu_are_taken(driver: str, patient: SmallImage, toolbox: Toolbox) -> None:
    """They are read by what they begin with, whatever their name, and adopted as qcow2."""
    image = patient.path.with_name("image.qcow2")
    toolbox.run("qemu-img", "convert", "-f", "raw", "-O", driver, patient.path, image)
    with open_disk(image, toolbox) as disk:
        assert (disk.format.value, disk.read(512, 8)) == (driver, b"EFI PART")
    assert backing(adopt(image, patient.path.parent, toolbox).path).format == "qcow2"


@pytest.mark.parametrize(
    ("percent", "driver"),
    [(60, "vdi"), (60, "vmdk"), (60, "vhdx"), (60, "qed"), (99, "vdi"), (99, "vhdx"), (60, "qcow"), (99, "qcow")],
)
def test_an_image_whose_end_is_missing_is_refused(
    percent: int, driver: str, patient: SmallImage, toolbox: Toolbox
) -> None:
    """What QEMU would read as zeros is no fault of the disk that was in it."""
    image = patient.path.with_suffix(f".{driver}")
    toolbox.run("qemu-img", "convert", "-f", "raw", "-O", driver, patient.path, image)
    with open_disk(image, toolbox) as disk:
        assert disk.read(512, 8) == b"EFI PART"
    os.truncate(image, image.stat().st_size * percent // 100)
    error = refused(image, toolbox)
    assert "qemu-img ended" not in error.message
    assert error.hint == "copy or download it again"


def test_an_extent_that_is_too_short_is_named(patient: SmallImage, toolbox: Toolbox) -> None:
    """A VMDK that only describes its data is as whole as that is."""
    image = patient.path.with_suffix(".vmdk")
    toolbox.run(
        "qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=monolithicFlat", patient.path, image
    )
    with open_disk(image, toolbox) as disk:
        assert disk.read(512, 8) == b"EFI PART"
    os.truncate(image.with_name("disk-flat.vmdk"), MIB)
    assert "is truncated: disk-flat.vmdk has 1048576 bytes" in refused(image, toolbox).message


@pytest.mark.parametrize("subformat", ["monolithicSparse", "streamOptimized", "twoGbMaxExtentSparse"])
def test_a_vmdk_that_promises_more_than_its_tables_hold_is_refused(
    subformat: str, patient: SmallImage, toolbox: Toolbox
) -> None:
    """QEMU would look at each of a thousand million grains that are not there, which took half a minute for 64 KB."""
    image = patient.path.with_suffix(".vmdk")
    toolbox.run("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}", patient.path, image)
    with open_disk(image, toolbox) as disk:
        assert disk.read(512, 8) == b"EFI PART"
    extent = image.with_name("disk-s001.vmdk") if subformat.startswith("two") else image
    data = extent.read_bytes()
    at = len(data) - 1024 if subformat == "streamOptimized" else 0
    for place in {0, at}:
        data = data[: place + 12] + (1 << 37).to_bytes(8, "little") + data[place + 20 :]
    extent.write_bytes(data)
    told = refused(image, toolbox).message
    assert f"{extent.name} is truncated: it has {len(data)} bytes, and by its headers " in told


def test_a_member_whose_name_says_nothing_is_told_by_its_first_bytes(tmp_path: Path, toolbox: Toolbox) -> None:
    """What was zipped from a pipe is called `-`; a program beside it is none. A zip cuts a name at its first NUL."""
    content = bytes(table([]).content).ljust(2 * MIB, b"\0")
    elf = b"\x7fELF" + bytes(2 * MIB)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("bin/program", elf)
        packed.writestr("-", content)
    (tmp_path / "b.zip").write_bytes((tmp_path / "a.zip").read_bytes().replace(b"bin/program", b"\0in/program"))
    tar(tmp_path / "a.tar", {"bin/program": elf, "fedora": content, "README": b"x" * MIB})
    for name in ("a.zip", "b.zip", "a.tar"):
        with open_disk(tmp_path / name, toolbox) as disk:
            assert (disk.size, disk.read(512, 8)) == (len(content), b"EFI PART")


def tar(path: Path, members: dict[str, bytes]) -> Path:
    """Write a tar."""
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def test_an_archive_in_an_archive_is_unpacked_where_there_is_no_disk(tmp_path: Path, toolbox: Toolbox) -> None:
    """Whatever is before or behind it; beside a disk, or another archive, it is left alone."""
    content = bytes(table([]).content)
    inner = tar(tmp_path / "inner.tar", {"disk.raw": content}).read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("README", b"x")
        packed.writestr("disk.tar.gz", gzip.compress(inner))
    found = [tmp_path / "a.zip", tar(tmp_path / "a.tar", {"a": b"x", "i.tar": inner, "b": b"x"}),
             tar(tmp_path / "b.tar", {"i.tar": b"x", "disk.raw": content})]  # fmt: skip
    for path in found:
        with open_disk(path, toolbox) as disk:
            assert (disk.size, disk.read(512, 8)) == (len(content), b"EFI PART")
    two = tar(tmp_path / "two.tar", {"i.tar": inner, "j.tar": inner})
    assert refused(two, toolbox).message == f"{two} holds i.tar, j.tar, and no disk"


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"oci-layout": b"{}", "blobs/sha256/abc": b"x", "index.json": b"{}"}, "is a container image"),
        ({"manifest.json": b"[]", "abc/layer.tar": b"x"}, "is a container image"),
        ({"metadata.yaml": b"x", "rootfs/etc/passwd": b"x"}, "is the image of a container (Incus, LXD)"),
        ({"./etc/os-release": b"x", "./bin/sh": b"x"}, "holds the files of a system, and no disk"),
        ({"ova.xml": b"x", "Ref:1/00000000": bytes(table([]).content)}, "is an image of XenServer"),
    ],
)
def test_what_is_packed_otherwise_is_called_what_it_is(
    members: dict[str, bytes], words: str, tmp_path: Path, toolbox: Toolbox
) -> None:
    """With a hint of what makes a disk of it."""
    error = refused(tar(tmp_path / "a.tar", members), toolbox)
    assert words in error.message
    assert error.hint is not None
    assert "download" not in error.hint


@pytest.mark.parametrize("name", ["file", "file.raw"])
@pytest.mark.parametrize(
    ("head", "words"),
    [
        (kernel(), "a Linux kernel"),
        (program(), "an EFI program"),
        (bytes(40) + b"_FVH", "a machine's firmware"),
        (b"\xd0\x0d\xfe\xed", "a device tree"),
        (b"\n <!doctype html><title>404</title>", "a web page"),
        (b'{ "error": 404 }', "a text in JSON"),
    ],
)
def test_what_belongs_to_a_disk_is_none(head: bytes, words: str, name: str, tmp_path: Path, toolbox: Toolbox) -> None:
    """A kernel has a boot sector's signature, and boots nothing by that."""
    data = bytearray(head.ljust(MIB, b"x"))
    if words == "a Linux kernel":
        data[510:512] = b"\x55\xaa"
    (tmp_path / name).write_bytes(data)
    error = refused(tmp_path / name, toolbox)
    assert words in error.message
    assert error.hint is not None
    assert "a name that says so" not in error.hint


def test_a_qcow2_that_is_called_raw_is_refused(patient: SmallImage, toolbox: Toolbox) -> None:
    """Nothing is said of the sectors of what is no disk, even where the last one holds a table's backup."""
    image = patient.path.with_name("wrong.raw")
    toolbox.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", patient.path, image)
    with image.open("r+b") as file:
        file.truncate(image.stat().st_size + 512)
        file.seek(-512, os.SEEK_END)
        file.write(b"EFI PART")
    error = refused(image, toolbox)
    assert "is said to be a raw disk, but begins as qcow2 does" in error.message
    assert error.hint is not None
    assert "a name that says so" in error.hint


@pytest.mark.parametrize("name", ["x.raw.gz.001", "x.raw.gz.aa", "x.raw.gz.part1"])
def test_a_part_that_ends_too_early_is_called_one(name: str, tmp_path: Path, toolbox: Toolbox) -> None:
    """To download it again would not help."""
    whole = gzip.compress(bytes(table([]).content) + os.urandom(MIB))
    (tmp_path / name).write_bytes(whole[: MIB // 2])
    error = refused(tmp_path / name, toolbox)
    assert error.message.endswith("is truncated: its gzip data ends too early")
    assert error.hint is not None
    assert error.hint.startswith("it is one part of something that was split: cat ")


@pytest.mark.parametrize("suffix", ["gz", "bz2"])
@pytest.mark.parametrize("behind", [b"signature: abc\n", b"\x1f", bytes(70_000) + b"x" * 200_000, bytes(1000)])
def test_what_is_behind_the_last_member_is_left_out(
    behind: bytes, suffix: str, tmp_path: Path, toolbox: Toolbox
) -> None:
    """As gzip(1) and bzip2(1) do; members behind each other are one stream."""
    content = bytes(table([]).content).ljust(2 * MIB, b"\0")
    pack = gzip.compress if suffix == "gz" else bz2.compress
    (tmp_path / f"a.raw.{suffix}").write_bytes(pack(content[:MIB]) + pack(content[MIB:]) + behind)
    with open_disk(tmp_path / f"a.raw.{suffix}", toolbox) as disk:
        assert (disk.size, disk.read(512, 8)) == (len(content), b"EFI PART")


def test_one_sector_is_too_short(tmp_path: Path, toolbox: Toolbox) -> None:
    """Its protective MBR promises more; that is no fault of a table."""
    (tmp_path / "a.raw").write_bytes(bytes(table([]).content[:512]))
    error = refused(tmp_path / "a.raw", toolbox)
    assert (error.message, error.hint) == (
        f"{tmp_path / 'a.raw'} has 512 bytes, too few for a disk",
        "copy or download it again",
    )


def test_a_difference_is_not_read_as_a_whole(patient: SmallImage, toolbox: Toolbox) -> None:
    """QEMU gives zeros for what is in the parent of a differencing VHD."""
    image = patient.path.with_suffix(".vhd")
    toolbox.run("qemu-img", "convert", "-f", "raw", "-O", "vpc", "-o", "force_size", patient.path, image)
    data = bytearray(image.read_bytes())
    for at in (0, len(data) - 512):
        data[at + 60 : at + 68] = bytes((0, 0, 0, 4, 0, 0, 0, 0))
        data[at + 64 : at + 68] = (~sum(data[at : at + 512]) & 0xFFFFFFFF).to_bytes(4, "big")
    image.write_bytes(data)
    error = refused(image, toolbox)
    assert "is a differencing VHD" in error.message
    assert error.hint is not None
    assert "Merge-VHD" in error.hint


def test_a_log_that_waits_names_the_command_that_replays_it(patient: SmallImage, toolbox: Toolbox) -> None:
    """A VHDX that was not closed is whole; a copy would be the same."""
    image = patient.path.with_name("open one.vhdx")
    toolbox.run("qemu-img", "convert", "-f", "raw", "-O", "vhdx", patient.path, image)
    data, log = bytearray(image.read_bytes()), uuid.uuid4().bytes

    def summed(at: int) -> None:
        struct.pack_into("<I", data, at + 4, 0)
        struct.pack_into("<I", data, at + 4, crc32c(bytes(data[at : at + 4096])) ^ 0xFFFFFFFF)

    for at in (64 << 10, 128 << 10):
        data[at + 48 : at + 64] = log
        summed(at)
    (place,) = struct.unpack_from("<Q", data, (64 << 10) + 72)
    entry = (b"loge", 0, 4096, 0, 1, 0, 0, log, len(data), len(data))
    struct.pack_into("<4sIIIQII16sQQ", data, place, *entry)
    summed(place)
    image.write_bytes(data)
    error = refused(image, toolbox)
    assert "its log has to be replayed" in error.message
    assert error.hint == f"qemu-img check -r all '{image}'"


def test_a_zip_whose_end_is_missing_is_called_truncated(tmp_path: Path, toolbox: Toolbox) -> None:
    """Its list of files is at its end."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("disk.raw", bytes(table([]).content))
    os.truncate(tmp_path / "a.zip", 70_000)
    assert "is truncated" in refused(tmp_path / "a.zip", toolbox).message


def test_a_list_of_files_without_end_is_not_kept_in_memory(tmp_path: Path, toolbox: Toolbox) -> None:
    """A zip's list is as long as it says at its end."""
    with (tmp_path / "a.zip").open("wb") as file:
        file.write(b"PK\3\4")
        file.seek(999 << 20)
        file.write(b"PK\5\6" + bytes(8) + (900 << 20).to_bytes(4, "little") + bytes(6))
    assert refused(tmp_path / "a.zip", toolbox).message.endswith("is damaged: the list of its files does not end")


def test_an_archive_of_nothing_is_empty(tmp_path: Path, toolbox: Toolbox) -> None:
    """A tar of no files is blocks of zeros."""
    (tmp_path / "a.tar").write_bytes(bytes(10240))
    assert refused(tmp_path / "a.tar", toolbox).message.endswith("a.tar is an empty archive")


def test_what_is_encrypted_is_called_so() -> None:
    """By its first bytes, or by its name where these say nothing."""
    for head, name in (
        (b"age-encryption.org/v1\n", "disk"),
        (b"Salted__" + os.urandom(99), "disk"),
        (b"\x85\x02\x0c\x03" + os.urandom(99), "disk.raw.gpg"),
    ):
        found = identify(head, b"", name)
        assert isinstance(found, Other)
        assert found.name == "encrypted"
    assert identify(bytes(4096), b"", "empty.tar") is Packing.TAR
