"""Tools are taken from the host when they are new enough."""

from pathlib import Path

import pytest

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
