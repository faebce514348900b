"""The files of a FAT are those that firmware sees, whatever the host's language, and a broken one ends."""

import os
import random
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmtests.host.sandbox import run_in
from vmtests.host.tools import Toolbox
from vmtests.image.fatfiles import FatFiles
from vmtests.image.files import FilesError
from vmtests.sizes import MIB

_FAT, _ROOT, _DATA = 512, 1024, 1536  # of the small one, which has sixteen names in its root


@contextmanager
def _opened(content: bytes) -> Iterator[FatFiles]:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        yield FatFiles(file.fileno(), 0)


def _short(name: bytes, cluster: int = 2, size: int = 5, attributes: int = 0x20, case: int = 0) -> bytes:
    return struct.pack("<11sBB13xHI", name, attributes, case, cluster, size)


def _long(name: str, short: bytes) -> bytes:
    """Return the entries of a long name, the last part first."""
    checksum = 0
    for byte in short:
        checksum = ((checksum & 1) << 7) + (checksum >> 1) + byte & 0xFF
    data = name.encode("utf-16-le") + b"\0\0"
    parts = [data[at : at + 26].ljust(26, b"\xff") for at in range(0, len(data), 26)]
    entries = []
    for number, part in enumerate(parts, start=1):
        last = 0x40 if number == len(parts) else 0
        head = bytes([number | last]) + part[:10] + bytes([0x0F, 0, checksum])
        entries.append(head + part[10:22] + bytes(2) + part[22:])
    return b"".join(reversed(entries))


def _small(root: bytes, fat: bytes = b"\xf8\xff\xff\xff\x0f\x00") -> bytes:
    """Return a FAT12 of 64 sectors with one file of five bytes in cluster 2."""
    sector = b"\xeb\x3c\x90mkfs.fat" + struct.pack("<HBHBHHBH", 512, 1, 1, 1, 16, 64, 0xF8, 1)
    head = sector.ljust(510, b"\0") + b"\x55\xaa"
    return (head + fat.ljust(512, b"\0") + root.ljust(512, b"\0") + b"hello").ljust(64 * 512, b"\0")


@pytest.mark.parametrize("name", ["Äpfel 6.1 [x] (é)", "日本語のカーネル.efi", "Ω*"])
def test_a_long_name_is_what_is_written_there(name: str) -> None:
    """Neither the host's language nor a tool's patterns have a part in it."""
    short = b"NAME~1  EFI"
    with _opened(_small(_long(name, short) + _short(short))) as files:
        assert files.names() == {f"/{name.lower()}": f"/{name}"}
        assert files.find(name.upper()) == f"/{name}"
        assert files.find("\\name~1.EFI") == f"/{name}"
        assert files.read(f"/{name}", 100) == b"hello"


def test_a_long_name_of_another_file_is_none() -> None:
    """What an older driver left behind has another checksum; a deleted file and a label are no files."""
    root = _short(b"LABEL      ", attributes=0x08) + _short(b"\xe5ONE       ")
    root += _long("another.efi", b"ANOTHE~1EFI") + _short(b"KERNEL  EFI", case=0x18) + _short(b"\x05   X      ")
    with _opened(_small(root)) as files:
        assert list(files.names().values()) == ["/kernel.efi", "/\xe5   X"]


def test_clusters_that_lead_nowhere_are_said() -> None:
    """A file whose clusters end, go in a circle or leave the file system cannot be read; its name can."""
    circle = b"\xf8\xff\xff\x02\x00\x00"
    for fat, size, words in (
        (b"", 5, ""),
        (b"", 600, "end before it does|lead out of it"),
        (circle, 40_000, "go in a circle"),
    ):
        root = _short(b"KERNEL     ", size=size)
        with _opened(_small(root, fat) if fat else _small(root)) as files:
            assert files.find("/kernel") == "/KERNEL"
            if words:
                with pytest.raises(FilesError, match=words):
                    files.read("/KERNEL", size)
            else:
                assert files.read("/KERNEL", size) == b"hello"
    with _opened(_small(_short(b"KERNEL     ", cluster=999))) as files, pytest.raises(FilesError, match="lead out"):
        files.read("/KERNEL", 5)


@given(st.binary(max_size=512), st.binary(max_size=64))
def test_any_bytes_are_files_or_a_sentence(root: bytes, fat: bytes) -> None:
    """Reading ends, and raises nothing else."""
    with _opened(_small(root, fat)) as files:
        try:
            for path in files.names().values():
                files.read(path, 1 << 20)
        except FilesError as error:
            said = str(error)
        else:
            said = ""
    assert said.isprintable()


@pytest.mark.parametrize("options", [("-F12", "-s8"), ("-F16", "-s2"), ("-F32", "-s1"), ("-F16", "-s1", "-S4096")])
def test_what_mtools_wrote_is_read_back(options: tuple[str, ...], tmp_path: Path, toolbox: Toolbox) -> None:
    """Whatever the type, the sectors and how far a file is scattered."""
    disk, tree, chance = tmp_path / "fat", toolbox.root("mcopy"), random.Random(7)
    size = 40 if {"-F32", "-S4096"} & set(options) else 8
    with disk.open("wb") as file:
        file.truncate(size * MIB)
    run_in(tree, ["mkfs.vfat", *options, os.fspath(disk)])
    written: dict[str, bytes] = {}
    for name in ("one", "two"):
        (tmp_path / name / "EFI" / "A directory with a long name").mkdir(parents=True)
        for number in range(24):
            directory = ("", "/EFI", "/EFI/A directory with a long name")[number % 3]
            path, content = f"{directory}/file {number} of {name}.Bin", chance.randbytes(chance.randrange(60_000))
            (tmp_path / name / path.lstrip("/")).write_bytes(content)
            written[path] = content
        tops = [os.fspath(path) for path in sorted((tmp_path / name).iterdir())]
        run_in(tree, ["mcopy", "-s", "-D", "o", "-i", os.fspath(disk), *tops, "::/"])
        gone = [path for path in written if name == "one" and len(written[path]) % 2]
        if gone:  # into the holes goes what comes next
            run_in(tree, ["mdel", "-i", os.fspath(disk), *(f"::{path}" for path in gone)])
        written = {path: content for path, content in written.items() if path not in gone}
    with disk.open("rb") as opened:
        files = FatFiles(opened.fileno(), 0)
        assert sorted(files.names().values()) == sorted(written)
        assert {path: files.read(path, MIB) for path in written} == written
        path, content = max(written.items(), key=lambda item: len(item[1]))
        assert files.pick(path, ((5000, 9000), (len(content) - 1, 10))) == [content[5000:14_000], content[-1:]]
        assert files.below("/efi", ".bin") == sorted(path for path in written if path.count("/") == 2)
