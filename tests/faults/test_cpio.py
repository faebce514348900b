"""Changing an initrd's archive."""

import subprocess
from pathlib import Path

import pytest

from vmtests.errors import InputError
from vmtests.faults import cpio
from vmtests.host.tools import Toolbox


def test_cpio_reads_what_was_packed(toolbox: Toolbox, tmp_path: Path) -> None:
    """cpio(1) lists an archive of ours, directories before what is in them, and unpacks its content."""
    members: list[cpio.Member] = []
    cpio.put(members, "/etc/a/file", b"#!/bin/sh\n")
    cpio.put(members, "/etc/a/link", b"file", link=True)
    archive = tmp_path / "archive"
    archive.write_bytes(cpio.pack(members))
    listing = toolbox.run("cpio", "--list", "--quiet", "--file", archive)
    assert ["etc", "etc/a", "etc/a/file", "etc/a/link"] == listing.split()
    subprocess.run(
        toolbox.argv("cpio", "--extract", "--quiet", "--directory", tmp_path, "--file", archive), check=True
    )
    assert "#!/bin/sh\n" == (tmp_path / "etc/a/link").read_text()
    assert 0o755 == (tmp_path / "etc/a/file").stat().st_mode & 0o777


def test_an_archive_survives_being_read_and_packed() -> None:
    """What is not changed stays as it was."""
    members: list[cpio.Member] = []
    cpio.put(members, "/usr/lib/modules/6.1/x.ko", b"module")
    assert members == cpio.parse(cpio.pack(members))


def test_a_directory_moves_with_all_that_is_in_it() -> None:
    """`{release}` is the one release whose modules are there."""
    members: list[cpio.Member] = []
    cpio.put(members, "/usr/lib/modules/6.1/kernel/x.ko", b"module")
    cpio.rename(members, "/usr/lib/modules/{release}", "/usr/lib/modules/5.4")
    assert b"module" == cpio.find(members, "/usr/lib/modules/5.4/kernel/x.ko").data
    assert not any("6.1" in member.name for member in members)


@pytest.mark.parametrize("above", ["/usr/", "/nix/store/0-linux-modules/", "/"])
def test_a_directory_moves_from_wherever_it_is(above: str) -> None:
    """`**/` stands for what is above the modules: usr in distributions, a store path in NixOS."""
    members: list[cpio.Member] = []
    cpio.put(members, f"{above}lib/modules/6.1/kernel/x.ko", b"module")
    cpio.rename(members, "**/lib/modules/{release}", "**/lib/modules/5.4")
    assert b"module" == cpio.find(members, f"{above}lib/modules/5.4/kernel/x.ko").data
    with pytest.raises(InputError, match=r"the initrd has no directory \*\*/lib/firmware"):
        cpio.rename(members, "**/lib/firmware", "**/lib/other")


@pytest.mark.parametrize("archive", [b"", b"070701", b"garbage" * 30])
def test_what_is_no_archive_is_refused(archive: bytes) -> None:
    """Anything else is named as such."""
    with pytest.raises(InputError, match="no newc archive"):
        cpio.parse(archive)


def test_text_is_replaced_wherever_the_distribution_has_the_unit() -> None:
    """In NixOS' initrd a unit is a file of a store path, to which the links of /etc/systemd/system lead."""
    members: list[cpio.Member] = []
    unit = "/nix/store/0-unit-x.service/x.service"
    cpio.put(members, unit, b"ExecStart=/old")
    cpio.put(members, "/etc/systemd/system/x.service", unit.encode(), link=True)
    cpio.put(members, "/usr/lib/x.service", b"ExecStart=/other")
    cpio.replace(members, "*/x.service", "/old", "/new")
    assert [
        member.data for member in members if member.name.endswith("x.service") and member.data.startswith(b"E")
    ] == [
        b"ExecStart=/new",
        b"ExecStart=/other",
    ]
