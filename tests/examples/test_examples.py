"""What somebody copies is whole, and true to what it says."""

import ast
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest

import vmtests
from vmtests import contract as contracts
from vmtests.plugin.options import OPTIONS

from .__main__ import EXAMPLES, PROJECT, names, own


@pytest.fixture(params=names())
def example(request: pytest.FixtureRequest) -> Path:
    """The directory of an example."""
    return EXAMPLES / str(request.param)


def test_it_has_all_that_a_repository_needs(example: Path) -> None:
    """A way to be built, a test, pytest's configuration with keys that there are, a workflow; the table names it."""
    assert (example / "build.sh").exists() or (example / "flake.nix").exists()
    assert (example / ".github/workflows/boot.yml").exists()
    config = ConfigParser()
    config.read(example / "pytest.ini")
    assert set(config["pytest"]) <= {option.key for option in OPTIONS}
    assert f"]({example.name}/" in (EXAMPLES / "README.md").read_text()


def test_its_contract_is_one(example: Path) -> None:
    """A contract loads; the one who has none is held to the project's own."""
    path = example / "contract.toml"
    if path.exists():
        assert contracts.load(path).origin
    else:
        assert "vm_contract" not in (example / "pytest.ini").read_text()


def test_its_test_uses_what_is_public(example: Path) -> None:
    """What the test imports of vmtests is there."""
    tree = ast.parse((example / "test_image.py").read_text())
    used = {name.name for node in tree.body if isinstance(node, ast.ImportFrom) for name in node.names}
    assert used <= set(vmtests.__all__)
    assert any(isinstance(node, ast.Assert) for node in ast.walk(tree))


def test_its_script_is_a_shell_script(example: Path) -> None:
    """The shell reads it, and it can be executed."""
    script = example / "build.sh"
    if script.exists():
        subprocess.run(["sh", "-n", str(script)], check=True)
        assert script.stat().st_mode & 0o111
    else:
        assert (example / "flake.nix").exists()


def test_a_flake_is_tried_with_this_checkout(tmp_path: Path) -> None:
    """The account's name is the reader's to fill in; Nix sees only what a repository has."""
    here = tmp_path / "nixos"
    shutil.copytree(EXAMPLES / "nixos", here)
    own(here)
    assert f"git+file://{PROJECT}" in (here / "flake.nix").read_text()
    assert "OWNER/" not in (here / "flake.nix").read_text()
    added = subprocess.run(["git", "ls-files"], cwd=here, capture_output=True, text=True, check=True).stdout
    assert {"flake.nix", "pytest.ini", "test_image.py"} <= set(added.split())
