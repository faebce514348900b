"""What tests/nix/promises.nix says of the modules, evaluated by real Nix over poor stubs of NixOS."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vmtests.errors import HostError
from vmtests.host import tools
from vmtests.host.sandbox import run_in

from .closure.make import PROJECT
from .conftest import NIXPKGS

MODULES = ("bloat", "debug", "google-compute-repart", "image-script")
PROMISES = re.findall(r'^    "(.+)" =', (PROJECT / "tests/nix/promises.nix").read_text(), re.MULTILINE)

SETUP = f"""
  lib = import {NIXPKGS}/lib.nix;
  pkgs = import {NIXPKGS}/pkgs.nix;
  evaluate = modules: import {NIXPKGS}/nixos.nix {{ inherit modules; }};
  nixosModules = {{
    bloat = {PROJECT}/nix/modules/bloat.nix;
    debug = {PROJECT}/nix/modules/debug.nix;
    google-compute-repart = {PROJECT}/nix/modules/google-compute-repart.nix;
    image-variant.image.modules.google-compute-repart = {PROJECT}/nix/modules/google-compute-repart.nix;
    image-script = {{
      imports = [ {PROJECT}/nix/modules/image-script.nix ];
      imageScript.package = pkgs.nix;
    }};
  }};
  example = [ {PROJECT}/nix/hosts nixosModules.google-compute-repart nixosModules.image-script ];
"""


@pytest.fixture(scope="session")
def promises(evaluate: Callable[[str], Any]) -> dict[str, Any]:
    """Every promise by its sentence, with what was expected and what came out: one call of Nix."""
    shown = evaluate(
        f"let {SETUP} in (import {PROJECT}/tests/nix/promises.nix {{ inherit lib evaluate nixosModules; }}).all"
    )
    assert isinstance(shown, dict)
    return shown


def test_promises_are_found(promises: dict[str, Any]) -> None:
    """The sentences that are tested are all that there are."""
    assert sorted(PROMISES) == sorted(promises)


@pytest.mark.parametrize("sentence", PROMISES)
def test_promise_is_kept(sentence: str, promises: dict[str, Any]) -> None:
    """What a sentence of promises.nix expects is what the modules evaluate to."""
    assert promises[sentence]["expected"] == promises[sentence]["actual"]


def test_every_option_is_described_with_an_example(evaluate: Callable[[str], Any]) -> None:
    """Each option that a person may set has a description, an example, and a type with a name."""
    options = evaluate(
        f"let {SETUP} options = (evaluate (example ++ [ nixosModules.bloat ])).options;"
        " own = options.virtualisation.googleComputeRepart // options.bloat // options.imageScript;"
        " in builtins.mapAttrs (_: option: {"
        " inherit (option) description; type = option.type.name;"
        " documented = option ? example || option.internal or false; }) own"
    )
    assert {"bloat", "paths", "size"} & set(options)
    for name, option in options.items():
        assert option["description"].strip().endswith("."), name
        assert option["documented"], name


def test_failed_assertions_are_what_nix_says_last(evaluate: Callable[[str], Any]) -> None:
    """A system that a module refuses cannot be built, and Nix says the sentence that says what to set."""
    with pytest.raises(HostError) as error:
        evaluate(
            f"let {SETUP} in (evaluate (example ++ [ {{ boot.loader.grub.enable = true; }} ]))"
            ".config.system.build.imageScript.drvPath"
        )
    assert "set boot.loader.grub.enable = false" in str(error.value)


def test_unknown_option_is_refused(evaluate: Callable[[str], Any]) -> None:
    """The stand-in for NixOS refuses what it does not know: a misspelt option does not pass."""
    with pytest.raises(HostError, match=r"boot\.loader\.grubb' does not exist"):
        evaluate(f"let {SETUP} in (evaluate (example ++ [ {{ boot.loader.grubb = true; }} ])).config")


def test_mounts_may_have_more_options(evaluate: Callable[[str], Any]) -> None:
    """The promises hold where NixOS adds options to mounts, as newer ones add x-initrd.mount."""
    more = '{ fileSystems = lib.genAttrs [ "/nix/.ro-store" "/nix/store" ] (_: { options = [ "x-initrd.mount" ]; }); }'
    broken = evaluate(
        f"let {SETUP} in (import {PROJECT}/tests/nix/promises.nix {{ inherit lib nixosModules;"
        f" evaluate = modules: evaluate (modules ++ [ ({more}) ]); }}).broken"
    )
    assert broken == []


def test_release_without_an_option_is_named(evaluate: Callable[[str], Any], tmp_path: Path) -> None:
    """A NixOS that is too old or too new for an option is told by its release, and the option by its name."""
    nixpkgs = tmp_path / "nixpkgs"
    shutil.copytree(NIXPKGS, nixpkgs)
    repart = nixpkgs / "nixos/modules/image/repart.nix"
    text = repart.read_text()
    repart.write_text(re.sub("      compression.algorithm = .*\n", "", text))
    with pytest.raises(HostError, match=r"26\.05 has no option image\.repart\.compression\.algorithm\."):
        evaluate(
            f"(import {nixpkgs}/nixos.nix {{ modules = ["
            f" {PROJECT}/nix/hosts {PROJECT}/nix/modules/google-compute-repart.nix ]; }}).config.image.baseName"
        )


def test_store_path_that_is_a_link_stays_one(evaluate: Callable[[str], Any], tmp_path: Path) -> None:
    """systemd-repart copies what a link leads to; in upstream's image a path of the store is the link itself."""
    (tmp_path / "paths").mkdir()
    (tmp_path / "paths/tool").write_text("a program\n")
    (tmp_path / "paths/link").symlink_to("/nix/store/tool")
    definition = tmp_path / "repart.d/20-store.conf"
    definition.parent.mkdir()
    copies = "".join(f"CopyFiles={tmp_path}/paths/{name}:/{name}\n" for name in ("tool", "link"))
    definition.write_text(f"[Partition]\nType=linux-generic\nFormat=erofs\nMinimize=best\n{copies}")
    patch = evaluate(f'let {SETUP} in (evaluate example).config.system.build.image.postPatch or ""')
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", patch],
        check=True,
        cwd=tmp_path,
        env={**os.environ, "finalRepartDefinitions": "repart.d"},
    )
    toolbox, disk = tools.find(), tmp_path / "disk.raw"
    toolbox.run(
        "systemd-repart",
        *("--empty=create", "--size=auto", "--dry-run=no", "--offline=yes", "--no-pager", "--split=yes"),
        *("--definitions", definition.parent, disk),
    )
    [store] = tmp_path.glob("disk.*.raw")
    toolbox.run("fsck.erofs", f"--extract={tmp_path / 'store'}", store)
    assert (tmp_path / "store/tool").read_text() == "a program\n"
    assert (tmp_path / "store/link").readlink() == Path("/nix/store/tool")


