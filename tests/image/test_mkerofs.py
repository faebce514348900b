"""The store is written whole, whatever the number and the names of its paths, or not at all."""

import os
from pathlib import Path

import pytest

from tests.image.conftest import listed
from vmtests import progress
from vmtests.errors import HostError, InputError
from vmtests.host.sandbox import View, run_in, sandbox
from vmtests.host.tools import Toolbox
from vmtests.image import grouping, mkerofs
from vmtests.image.compression import Compression, parse
from vmtests.image.survey import survey
from vmtests.sizes import KIB


def _write(directory: Path, file: Path, toolbox: Toolbox, compression: Compression | None = None) -> int:
    volume = mkerofs.Volume(
        label="store", uuid="0" * 8 + "-0000-0000-0000-" + "0" * 12, compression=compression or Compression()
    )
    names = [path.name for path in directory.iterdir()]
    totals = survey((name, directory / name) for name in names)
    with progress.step("test") as running:
        return mkerofs.write(file, volume, directory, names, totals, toolbox, running)


def _extracted(file: Path, to: Path, toolbox: Toolbox) -> dict[str, tuple[int, bytes | Path | None]]:
    """Return what fsck.erofs finds, which also checks every directory's `..`."""
    run_in(toolbox.root("fsck.erofs"), ["fsck.erofs", f"--extract={to}", str(file)])
    return listed(to)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with every kind of path: directory, file, symlink, names that sort before dots, hard links."""
    directory = tmp_path / "store"
    for number in range(300):
        path = directory / f"{number:032}-thing"
        (path / "+plus").mkdir(parents=True)
        (path / "file").write_bytes(bytes([number % 256]) * (number * 37))
        (path / "file").chmod(0o444)
        os.link(path / "file", path / "linked")
        (path / "to").symlink_to(f"../{number:032}-thing/file")
    (directory / ("a" * 32 + "-file")).write_text("alone")
    (directory / ("b" * 32 + "-link")).symlink_to("/nowhere")
    (directory / "short").mkdir()
    (directory / "ab").write_text("short")
    return directory


def test_everything_is_in_the_file_system(store: Path, tmp_path: Path, toolbox: Toolbox) -> None:
    """What is read back is what was given, and the empty .links."""
    _write(store, tmp_path / "erofs", toolbox)
    found = _extracted(tmp_path / "erofs", tmp_path / "out", toolbox)
    assert found.pop(".links")[0] == 0o40755
    assert found == listed(store)


def test_many_names_are_grouped_for_mkfs_only(
    store: Path, tmp_path: Path, toolbox: Toolbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The groups that keep the time linear are not in the file system, and each path is in its root again."""
    monkeypatch.setattr(grouping, "LEAST", 10)
    size = _write(store, tmp_path / "erofs", toolbox)
    assert size == (tmp_path / "erofs").stat().st_size
    found = _extracted(tmp_path / "erofs", tmp_path / "out", toolbox)
    del found[".links"]
    assert found == listed(store)


@pytest.mark.parametrize("how", ["lz4hc,level=9,cluster=16K", "zstd,level=1,fragments", "lz4,dedupe,fragments"])
def test_compressed_store_is_the_same_store(how: str, store: Path, tmp_path: Path, toolbox: Toolbox) -> None:
    """Compression changes the size, and nothing that is read."""
    plain = _write(store, tmp_path / "plain", toolbox)
    assert _write(store, tmp_path / "erofs", toolbox, parse(how)) < plain
    found = _extracted(tmp_path / "erofs", tmp_path / "out", toolbox)
    del found[".links"]
    assert found == listed(store)


