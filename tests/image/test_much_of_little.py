"""Small images that mean much work: trees that lead to themselves, files of holes, a million of the same."""

import gzip
import itertools
import stat
import struct
import time
from pathlib import Path

import pytest

from vmtests.host.tools import Toolbox
from vmtests.image import contents, extfiles, grub, initramfs, kallsyms
from vmtests.image.contents import Contents
from vmtests.image.extfiles import ExtFiles
from vmtests.image.fatfiles import FatFiles
from vmtests.image.files import FilesError
from vmtests.testing.images import MemoryDisk

_BLOCK = 1024
_FIRST = 10
_MOST = 84  # entries of a node in a block


def node(level: int, block: int, count: int = _MOST) -> bytes:
    """Return a node of an extent tree whose entries all lead to one block, and begin where the file does."""
    entry = struct.pack("<IHHI", 0, 1, 0, block) if level == 0 else struct.pack("<IIHH", 0, block, 0, 0)
    return struct.pack("<HHHHI", 0xF30A, count, count, level, 0) + entry * count


def ext4(root: bytes, *blocks: bytes) -> MemoryDisk:
    """Return an ext4 whose root directory has this extent tree, and these blocks from _FIRST on."""
    disk = MemoryDisk(bytes(64 * _BLOCK))
    struct.pack_into("<I", disk.content, 1024, 32)  # inodes
    struct.pack_into("<II", disk.content, 1024 + 0x14, 1, 0)
    struct.pack_into("<I", disk.content, 1024 + 0x28, 32)
    disk.content[1024 + 0x38 : 1024 + 0x3A] = b"\x53\xef"
    struct.pack_into("<I", disk.content, 2 * _BLOCK + 8, 4)  # where the inodes are
    inode = bytearray(128)
    struct.pack_into("<HHI", inode, 0, 0x41ED, 0, 1 << 22)
    struct.pack_into("<I", inode, 32, 0x80000)
    inode[40 : 40 + len(root)] = root
    disk.content[4 * _BLOCK + 128 : 4 * _BLOCK + 256] = inode
    for number, block in enumerate(blocks, _FIRST):
        disk.content[number * _BLOCK : number * _BLOCK + len(block)] = block
    return disk


@pytest.mark.parametrize(
    "blocks",
    [
        [node(4, _FIRST)],
        [node(level, _FIRST + 5 - level) for level in (4, 3, 2, 1)] + [node(0, 1)],
        [node(level, _FIRST + 5 - level) for level in (4, 3, 2, 1)] + [node(0, 1, 0)],
    ],
    ids=["itself", "the same leaf", "the same leaf, empty"],
)
def test_extent_tree_that_leads_to_the_same_again_is_none(blocks: list[bytes]) -> None:
    """Four billion ways to one block are not gone: extents are in order, and a file has so many nodes at most."""
    files = ExtFiles(ext4(node(5, _FIRST, 1), *blocks))
    with pytest.raises(FilesError, match="extent tree"):
        files.find("/a")


def fat(root: bytes) -> bytes:
    """Return the begin of a FAT12 of 2,048 clusters, all of which lead to the second, and of these names."""
    head = b"\xeb\x3c\x90mkfs.fat" + struct.pack("<HBHBHHBH", 512, 8, 1, 1, 1024, 16384, 0xF8, 7)
    table = bytes.fromhex("022000") * 1024
    return head.ljust(510, b"\0") + b"\x55\xaa" + table.ljust(7 * 512, b"\0") + root.ljust(1024 * 32, b"\0")


def entries(*names: str) -> bytes:
    """Return directories of a FAT, each in a cluster of its own."""
    return b"".join(
        struct.pack("<11sB14xHI", name.encode().ljust(11), 0x10, number, 0) for number, name in enumerate(names, 2)
    )


def test_directories_of_a_fat_that_share_their_clusters_come_to_an_end(tmp_path: Path) -> None:
    """Each is two megabytes of the same: so many bytes are looked at, and no path has a hundred thousand names."""
    with (tmp_path / "fat").open("w+b") as file:
        file.write(fat(entries(*(f"D{number}" for number in range(900)))))
        file.truncate(16384 * 512)
        file.flush()
        files = FatFiles(file.fileno(), 0)
        with pytest.raises(FilesError, match="lead to too much"):
            files.names()
        assert files.find("/D1" * 100_000) is None


