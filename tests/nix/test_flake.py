"""The flake, shown and checked by real Nix with a stand-in for nixpkgs; and `nix run` of a program that builds."""

import json
import os
import re
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from vmtests import contract as contracts
from vmtests.errors import HostError, InputError
from vmtests.host import tools
from vmtests.image import nix as adapter
from vmtests.image.inspect import inspect
from vmtests.resources import cache_dir
from vmtests.testing.images import kernel, program

from .closure.make import PROJECT, Content, write_flake

OUTPUTS = {
    "apps": {"imageScript", "vmtests"},
    "checks": {"promises", "suite"},
    "devShells": {"default"},
    "packages": {"image", "imageScript", "vmtests"},
}


def test_flake_shows_its_outputs(nix_flake: Callable[..., str]) -> None:
    """`nix flake show` lists the modules, the example, and for x86-64 packages, checks, apps and a shell."""
    shown = json.loads(nix_flake("flake", "show", "--json"))
    assert {"bloat", "debug", "google-compute-repart", "image-script", "image-variant"} == set(shown["nixosModules"])
    assert {"default"} == set(shown["nixosConfigurations"])
    assert {*OUTPUTS, "nixosModules", "nixosConfigurations"} == set(shown)
    for name, attributes in OUTPUTS.items():
        assert {"x86_64-linux": attributes} == {system: set(found) for system, found in shown[name].items()}


def test_flake_evaluates_whole(nix_flake: Callable[..., str]) -> None:
    """`nix flake check` evaluates every output, the promises among them."""
    nix_flake("flake", "check", "--no-build")


def test_a_broken_promise_fails_the_check(nix_flake: Callable[..., str], flake: Path) -> None:
    """When a module does not do what is promised, the flake's check names the sentence."""
    module = flake / "nix/modules/debug.nix"
    text = module.read_text()
    module.write_text(text.replace('"panic=1"', '"panic=2"'))
    try:
        with pytest.raises(HostError, match="broken promises: debug does not panic"):
            nix_flake("eval", attribute="#checks.x86_64-linux.promises.drvPath")
    finally:
        module.write_text(text)


def test_the_example_evaluates_whole(nix: Path, flake: Path, stand_in: Path) -> None:
    """Its image, and the shell in which its workflow runs pytest: docs/examples/nixos, as somebody copies it."""
    given = (("vmtests", flake), ("vmtests/nixpkgs", stand_in))
    inputs = [word for name, path in given for word in ("--override-input", name, f"path:{path}")]
    example = f"path:{PROJECT / 'docs/examples/nixos'}"
    for output in ("packages.x86_64-linux.imageScript", "devShells.x86_64-linux.default"):
        command = [
            str(nix),
            "eval",
            "--raw",
            f"{example}#{output}.drvPath",
            "--offline",
            "--no-write-lock-file",
            *inputs,
        ]
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        assert said.returncode == 0, said.stderr
        assert said.stdout.endswith(".drv")


def test_flake_follows_a_release_that_evaluates() -> None:
    """The flake's nixpkgs is 26.05 or newer (what 25.11 reads of a build, nixpkgs #516844), and the example's too."""
    [branch] = re.findall(r'"github:NixOS/nixpkgs/nixos-([\d.]+)"', (PROJECT / "flake.nix").read_text())
    [state] = re.findall(r'stateVersion = "([\d.]+)"', (PROJECT / "nix/hosts/default.nix").read_text())
    assert branch == state
    assert tuple(map(int, branch.split("."))) >= (26, 5)


def test_workflow_lets_bubblewrap_make_namespaces() -> None:
    """Ubuntu's AppArmor keeps user namespaces from whoever is not root, unless it is told not to."""
    text = (PROJECT / ".github/workflows/nix.yml").read_text()
    workflow = YAML(typ="safe").load(text)
    [steps] = [job["steps"] for job in workflow["jobs"].values()]
    commands = [step.get("run", "") for step in steps]
    [lifted] = [at for at, run in enumerate(commands) if "kernel.apparmor_restrict_unprivileged_userns=0" in run]
    [suite] = [at for at, run in enumerate(commands) if "pytest vmtests/" in run]
    assert lifted < suite


@pytest.fixture(scope="session")
def closure_flake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flake without inputs whose image has a closure of two small paths; nothing in it could boot."""
    work = tmp_path_factory.mktemp("content")
    (work / "userland/bin").mkdir(parents=True)
    (work / "userland/bin/true").write_text("#!/bin/sh\n")
    (work / "system").mkdir()
    (work / "system/init").write_text("#!/bin/sh\n")
    for name, data in (("kernel", kernel()), ("initrd", b"070701"), ("loader", program())):
        (work / name).write_bytes(data)
    flake = tmp_path_factory.mktemp("closure") / "flake"
    content = Content(
        userland=work / "userland",
        userland_name="userland",
        system=work / "system",
        kernel=work / "kernel",
        initrd=work / "initrd",
        loader=work / "loader",
    )
    write_flake(flake, content, "small")
    return flake


@pytest.fixture
def with_nix(nix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search path that has Nix."""
    monkeypatch.setenv("PATH", f"{nix.parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.usefixtures("with_nix")
def test_nix_run_prints_the_archive(closure_flake: Path, tmp_path: Path) -> None:
    """`image=$(nix run …#imageScript)`: the archive has disk.raw alone, obeys the contract; the rest is progress."""
    result = subprocess.run(
        f'image=$(nix run path:{closure_flake}#imageScript) && echo "it is $image"',
        shell=True,
        cwd=tmp_path,
        # Nix has a home of its own here, and the tools are in the cache of this one.
        env={**os.environ, "VMTESTS_CACHE": os.fspath(cache_dir())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == f"it is {tmp_path}/small.tar.gz\n", result.stderr
    assert "image" in result.stderr
    with tarfile.open(tmp_path / "small.tar.gz") as archive:
        assert ["disk.raw"] == archive.getnames()
    assert {"small.tar.gz"} == {path.name for path in tmp_path.iterdir()}
    found = inspect(tmp_path / "small.tar.gz", contracts.default(), tools.find())
    assert [] == [str(breach) for breach in found.breaches]


@pytest.mark.usefixtures("with_nix")
def test_unknown_attribute_is_one_sentence(closure_flake: Path, tmp_path: Path) -> None:
    """An attribute that the flake does not have is named, with a hint how to find those it has."""
    with pytest.raises(InputError, match=r"does not provide attribute.*nope.*nix flake show"):
        adapter.build(f"path:{closure_flake}#nope", tmp_path)