def test_what_mkfs_says_needs_no_disk(
    store: Path, tmp_path: Path, toolbox: Toolbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mkfs.erofs waits for ever when a thread of it cannot write; that it says so first is not on a full disk."""
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent")
    assert _write(store, tmp_path / "erofs", toolbox, parse("lz4"))


def test_a_store_without_content_has_no_fragments(tmp_path: Path, toolbox: Toolbox) -> None:
    """Where no file has an end that could be kept elsewhere, no inode is made for them."""
    (tmp_path / "store/path").mkdir(parents=True)
    (tmp_path / "store/path/empty").touch()
    _write(tmp_path / "store", tmp_path / "erofs", toolbox, parse("lz4,fragments"))
    assert {"path/empty", "path", ".links"} == _extracted(tmp_path / "erofs", tmp_path / "out", toolbox).keys()


def test_groups_are_told_apart_where_names_differ() -> None:
    """Names that begin alike are spread by the characters that differ: a counter's last digits."""
    names = [f"{number:032}-x" for number in range(grouping.LEAST)]
    expression = grouping.transform(names)
    assert expression is not None
    assert r"\{28\}" in expression
    assert grouping.transform(names[1:]) is None


def test_path_that_cannot_be_read_ends_the_build(store: Path, tmp_path: Path, toolbox: Toolbox) -> None:
    """A name that is not there is an error of tar that ends mkfs.erofs, which would wait for ever."""
    volume = mkerofs.Volume(label="x", uuid="0" * 8 + "-0000-0000-0000-" + "0" * 12, compression=Compression())
    totals = survey([("x", store)])
    with pytest.raises(HostError, match=r"tar ended with 2.*none"), progress.step("test") as running:
        mkerofs.write(tmp_path / "erofs", volume, store, ["none"], totals, toolbox, running)


@pytest.mark.parametrize(
    ("struck", "script"),
    [
        ("tar", "kill -KILL $$"),
        ("tar", '"$@" | head -c 4096; kill -KILL $$'),
        ("mkfs.erofs", "head -c 4096 >/dev/null; kill -KILL $$"),
    ],
)
def test_the_one_that_was_killed_is_named(
    store: Path, tmp_path: Path, toolbox: Toolbox, monkeypatch: pytest.MonkeyPatch, struck: str, script: str
) -> None:
    """When one of the two ends before the stream does, the other one fails as well, and is not blamed."""
    real = Toolbox.argv

    def argv(self: Toolbox, name: str, *further: str | os.PathLike[str], view: View | None = None) -> list[str]:
        if name != struck:
            return real(self, name, *further, view=view)
        return [*sandbox(Path("/")), "sh", "-c", script, "sh", name, *(os.fspath(one) for one in further)]

    monkeypatch.setattr(Toolbox, "argv", argv)
    with pytest.raises(HostError, match=f"{struck} ended with 137"):
        _write(store, tmp_path / "erofs", toolbox, parse("lz4"))


def test_file_system_with_less_than_was_counted_is_refused(store: Path, tmp_path: Path, toolbox: Toolbox) -> None:
    """What mkfs.erofs says to have written is compared with what there was."""
    volume = mkerofs.Volume(label="x", uuid="0" * 8 + "-0000-0000-0000-" + "0" * 12, compression=Compression())
    totals = survey([("x", store)])
    with pytest.raises(HostError, match="whole file system"), progress.step("test") as running:
        mkerofs.write(tmp_path / "erofs", volume, store, ["ab"], totals, toolbox, running)


@pytest.mark.parametrize("least", [10, 10_000])
def test_a_file_that_became_a_fifo_is_in_no_image(
    store: Path, tmp_path: Path, toolbox: Toolbox, monkeypatch: pytest.MonkeyPatch, least: int
) -> None:
    """What was looked at may be another when tar comes to it, which takes a FIFO like anything; grouped or not."""
    monkeypatch.setattr(grouping, "LEAST", least)
    volume = mkerofs.Volume(label="x", uuid="0" * 8 + "-0000-0000-0000-" + "0" * 12, compression=parse("lz4"))
    names = [path.name for path in store.iterdir()]
    totals = survey((name, store / name) for name in names)
    file = store / f"{7:032}-thing/file"
    file.unlink()
    os.mkfifo(file)
    said = f"^{7:032}-thing/file changed while it was read"
    with pytest.raises(HostError, match=said), progress.step("test") as running:
        mkerofs.write(tmp_path / "erofs", volume, store, names, totals, toolbox, running)


def test_compression_is_read_from_one_line() -> None:
    """Each word of the line becomes an argument of mkfs.erofs."""
    assert parse("none") == Compression()
    assert parse("lz4hc,9") == parse("lz4hc,level=9")
    assert parse("zstd,level=3,cluster=64K,dedupe,fragments,workers=2").arguments() == [
        "-zzstd,level=3",
        "-Enoinline_data,dedupe,fragments",
        f"-C{64 * KIB}",
        "--workers=2",
    ]


@pytest.mark.parametrize(
    "how",
    [
        *(
            "lz4",
            "lz4hc,0",
            "lz4hc,12",
            "deflate,1",
            "deflate,9",
            "libdeflate,0",
            "libdeflate,12",
            "zstd,0",
            "zstd,22",
        ),
        *("lzma,0", "lzma,9", "lzma,100", "lzma,109", "zstd,cluster=4K", "lz4,cluster=1M"),
    ],
)
def test_every_level_that_is_taken_is_one_of_mkfs(how: str, tmp_path: Path, toolbox: Toolbox) -> None:
    """The lowest and the highest of each algorithm, so that none is found out after the store was read."""
    (tmp_path / "store/path").mkdir(parents=True)
    (tmp_path / "store/path/file").write_bytes(bytes(KIB) * 64)
    assert _write(tmp_path / "store", tmp_path / "erofs", toolbox, parse(how))


@pytest.mark.parametrize("how", ["lz4,0", "lz4,level=1", "lz4hc,13", "deflate,0", "lzma,10", "lzma,99", "zstd,23"])
def test_a_level_that_mkfs_refuses_is_refused_before(how: str) -> None:
    """Each algorithm has its own."""
    with pytest.raises(InputError, match="is no option of the compression"):
        parse(how)
