"""What is put on the root partition is put there, and never where a symlink leads on the host that builds."""

import contextlib
import ctypes
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vmtests.contract import Contract
from vmtests.errors import InputError
from vmtests.host.scratch import remove
from vmtests.host.tools import Toolbox
from vmtests.image import rootfiles
from vmtests.image.spec import ImageSpec, RootEntry, StoreSpec

_Fill = Callable[..., Path]
_ORDINARY = 65534
_libc = ctypes.CDLL(None)


@contextlib.contextmanager
def _ordinary() -> Iterator[None]:
    """Have this thread's access to files be that of an ordinary user (setfsuid(2), capabilities(7))."""
    before = _libc.setfsuid(_ORDINARY if os.geteuid() == 0 else -1)
    try:
        yield
    finally:
        _libc.setfsuid(before)


@pytest.fixture
def own() -> Iterator[Path]:
    """A directory of an ordinary user's."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        if os.geteuid() == 0:
            os.chown(directory, _ORDINARY, _ORDINARY)
        yield Path(directory)


@pytest.fixture
def fill(tmp_path: Path, contract: Contract) -> _Fill:
    """Fills a root with entries, and gives it; beside it are a tree with symlinks, a file, and `host`."""
    (tmp_path / "tree/dir").mkdir(parents=True)
    (tmp_path / "tree/dir/file").write_text("of the tree")
    (tmp_path / "host").mkdir()
    (tmp_path / "tree/out").symlink_to(tmp_path / "host")
    (tmp_path / "tree/outfile").symlink_to(tmp_path / "host/file")
    (tmp_path / "other/out").mkdir(parents=True)
    (tmp_path / "other/out/file").write_text("of the other")
    (tmp_path / "file").write_text("alone")
    (tmp_path / "registration").write_text("")

    def filled(*entries: RootEntry, registration: Path | None = None) -> Path:
        store = StoreSpec(directory=tmp_path)
        spec = ImageSpec(version=1, name="test", esp={}, store=store, root=entries, registration=registration)
        rootfiles.fill(spec, contract, tmp_path / "root")
        return tmp_path / "root"

    return filled


def _entry(path: str, source: Path | None = None, symlink: Path | None = None) -> RootEntry:
    return RootEntry(path=path, source=source, symlink=None if symlink is None else str(symlink))


def test_later_entries_add_to_trees(fill: _Fill, tmp_path: Path, contract: Contract) -> None:
    """A file may be another, a directory gets more; mount points are made."""
    root = fill(
        _entry("/etc", tmp_path / "tree"),
        _entry("/etc/dir/file", tmp_path / "file"),
        _entry("/etc/dir/link", symlink=Path("file")),
        _entry("/etc/dir"),
        _entry("/srv/dir/deep", tmp_path / "file"),
        _entry("/srv", tmp_path / "tree"),
    )
    assert (root / "etc/dir/file").read_text() == "alone"
    assert (root / "etc/out").is_symlink()
    assert (root / "srv/dir/file").read_text() == "of the tree"
    assert (root / "srv/dir/deep").read_text() == "alone"
    assert (root / contract.store.mount.lstrip("/")).is_dir()


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        (["/etc=tree", "/etc/out=file"], "/etc/out cannot be made: /etc/out is there already, and a symlink"),
        (["/etc=tree", "/etc/outfile=file"], "/etc/outfile is there already, and a symlink"),
        (["/etc=tree", "/etc/out"], "/etc/out is there already, and a symlink"),
        (["/etc=tree", "/etc/out/x"], "/etc/out/x cannot be made: /etc/out is there already, and a symlink"),
        (["/etc=tree", "/etc/dir/file/x"], "/etc/dir/file is there already, and a file"),
        (["/etc=tree", "/etc/dir=file"], "/etc/dir is there already, and a directory"),
        (["/etc/out>host", "/etc=other"], "/etc/out is there already, and a symlink"),
        (["/etc/dir/file/x", "/etc=tree"], "/etc/dir/file is there already, and a directory"),
        (["/nix>host"], "image test: /nix/store cannot be made: /nix is there already, and a symlink"),
        (["/nix=file"], "/nix is there already, and a file"),
        (["/nix/var>host"], "/nix/var/nix/db cannot be made: /nix/var is there already, and a symlink"),
    ],
)
def test_nothing_is_written_through_a_symlink(fill: _Fill, tmp_path: Path, paths: list[str], says: str) -> None:
    """Neither by an entry, nor by a tree that is copied over others, a mount point or the database."""
    entries = []
    for text in paths:
        path, _, source = text.partition("=")
        path, _, target = path.partition(">")
        entries.append(_entry(path, tmp_path / source if source else None, tmp_path / target if target else None))
    with pytest.raises(InputError) as caught:
        fill(*entries, registration=tmp_path / "registration")
    assert says in caught.value.message
    assert not list((tmp_path / "host").iterdir())


def test_read_only_trees_are_filled_by_anybody(own: Path, contract: Contract, toolbox: Toolbox) -> None:
    """Trees of the Nix store are read-only: later entries add to them whoever builds; modes are right in the end."""
    with _ordinary():
        (own / "tree/dir").mkdir(parents=True)
        (own / "tree/dir/file").write_text("of the tree")
        (own / "file").write_text("alone")
        for path, mode in (("tree/dir/file", 0o444), ("tree/dir", 0o555), ("tree", 0o555), ("file", 0o440)):
            (own / path).chmod(mode)
        entries = (
            _entry("/nix", own / "tree"),
            _entry("/etc", own / "tree"),
            _entry("/etc/dir/file", own / "file"),
            _entry("/etc/dir/more", own / "file"),
            _entry("/etc/dir/link", symlink=Path("file")),
            RootEntry(path="/etc/dir/closed", mode="0"),
            _entry("/etc/dir/closed/file", own / "file"),
            RootEntry(path="/etc/dir/file", source=own / "tree/dir/file", mode="4511"),
        )
        spec = ImageSpec(version=1, name="test", esp={}, store=StoreSpec(directory=own), root=entries)
        modes = rootfiles.fill(spec, contract, own / "root")
        rootfiles.finish(spec, contract, own / "root", modes, toolbox)
    found = {
        name: stat.S_IMODE((own / "root" / name).lstat().st_mode)
        for name in ("nix", "nix/store", "etc", "etc/dir", "etc/dir/more", "etc/dir/file", "etc/dir/closed")
    }
    assert found == {
        "nix": 0o555,
        "nix/store": 0o755,
        "etc": 0o555,
        "etc/dir": 0o555,
        "etc/dir/more": 0o440,
        "etc/dir/file": 0o4511,
        "etc/dir/closed": 0,
    }
    assert (own / "root/etc/dir/file").stat().st_mtime == (own / "root/etc").stat().st_mtime == 1
    (own / "root/etc/dir/closed").chmod(0o700)
    remove(own / "root")


def test_what_cannot_be_read_is_named(own: Path, contract: Contract) -> None:
    """A file that is somebody else's alone is the input's fault."""
    (own / "tree").mkdir()
    (own / "tree/secret").touch(0o600)
    if os.geteuid() != 0:
        (own / "tree/secret").chmod(0)
    store = StoreSpec(directory=own)
    spec = ImageSpec(version=1, name="test", esp={}, store=store, root=(_entry("/etc", own / "tree"),))
    said = r"root\[0\]\.source: .*/tree/secret cannot be read: Permission"
    with _ordinary(), pytest.raises(InputError, match=said):
        rootfiles.fill(spec, contract, own / "root")


def test_attributes_of_this_host_stay_on_it(fill: _Fill, tmp_path: Path) -> None:
    """Whether there are any, as SELinux's labels, is a matter of who builds, and where."""
    made = [tmp_path / "tree", tmp_path / "tree/dir", tmp_path / "tree/dir/file", tmp_path / "file"]
    try:
        for path in made:
            os.setxattr(path, "user.test", b"x")
    except OSError as error:
        pytest.skip(f"the file system of {tmp_path} has no attributes that could be copied: {error.strerror}")
    root = fill(_entry("/etc", tmp_path / "tree"), _entry("/file", tmp_path / "file"))
    assert [name for path in ("etc", "etc/dir", "etc/dir/file", "file") for name in os.listxattr(root / path)] == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff\xfe", "is no text"),
        (b"garbage\n", "is not what `nix-store --dump-db` writes"),
        (b"/nix/store/a\n\n", "is not what"),
        (b"/nix/store/a\nhash\n1\n\n2\n/nix/store/b\n", "is not what"),
        (b"/nix/store/a\nhash\n1\n\n99999999999999999999\n", "is not what"),
        (b"/nix/store/a\nhash\n1\n\n0\n", "/nix/store/a is none of the store's paths"),
    ],
)
def test_a_registration_of_something_else_is_refused(fill: _Fill, tmp_path: Path, content: bytes, says: str) -> None:
    """What Nix takes for valid has to be in the image."""
    (tmp_path / "registration").write_bytes(content)
    with pytest.raises(InputError, match=r"^image test: registration: ") as caught:
        fill(registration=tmp_path / "registration")
    assert says in caught.value.message
