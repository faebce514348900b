"""The builder of NixOS with Debian's programs: what it refuses, and how its stand-in for make-initrd-ng copies."""

import json
from pathlib import Path

import pytest

from vmtests.errors import InputError

from .debian import builder, make, make_initrd_ng


def test_what_is_no_nixpkgs_is_one_sentence(tmp_path: Path) -> None:
    """A directory that is no checkout of nixpkgs is refused before anything is fetched."""
    with pytest.raises(InputError, match="no checkout of nixpkgs"):
        builder.make(tmp_path, tmp_path / "work")


def test_unknown_variant_is_one_sentence(tmp_path: Path) -> None:
    """A name that is no variant's is refused before anything is fetched, and those that there are are told."""
    with pytest.raises(InputError, match=r"there is no variant nope.*default, debug, bloat.*third"):
        make.main(tmp_path, tmp_path, "default", "nope")


def test_every_variant_adds_modules_that_are_there() -> None:
    """The files that the variants name exist."""
    for modules in make.VARIANTS.values():
        for word in " ".join(modules).split():
            if word.endswith(".nix"):
                assert Path(word).is_file(), word


def test_initrd_has_links_their_targets_and_interpreters(tmp_path: Path) -> None:
    """A path is copied under its own name; a link brings what it leads to, a script its interpreter."""
    store, root = tmp_path / "store", tmp_path / "root"
    (store / "bin").mkdir(parents=True)
    (store / "bin/sh").write_bytes(b"\x7fELF")
    (store / "bin/script").write_text(f"#!{store}/bin/sh -e\n")
    (store / "init").symlink_to("bin/script")
    contents = tmp_path / "contents.json"
    contents.write_text(json.dumps([{"source": f"{store}/init", "target": "/init"}]))
    make_initrd_ng.main(contents, str(root))
    assert (root / "init").readlink() == store / "init"
    inside = root / str(store).removeprefix("/")
    assert (inside / "init").readlink() == Path("bin/script")
    assert {"script", "sh"} == {path.name for path in (inside / "bin").iterdir()}