def test_conflict_is_refused(evaluate: Callable[[str], Any]) -> None:
    """Two definitions of one strength conflict in the stand-in, as they do in NixOS."""
    with pytest.raises(HostError, match=r"image\.extension' has conflicting definition values"):
        evaluate(
            f"let {SETUP} in (evaluate [ {NIXPKGS}/nixos/modules/virtualisation/google-compute-image.nix"
            f" {NIXPKGS}/nixos/modules/image/repart.nix ]).config.image.extension"
        )


def test_modules_import_nothing_of_the_project_but_the_contract() -> None:
    """A module can be copied with fixtures/contract.toml and nothing else."""
    for name in MODULES:
        text = (PROJECT / f"nix/modules/{name}.nix").read_text()
        assert {Path(found).name for found in re.findall(r"\.\./[\w./-]+", text)} <= {"contract.toml"}


def test_every_file_parses(tmp_path: Path) -> None:
    """Every Nix file of the project is Nix, without tabs and without space at the end of a line."""
    files = [path for part in ("flake.nix", "nix", "tests/nix") for path in _nix_files(PROJECT / part)]
    assert len(files) > len(MODULES)
    root = tools.find().root("nix-store")
    environment = {"NIX_REMOTE": "dummy://", "NIX_CONF_DIR": str(tmp_path), "HOME": str(tmp_path)}
    run_in(root, ["nix-instantiate", "--parse", *map(str, files)], env=environment)
    for path in files:
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            assert line == line.rstrip(), (path, number)
            assert "\t" not in line, (path, number)


def _nix_files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(path.rglob("*.nix"))
