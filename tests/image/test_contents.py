"""What an image holds, and what differs between two: small images, and trees in file systems that real tools made."""

import contextlib
import gzip
import os
import stat
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmtests.faults import cpio
from vmtests.host.tools import Toolbox
from vmtests.image import contents, erofs
from vmtests.image.diff import Difference, changed, compare
from vmtests.image.erofsfiles import ErofsFiles
from vmtests.image.extfiles import ExtFiles
from vmtests.image.files import FilesError
from vmtests.testing.images import ENTRY, MemoryDisk, SmallImage

ENTRY_PATH = "/loader/entries/nixos.conf"
UNIT = b"[Service]\nExecStart=/bin/a\n"


def initrd(**files: bytes) -> bytes:
    """Pack an initrd; two underscores in a name are a slash, one of them a dot."""
    members: list[cpio.Member] = []
    for name, data in files.items():
        cpio.put(members, "/" + name.replace("__", "/").replace("_", "."), data)
    return gzip.compress(cpio.pack(members))


def difference(one: SmallImage, other: SmallImage) -> list[Difference]:
    """Compare two images."""
    return compare(contents.read(one.path, one.toolbox), contents.read(other.path, other.toolbox))


def test_image_differs_from_its_copy_in_nothing(good: SmallImage, patient: SmallImage) -> None:
    """A copy has the same facts, and there are some of each kind."""
    assert difference(good, patient) == []
    facts = contents.read(good.path, good.toolbox).facts
    assert [section for section in ("partition", "ESP", "kernel", "store") if not facts[section]] == []
    assert not facts["left out"] or set(facts["left out"]) == {"/EFI/nixos/initrd.efi"}


def test_words_of_the_command_line_that_differ_are_named(good: SmallImage, patient: SmallImage) -> None:
    """Of a long line the words that went and came are told, not the line twice."""
    patient.put(ENTRY_PATH, ENTRY.replace("console=", "debug=7 console=").encode())
    (found,) = difference(good, patient)
    assert (found.section, found.name, found.word) == ("ESP", ENTRY_PATH, "changed")
    assert [line for line in found.lines if "debug=7" in line]
    assert not [line for line in found.lines if "init=" in line]


def test_files_and_units_of_the_initrd_are_compared(good: SmallImage, tmp_path: Path) -> None:
    """A file, a unit with its text, and a secret whose content is not told."""
    one, other = good.copy(tmp_path / "one.raw"), good.copy(tmp_path / "other.raw")
    same = {"etc__systemd__system__b_service": UNIT, "etc__shadow": b"root:*:1\n", "bin__tool": b"\x7fELF\0"}
    one.put("/EFI/nixos/initrd.efi", initrd(**same))
    other.put(
        "/EFI/nixos/initrd.efi",
        initrd(
            **{
                **same,
                "etc__systemd__system__b_service": UNIT.replace(b"/a", b"/b"),
                "etc__shadow": b"root::1\n",
                "new": b"1",
            }
        ),
    )
    found = {(d.section, d.name): d for d in difference(one, other)}
    assert {(section, name) for section, name in found if section != "ESP"} == {
        ("initrd", "/etc/shadow"),
        ("initrd", "/new"),
        ("unit", "b.service (initrd)"),
    }
    assert found["unit", "b.service (initrd)"].lines == ("- ExecStart=/bin/a", "+ ExecStart=/bin/b")
    assert found["initrd", "/etc/shadow"].lines == ()
    assert found["initrd", "/new"].word == "added"


