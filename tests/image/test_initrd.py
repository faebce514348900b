"""The initrd brings every library along that its programs need, and those that they may open."""

import lzma
from pathlib import Path

import pytest

from vmtests.errors import HostError
from vmtests.host import tools
from vmtests.image.initrd import Staging, needed


@pytest.fixture
def tree() -> Path:
    """The /usr of the host's own tools tree, or the host: any merged-/usr system does."""
    toolbox = tools.find()
    return toolbox.root("systemd-repart") / "usr"


@pytest.fixture
def staging(tmp_path: Path, tree: Path) -> Staging:
    """An empty initrd."""
    return Staging(tree, tmp_path / "initrd")


def test_needed_names_libraries_and_the_loader(tree: Path) -> None:
    """A program's needs are its libraries and the loader that runs it."""
    names = list(needed(tree / "bin/bash"))
    assert "libc.so.6" in names
    assert names[-1] == "ld-linux-x86-64.so.2"


def test_needed_names_what_may_be_opened_at_run_time(tree: Path) -> None:
    """Libraries that are only dlopen()ed are named in an ELF note, and found there."""
    library = next((tree / "lib/x86_64-linux-gnu/systemd").glob("libsystemd-shared-*.so"))
    assert "libkmod.so.2" in list(needed(library))


def test_text_needs_nothing(tmp_path: Path) -> None:
    """A script is no ELF file, and needs no library."""
    (tmp_path / "script").write_text("#!/bin/sh\n")
    assert list(needed(tmp_path / "script")) == []


def test_program_comes_with_its_libraries(staging: Staging) -> None:
    """Adding a program adds what it is linked to, links resolved."""
    staging.add("bin/bash")
    usr = staging.directory / "usr"
    assert (usr / "bin/bash").is_file()
    assert (usr / "lib/x86_64-linux-gnu/libc.so.6").exists()
    assert (staging.directory / "lib64/ld-linux-x86-64.so.2").exists()


def test_missing_program_is_an_error(staging: Staging) -> None:
    """A program that the tree does not have is named."""
    with pytest.raises(HostError, match="no /usr/bin/nothing"):
        staging.add("bin/nothing")


def test_optional_program_may_be_missing(staging: Staging) -> None:
    """A name with a question mark may be missing."""
    assert not staging.add("bin/nothing?")


def test_modules_bring_their_dependencies_unpacked(tmp_path: Path) -> None:
    """A kernel module comes with those that it depends on; a built-in one is no error, an unknown one is."""
    source = tmp_path / "usr/lib/modules/1.0"
    (source / "kernel").mkdir(parents=True)
    (source / "kernel/top.ko.xz").write_bytes(lzma.compress(b"\0depends=low-er,builtin\0"))
    (source / "kernel/low_er.ko").write_bytes(b"depends=\0")
    (source / "modules.builtin").write_text("kernel/built/builtin.ko\n")
    (source / "modules.builtin.modinfo").touch()
    (source / "modules.order").touch()
    staging = Staging(tmp_path / "usr", tmp_path / "initrd")
    staging.add_modules("1.0", ["top"], tools.find())
    made = staging.directory / "usr/lib/modules/1.0"
    assert (made / "kernel/top.ko").read_bytes() == b"\0depends=low-er,builtin\0"
    assert (made / "kernel/low_er.ko").exists()
    assert (made / "modules.dep").exists()
    with pytest.raises(HostError, match="no module nonsense"):
        staging.add_modules("1.0", ["nonsense"], tools.find())


def test_equal_content_gives_equal_bytes(tmp_path: Path, tree: Path) -> None:
    """Two initrds of the same content are the same file."""
    made = []
    for name in ("one", "two"):
        staging = Staging(tree, tmp_path / name)
        staging.add("bin/true")
        staging.pack(tmp_path / f"{name}.zst", tools.find())
        made.append((tmp_path / f"{name}.zst").read_bytes())
    assert made[0] == made[1]