def test_links_through_large_directories_come_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A path may have thousands of names, each in a directory of megabytes: in all so much is looked at."""
    monkeypatch.setattr(extfiles, "_LOOKED_AT", 10_000)
    large = struct.pack("<IHB5x", 0, 12, 0) * (_BLOCK // 12)
    leaf = struct.pack("<HHHHI", 0xF30A, 1, 4, 0, 0) + struct.pack("<IHHI", 0, 1, 0, _FIRST)
    files = ExtFiles(ext4(leaf, large))
    with pytest.raises(FilesError, match="lead to too much"):
        all(files.find("/a") is None for _ in range(1000))


def test_file_of_holes_is_read_as_far_as_it_is_compared() -> None:
    """A petabyte of nothing is told by its size, without reading on."""
    told, lines = contents._told("/a", stat.S_IFREG, 1 << 50, lambda: itertools.repeat(bytes(1 << 20)))
    assert told.startswith(f"0000 {1 << 50} bytes, sha256")
    assert lines is None


def test_many_facts_of_one_name_are_few() -> None:
    """An archive can hold one name as often as it likes."""
    found = Contents()
    for number in range(100_000):
        found.add("initrd", "/a", f"{number} bytes")
    assert found.facts["initrd"]["/a"].told.count("; ") < 20


def test_names_that_no_file_has_are_not_kept(toolbox: Toolbox) -> None:
    """What no file system could hold as a module costs no memory: an initrd of a few kilobytes has plenty of it."""

    def member(name: str, content: bytes = b"") -> bytes:
        raw = name.encode() + b"\0"
        head = b"070701" + b"".join(b"%08x" % n for n in (0, 0o644, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(raw), 0))
        data = head + raw + bytes(-(len(head) + len(raw)) % 4)
        return data + content + bytes(-len(content) % 4)

    place = "lib/modules/6.1"
    names = [f"{place}/{'x' * 3000}{number}.ko" for number in range(500)]
    builtin = [member(f"lib/modules/6.{number}/modules.builtin", b"kernel/a.ko\n") for number in range(100)]
    packed = gzip.compress(b"".join(map(member, [*names, f"{place}/kernel/ext4.ko"])) + b"".join(builtin))
    found = initramfs.scan(iter([packed]), toolbox)
    assert found.loadable == {"6.1": {"ext4"}}
    assert sum(map(bool, found.builtin.values())) == 16


@pytest.mark.parametrize(
    "script",
    [
        "set a=xxxx\n" + "set a=$a$a\n" * 60 + "menuentry a {\n linux /k $a\n}\n" * 1000,
        "set a=xxxx\n" * 11 + "linux " + "$a" * 100_000,
        "".join(f"set a{n}=b\n" for n in range(12_000)) + "menuentry a {\n}\n" * 1000,
        "a " * 120_000,
        "".join(f"a{n}=b;" for n in range(300)) + "if a; then b=$b$b; else b=c; fi;" * 8000,
        "[ " + "( " * 120_000 + "]",
        "if " * 80_000,
        "blscfg;" * 30_000,
    ],
    ids=["doubled", "repeated", "many", "one line", "branches", "brackets", "conditions", "entries"],
)
def test_variables_of_a_boot_loader_do_not_grow_without_end(script: str) -> None:
    """A configuration of some hundred bytes can name a terabyte: no kernel takes such a line."""
    begun = time.process_time()
    menu = grub.parse(script)
    assert all(len(entry.options) < 5000 for entry in menu.entries)
    assert time.process_time() - begun < 6


def test_kernel_of_tables_is_given_up() -> None:
    """What looks like the table of a kernel's names a million times, and packs to nothing, is looked at some times."""
    begun = time.process_time()
    assert kallsyms.read(b"".join(b"%d\0" % digit for digit in range(10)) * 500_000) is None
    assert time.process_time() - begun < 6