def test_store_path_of_another_hash_is_changed(tmp_path: Path) -> None:
    """A package that was built anew, or in another version, is one thing that changed."""
    one, other = contents.Contents(), contents.Contents()
    one.add("store", "systemd", "257.6 (aaaaaaaa)")
    other.add("store", "systemd", "257.7 (bbbbbbbb)")
    assert [(d.word, d.first, d.second) for d in compare(one, other)] == [
        ("changed", "257.6 (aaaaaaaa)", "257.7 (bbbbbbbb)")
    ]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with many names, a large file, an empty one, a link, and one below the other."""
    base = tmp_path_factory.mktemp("tree")
    (base / "many").mkdir()
    for n in range(300):
        (base / f"many/a-name-that-is-rather-long-{n:04}").write_bytes(b"x" * n)
    (base / "deep/er").mkdir(parents=True)
    (base / "deep/er/large").write_bytes(os.urandom(300_000))
    (base / "deep/link").symlink_to("er/large")
    return base


def listed(files: ErofsFiles | ExtFiles) -> dict[str, tuple[int, bytes]]:
    """Return kind and content of all files."""
    found = {}
    for path, mode, _size, content in files.walk(10_000, lambda _: True):
        kind = stat.S_IFMT(mode)
        found[path] = (kind, b"" if kind == stat.S_IFDIR else b"".join(content()))
    return found


def truth(tree: Path) -> dict[str, tuple[int, bytes]]:
    """Return the same of a directory."""
    return {
        f"/{path.relative_to(tree)}": (
            stat.S_IFMT(path.lstat().st_mode),
            str(path.readlink()).encode() if path.is_symlink() else b"" if path.is_dir() else path.read_bytes(),
        )
        for path in tree.rglob("*")
    }


@pytest.mark.parametrize("options", [(), ("-Enoinline_data",), ("--chunksize=4096",), ("-b512",)])
def test_files_of_an_erofs_are_those_that_went_in(
    tree: Path, tmp_path: Path, toolbox: Toolbox, options: tuple[str, ...]
) -> None:
    """However mkfs.erofs lays them out."""
    toolbox.run("mkfs.erofs", "--quiet", *options, tmp_path / "image", tree)
    assert listed(ErofsFiles(MemoryDisk((tmp_path / "image").read_bytes()))) == truth(tree)


def test_compressed_file_is_listed_and_not_read(tree: Path, tmp_path: Path, toolbox: Toolbox) -> None:
    """Its name and size are known; its content is said to be compressed."""
    toolbox.run("mkfs.erofs", "--quiet", "-zlz4", tmp_path / "image", tree)
    files = ErofsFiles(MemoryDisk((tmp_path / "image").read_bytes()))
    found = {path: (size, content) for path, _, size, content in files.walk(10_000, lambda _: True)}
    assert found["/many/a-name-that-is-rather-long-0299"][0] == 299
    packed = [content for path, (_, content) in found.items() if path == "/deep/er/large"]
    assert packed


def test_files_of_an_ext4_are_those_that_went_in(tree: Path, tmp_path: Path, toolbox: Toolbox) -> None:
    """With what mkfs adds itself."""
    (tmp_path / "image").touch()
    os.truncate(tmp_path / "image", 16 << 20)
    toolbox.run("mkfs.ext4", "-q", "-d", tree, tmp_path / "image")
    found = listed(ExtFiles(MemoryDisk((tmp_path / "image").read_bytes())))
    found.pop("/lost+found")
    assert found == truth(tree)


@pytest.mark.parametrize("length", [112, 115, 127])
def test_erofs_that_ends_in_its_superblock_is_none(length: int) -> None:
    """Not even one that says that the number of its root, which is behind, has 64 bits."""
    head = bytearray(128)
    struct.pack_into("<I", head, 0, erofs.MAGIC)
    struct.pack_into("<B", head, 12, 12)
    struct.pack_into("<I", head, 80, 0x80)
    with pytest.raises(FilesError, match="no erofs superblock"):
        ErofsFiles(MemoryDisk(bytes(1024) + bytes(head[:length])))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_hostile_erofs_ends_in_a_sentence(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever bytes are flipped, a walk ends: with files, or with FilesError."""
    image = bytearray(_small_erofs(tmp_path_factory))
    for _ in range(data.draw(st.integers(1, 30))):
        image[data.draw(st.integers(1024, len(image) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(FilesError):
        assert isinstance(listed(ErofsFiles(MemoryDisk(bytes(image)))), dict)


_MADE: list[bytes] = []


def _small_erofs(factory: pytest.TempPathFactory) -> bytes:
    if not _MADE:
        from vmtests.host import tools

        base = factory.mktemp("erofs")
        (base / "tree/a/b").mkdir(parents=True)
        (base / "tree/a/b/c").write_bytes(b"c" * 5000)
        tools.find().run("mkfs.erofs", "--quiet", base / "image", base / "tree")
        _MADE.append((base / "image").read_bytes())
    return _MADE[0]


def test_lines_that_differ_are_told_in_order() -> None:
    """What went has a minus, what came a plus; a flood is cut."""
    assert list(changed(("a", "b", "c"), ("a", "x", "c", "d"))) == ["- b", "+ x", "+ d"]
    assert list(changed((), tuple(map(str, range(100)))))[-1] == "… and more lines"


def test_lines_that_are_repeated_without_end_are_compared_at_once() -> None:
    """Of many lines those are told that only one of both has."""
    one, other = ("a", "b", "c") * 3000, ("a", "b", "d") * 3000
    began = time.process_time()
    told = list(changed(one, other))
    assert time.process_time() - began < 1
    assert ("- c", "… and more lines") == (told[0], told[-1])
    assert ["… and more lines"] == list(changed(("a", "b") * 1000, ("b", "a") * 1000))


def test_link_of_any_size_is_not_read() -> None:
    """An inode may say that its link has gigabytes, all of them holes."""

    def endless() -> Iterator[bytes]:
        raise AssertionError

    assert ("link of 5000 bytes", None) == contents._told("/x", stat.S_IFLNK | 0o777, 5000, endless)
    assert ("link to /y", None) == contents._told("/x", stat.S_IFLNK | 0o777, 2, lambda: iter((b"/y",)))


def test_lines_are_kept_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the many texts of a large image the digests are enough."""
    monkeypatch.setattr(contents, "_TEXTS", 10)
    found = contents.Contents()
    for name in ("a", "b", "c"):
        found.add("store", name, name, ("12345",))
    assert [("12345",), ("12345",), None] == [found.facts["store"][name].lines for name in ("a", "b", "c")]


def _facts(*facts: tuple[str, str], place: int = 0) -> contents.Contents:
    found = contents.Contents(place=place)
    for name, told in facts:
        found.add("file", name, told)
    return found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([(f"/{'d' * 400}", str(n)) for n in range(20)], [(f"/{'d' * 400}", str(n)) for n in range(30)]),
        ([(f"/{'d' * 400}a", "x")], [(f"/{'d' * 400}b", "x")]),
        ([("/\1", "x"), ("/\2", "x")], [("/\1", "x")]),
        ([("/\udcfe", "x")], [("/\udcff", "x")]),
        ([("/a", "x")], [("/a", "x"), ("/a", "x")]),
        ([(f"/{n}", "x") for n in range(9)], [(f"/{n}", "x") for n in range(8)]),
    ],
    ids=[
        "many of one name",
        "long names",
        "unprintable names",
        "names in no encoding",
        "the same twice",
        "many names",
    ],
)
def test_images_that_differ_are_never_called_equal(
    one: list[tuple[str, str]], other: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not shown of a name, or not kept of many facts, is counted and summed up, in whatever order it came."""
    monkeypatch.setattr(contents, "_NAMES", 4)
    assert compare(_facts(*one), _facts(*other))
    assert not compare(_facts(*one), _facts(*one))
    if len({name for name, _ in one}) < 4:
        assert not compare(_facts(*one), _facts(*reversed(one)))


def test_name_with_too_many_facts_is_told_beside_other_differences() -> None:
    """Not only where nothing else differs."""
    many = [("/a", f"{n:02}") for n in range(40)]
    found = compare(_facts(*many, ("/b", "x")), _facts(*many[:-1], ("/a", "40"), ("/b", "y")))
    assert [d.name for d in found] == ["/a", "/b"]
    assert "; 15; and more, 40 in all, sum " in found[0].first
    assert found[0].first != found[0].second


def test_same_file_in_another_partition_is_a_difference() -> None:
    """Both roots of an image that has two may have the same."""
    (found,) = compare(_facts(("/a", "x"), place=1), _facts(("/a", "x"), place=2))
    assert (found.section, found.word) == ("left out", "changed")


def test_files_that_are_too_many_are_left_out(tree: Path, tmp_path: Path, toolbox: Toolbox) -> None:
    """A walk that has come to its limit says so: what follows may differ."""
    toolbox.run("mkfs.erofs", "--quiet", tmp_path / "erofs", tree)
    (tmp_path / "ext4").touch()
    os.truncate(tmp_path / "ext4", 16 << 20)
    toolbox.run("mkfs.ext4", "-q", "-d", tree, tmp_path / "ext4")
    for kind, files in ("erofs", ErofsFiles), ("ext4", ExtFiles):
        with pytest.raises(FilesError, match="more files than are read"):
            list(files(MemoryDisk((tmp_path / kind).read_bytes())).walk(100, lambda _: True))
