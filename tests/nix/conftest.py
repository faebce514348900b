"""Real Nix, from the tools of this host; nothing it does here needs a network or a store."""

import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vmtests.errors import HostError
from vmtests.host import tools
from vmtests.host.sandbox import run_in

from .closure.make import PROJECT, write_nix

NIXPKGS = PROJECT / "tests/nix/nixpkgs"


@pytest.fixture(scope="session")
def evaluate(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Evaluates an expression of Nix and returns it as JSON data; raises HostError with Nix's last line."""
    home = tmp_path_factory.mktemp("nix")
    root = tools.find().root("nix-store")

    def run(expression: str) -> Any:
        shown = run_in(
            root,
            ["nix-instantiate", "--eval", "--strict", "--json", "--readonly-mode", "--expr", expression],
            env={"NIX_REMOTE": "dummy://", "NIX_CONF_DIR": os.fspath(home), "HOME": os.fspath(home)},
        )
        return json.loads(shown)

    return run


@pytest.fixture(scope="session")
def nix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program `nix` with a store of its own."""
    return write_nix(tmp_path_factory.mktemp("host"), tools.find())


@pytest.fixture(scope="session")
def flake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project's flake, without what no evaluation reads."""
    directory = tmp_path_factory.mktemp("flake")
    for name in ("flake.nix", "pyproject.toml", "fixtures/contract.toml"):
        (directory / name).parent.mkdir(exist_ok=True)
        shutil.copy2(PROJECT / name, directory / name)
    for name in ("nix", "tests/nix"):
        shutil.copytree(PROJECT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    return directory


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in for nixpkgs, with the Python packages that the project needs: normalized names, as PEP 503 says."""
    directory = tmp_path_factory.mktemp("nixpkgs") / "nixpkgs"
    shutil.copytree(NIXPKGS, directory)
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    names = [re.match(r"[\w.-]+", word) for word in project["dependencies"]]
    normalized = [re.sub(r"[-_.]+", "-", name[0]).lower() for name in names if name]
    (directory / "python.json").write_text(json.dumps(normalized))
    return directory


@pytest.fixture(scope="session")
def nix_flake(nix: Path, flake: Path, stand_in: Path) -> Callable[..., str]:
    """Runs a command of `nix` on the project's flake, with the stand-in for nixpkgs; raises HostError."""

    def run(*words: str, attribute: str = "") -> str:
        result: subprocess.CompletedProcess[str] = subprocess.run(
            [
                os.fspath(nix),
                *(*words, f"path:{flake}{attribute}", "--offline", "--no-write-lock-file"),
                *("--override-input", "nixpkgs", f"path:{stand_in}"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            raise HostError(result.stderr)
        return result.stdout

    return run
