"""Which entry SYSLINUX and Limine start, by what is written for them, and which version is newer."""

import subprocess

import pytest

from vmtests.image import loader

LABELS = "LABEL one\n KERNEL /a\n APPEND initrd=/i,/j root=/dev/sda1\nLABEL two\n MENU DEFAULT\n LINUX b\n INITRD i\n"


@pytest.mark.parametrize(
    ("head", "started", "initrds", "options"),
    [
        ("DEFAULT one\n", "/a", ("/i", "/j"), "root=/dev/sda1"),
        ("default two\nappend quiet\n", "b", ("i",), "quiet"),
        ("DEFAULT vesamenu.c32\n", "b", ("i",), ""),
        ("# nothing\n", "b", ("i",), ""),
    ],
)
def test_syslinux_starts_its_default_or_what_its_menu_marks(
    head: str, started: str, initrds: tuple[str, ...], options: str
) -> None:
    """Initrds come from a line of their own, or from the command line."""
    found = loader.syslinux(head + LABELS)
    assert found is not None
    assert (found.kernel, found.initrds, found.options) == (started, initrds, options)
    assert loader.syslinux("PROMPT 1\n") is None


LIMINE = """timeout: 0
/Old
    protocol: linux
    path: boot():/old
/+More
//New
    protocol: linux
    path: boot():/new#abcd
    cmdline: root=UUID=1 a:b
    module_path: boot():/i
    module_path: boot():/j
"""


def test_limine_starts_its_default_entry() -> None:
    """The first, unless its number is given; what has another protocol is not Linux."""
    first, third = loader.limine(LIMINE), loader.limine(f"default_entry: 3\n{LIMINE}")
    assert first is not None
    assert first.kernel == "boot():/old"
    assert third is not None
    assert (third.options, third.initrds) == ("root=UUID=1 a:b", ("boot():/i", "boot():/j"))
    assert loader.limine(LIMINE.replace("protocol: linux", "protocol: efi")) is None
    assert loader.limine(f"default_entry: 9\n{LIMINE}") is None


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("9", "10"),
        ("1~rc1", "1"),
        ("123-9", "123.1-1"),
        ("1", "1^post"),
        ("a", "1"),
        ("6.1.0-9", "6.1.0-10"),
        ("1", "1.1"),
    ],
)
def test_versions_are_compared_as_systemd_does(older: str, newer: str) -> None:
    """The samples are those of its manual; the host's systemd is asked too where there is one."""
    assert loader.compare_versions(older, newer) < 0 < loader.compare_versions(newer, older)
    assert loader.compare_versions(newer, newer) == 0
    try:
        told = subprocess.run(["systemd-analyze", "compare-versions", older, "lt", newer], check=False)
    except OSError:
        return
    assert told.returncode == 0
