"""Tools are taken from the host when they are new enough."""

import os
from pathlib import Path

import pytest

from vmtests.errors import HostError
from vmtests.host import sandbox, tools


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("QEMU emulator version 10.0.13 (Debian 1:10.0.13+ds)", "10.0.13"),
        ("systemd 257 (257.13-1~deb13u1)", "257.13"),
        ("mkfs.erofs (erofs-utils) 1.8.6", "1.8.6"),
        ("*** Zstandard CLI (64-bit) v1.5.7, by Yann Collet ***", "1.5.7"),
        ("systemd 252", "252"),
    ],
)
def test_version_is_found_in_what_tools_print(text: str, version: str) -> None:
    """The version is the first dotted number, or the first number that stands alone."""
    found = tools._parse_version(text)
    assert found is not None
    assert found[0] == version


def test_version_of_nonsense_is_unknown() -> None:
    """A program that prints no number has no version."""
    assert tools._parse_version("usage: whatever") is None


def test_tools_of_a_host_without_usual_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller's search path comes after the system's, and firmware may be described beside QEMU, as on NixOS."""
    store = tmp_path / "store/qemu"
    (store / "bin").mkdir(parents=True)
    (store / "bin/qemu-system-x86_64").write_text("#!/bin/sh\n")
    (store / "bin/qemu-system-x86_64").chmod(0o755)
    profile = tmp_path / "profile"
    profile.mkdir()
    (profile / "qemu-system-x86_64").symlink_to(store / "bin/qemu-system-x86_64")
    monkeypatch.setattr(sandbox, "SYSTEM_PATH", "/nowhere")
    monkeypatch.setenv("PATH", str(profile))
    assert f"/nowhere:{profile}" == sandbox.tool_env()["PATH"]
    assert (Path("/usr/share/qemu/firmware"), store / "share/qemu/firmware") == tools.host_firmware()


def test_packages_of_a_nix_store_come_before_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Nix wrapper's newer tool is found before an old host's, and through a profile's link too."""
    requirement = tools.Requirement(name="mkfs.erofs", package="erofs-utils", minimum=(1, 8), why="reads tar")
    for name, version in (("store/erofs/bin", "1.9"), ("usr/bin", "1.5")):
        (program := tmp_path / name / "mkfs.erofs").parent.mkdir(parents=True)
        program.write_text(f"#!/bin/sh\necho mkfs.erofs {version}\n")
        program.chmod(0o755)
    (profile := tmp_path / "profile").symlink_to(tmp_path / "store/erofs/bin")
    monkeypatch.setattr(sandbox, "_STORES", (f"{tmp_path}/store/",))
    monkeypatch.setattr(sandbox, "SYSTEM_PATH", f"{tmp_path}/usr/bin:/usr/bin:/bin")
    for own in (profile, tmp_path / "store/erofs/bin"):
        monkeypatch.setenv("PATH", f"/opt/bin:{own}")
        assert sandbox.tool_env()["PATH"] == f"{tmp_path}/store/erofs/bin:{tmp_path}/usr/bin:/usr/bin:/bin:/opt/bin"
        tools._ask.cache_clear()
        assert (found := tools._host_tool(requirement)) is not None
        assert found.version == "1.9"
    tools._ask.cache_clear()


@pytest.mark.usefixtures("hiding")
def test_tools_from_elsewhere_are_there_in_a_view(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was installed in /opt, in a home or by Homebrew is seen with its libraries, and nothing else beside it."""
    for name in ("lib", "share/qemu", "share/keys", "documents"):
        (tmp_path / name).mkdir(parents=True)
    (program := tmp_path / "Cellar/odd/bin/oddtool").parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\nls -d {tmp_path}/* {tmp_path}/share/*\n")
    program.chmod(0o755)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/oddtool").symlink_to("../Cellar/odd/bin/oddtool")
    monkeypatch.setenv("PATH", f"/usr/bin:{tmp_path}/bin")
    toolbox = tools.Toolbox({"oddtool": tools.Tool(name="oddtool", version="1", from_host=True, why="")}, None)
    shown = toolbox.read("oddtool", view=sandbox.View()).decode().replace(f"{tmp_path}/", "").split()
    assert shown == ["Cellar", "bin", "lib", "share", "share/qemu"]


def test_processes_of_others_are_told_before_a_tool_waits_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without /proc, or with that of another namespace, no tool of ours works: bubblewrap waits for ever."""
    tools.check_processes()
    monkeypatch.setattr(os, "readlink", lambda _: "1")
    with pytest.raises(HostError, match="another process namespace") as caught:
        tools.check_processes()
    assert "mount -t proc" in str(caught.value.hint)
