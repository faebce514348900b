"""The recipe of the reference image is consistent, and modules are read strictly."""

import random
from pathlib import Path

import msgspec
import pytest

from vmtests.contract import default
from vmtests.errors import InputError
from vmtests.image import reference
from vmtests.image.initrd import InitrdRecipe
from vmtests.image.reference import Modules
from vmtests.sizes import GIB, MIB


@pytest.mark.parametrize(
    ("words", "modules"),
    [
        ([], Modules()),
        (["debug"], Modules(debug=True)),
        (["bloat"], Modules(bloat=GIB)),
        (["bloat:2G"], Modules(bloat=2 * GIB)),
        (["debug", "bloat:512M"], Modules(debug=True, bloat=512 * MIB)),
    ],
)
def test_modules_are_read(words: list[str], modules: Modules) -> None:
    """`debug`, `bloat` and `bloat:SIZE` are the modules; bloat is 1 GiB unless said."""
    assert Modules.parse(words) == modules


@pytest.mark.parametrize(
    "word", ["", "Debug", "debug:1", "bloat:", "bloat:x", "bloat:0", "bloat:1K", "bloat:2048T", "ssh"]
)
def test_unknown_module_or_size_is_refused(word: str) -> None:
    """Anything else is an error of the input, with a hint."""
    with pytest.raises(InputError) as caught:
        Modules.parse([word])
    assert caught.value.hint


def test_modules_have_a_name_for_the_cache() -> None:
    """Modules are told apart by name, whatever the size was spelled like."""
    assert (
        str(Modules.parse(["bloat:1G", "debug"]))
        == str(Modules.parse(["debug", "bloat:1024M"]))
        == "debug+bloat-1073741824"
    )


def test_recipe_of_the_initrd_is_complete() -> None:
    """Every part of the initrd's recipe is there, and nothing else."""
    parts = msgspec.convert(reference.recipe()["initrd"], InitrdRecipe)
    assert {"erofs", "overlay"} <= set(parts.modules)


def test_stage_1_fstab_is_the_contracts() -> None:
    """The initrd's fstab mounts root, the read-only store and the overlay, as upstream NixOS renders them."""
    lines = reference._fstab(default()).splitlines()
    assert lines[0] == "/dev/disk/by-partlabel/root / ext4 x-systemd.growfs,x-initrd.mount 0 1"
    assert lines[1] == "/dev/disk/by-partlabel/nix-store /nix/.ro-store erofs x-initrd.mount,ro 0 0"
    device, where, kind, options, *_ = lines[2].split()
    assert (device, where, kind) == ("overlay", "/nix/store", "overlay")
    assert options.split(",")[:3] == [
        "lowerdir=/sysroot/nix/.ro-store",
        "upperdir=/sysroot/nix/.rw-store/upper",
        "workdir=/sysroot/nix/.rw-store/work",
    ]


def test_debug_module_takes_away_what_hides_a_failure(tmp_path: Path) -> None:
    """With `debug` the kernel neither reboots on panic nor is quiet, and a shell is on the second port."""
    plain = reference._entry(default(), Modules(), "/nix/store/x", tmp_path).read_text()
    debug = reference._entry(default(), Modules(debug=True), "/nix/store/x", tmp_path).read_text()
    assert "panic=1" in plain.split()
    assert {"panic=1", "loglevel=4"} & set(debug.split()) == set()
    assert {"rd.systemd.debug_shell=ttyS1", "rd.systemd.log_level=debug"} <= set(debug.split())


@pytest.mark.parametrize("size", [MIB, 3 * MIB + 17, 20 * MIB])
def test_bloat_has_its_exact_size_and_the_same_content_each_time(tmp_path: Path, size: int) -> None:
    """Bloat is deterministic, to the byte, and has small files as well as large ones."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        reference._fill(tmp_path / name, size, random.Random(1))
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert sum((tmp_path / "one" / file).stat().st_size for file in files) == size
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)


def test_fingerprint_covers_every_file_of_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change to any file of the recipe makes another image."""
    (tmp_path / "units").mkdir()
    (tmp_path / "units/a.service").write_text("one")
    monkeypatch.setattr(reference, "fixture", lambda _name: tmp_path)
    before = reference.fingerprint()
    (tmp_path / "units/a.service").write_text("two")
    assert reference.fingerprint() != before
