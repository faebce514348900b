"""A tree's programs run where they are, for hosts that let nobody enter a tree."""

import os
import subprocess
from pathlib import Path

import pytest

from vmtests.host import relocate, sandbox, tools
from vmtests.host.tools import REQUIREMENTS


@pytest.fixture(scope="module")
def tree() -> Path:
    """The tools tree."""
    return tools.tools_tree()


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: requirement.name)
def test_every_tool_runs_without_entering(
    requirement: tools.Requirement, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each tool of the tree tells the same version when the tree is not entered."""
    monkeypatch.setattr(sandbox, "refusal", lambda: "namespaces are refused")
    answer = tools._ask(requirement, tuple(sandbox.sandbox(tree)))
    assert answer.trouble is None
    assert answer.numbers >= requirement.minimum


def test_tools_call_each_other(tree: Path, tmp_path: Path) -> None:
    """A program that calls another finds the tree's: tar packs with the tree's pigz, and none of the host's."""
    (tmp_path / "file").write_text("x")
    environment = {"PATH": f"{relocate.programs(tree)}:/bin", "LC_ALL": "C.UTF-8"}
    packed = subprocess.run(
        ["tar", "--create", "--use-compress-program=pigz", "--directory", tmp_path, "file"],
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    assert packed.startswith(b"\x1f\x8b")


def test_qemu_finds_its_data(tree: Path) -> None:
    """QEMU finds its own files in the tree: it knows the machine, and the VGA card's ROM."""
    command = ["qemu-system-x86_64", "-machine", "q35", "-nodefaults", "-display", "none", "-device", "VGA"]
    environment = {"PATH": f"{relocate.programs(tree)}:/bin", "LC_ALL": "C.UTF-8"}
    result = subprocess.run(
        [*command, "-S", "-monitor", "stdio"],
        input="quit\n",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_moved_tree_gets_new_scripts(tmp_path: Path) -> None:
    """The scripts name the tree's place; those of another place are not used."""
    program = tmp_path / "one/usr/bin/program"
    program.parent.mkdir(parents=True)
    program.write_bytes(b"\x7fELF static")
    first = relocate.programs(tmp_path / "one")
    assert str(tmp_path / "one") in (first / "program").read_text()
    os.rename(tmp_path / "one", tmp_path / "two")  # noqa: PTH104
    second = relocate.programs(tmp_path / "two")
    assert first.name != second.name
    assert str(tmp_path / "two") in (second / "program").read_text()
