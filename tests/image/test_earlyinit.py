"""What the kernel starts of its initrds, and what it does where that is nothing."""

import gzip
import re
import stat
from pathlib import Path

import pytest

from tests.image.test_chain import BOOT, ROOT, Maker
from vmtests.faults import cpio
from vmtests.host.tools import Toolbox
from vmtests.image import initramfs
from vmtests.image.earlyinit import Node, fault, interpreter, panic
from vmtests.testing.images import kernel

EXE, LINK, DIR = stat.S_IFREG | 0o755, stat.S_IFLNK | 0o777, stat.S_IFDIR | 0o755
FALLBACK, CONF = "/EFI/BOOT/BOOTX64.EFI", "/loader/entries/a.conf"


@pytest.mark.parametrize(
    ("tree", "why"),
    [
        ({}, "there is no /init"),
        ({"init": Node(EXE)}, ""),
        ({"init": Node(stat.S_IFREG | 0o644)}, "/init is not executable"),
        ({"init": Node(DIR)}, "/init is no file"),
        ({"init": Node(LINK, "usr/lib/systemd/systemd")}, "/init leads nowhere"),
        ({"init": Node(LINK, "usr/lib/x"), "usr/lib/x": Node(EXE)}, ""),
        ({"init": Node(LINK, "/sbin/../sbin/x"), "sbin": Node(LINK, "usr/sbin"), "usr/sbin/x": Node(EXE)}, ""),
        ({"init": Node(LINK, "init")}, "/init leads nowhere"),
        ({"other/init": Node(EXE)}, "there is no /init"),
    ],
)
def test_init_is_what_the_kernel_may_execute(tree: dict[str, Node], why: str) -> None:
    """Links are followed as far as the kernel does, and a mode without a bit to execute is none."""
    assert fault(tree, "/init") == why


def test_script_needs_what_it_is_run_by() -> None:
    """Else the kernel tries four more programs, and then panics."""
    tree = {"init": Node(EXE, interpreter(b"#! /bin/busybox sh\n")), "bin/ls": Node(EXE)}
    assert panic(tree, "/init") == "/init is run by /bin/busybox, which is not there"
    assert panic({**tree, "bin/busybox": Node(EXE)}, "/init") == ""
    assert panic({**tree, "bin/sh": Node(EXE)}, "/init") == ""
    assert interpreter(b"\x7fELF") == interpreter(b"#!\n") == ""


def _initrd(*members: tuple[str, bytes, int]) -> bytes:
    return cpio.pack([cpio.Member(name=name, mode=mode, data=data) for name, data, mode in members])


def test_what_is_remembered_of_an_initrd_is_all_of_it_or_nothing(
    toolbox: Toolbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one without files, and of one that goes on behind what is read, nobody can tell what is not there."""
    one = _initrd(("init", b"#!/bin/sh\n", EXE), ("bin", b"usr/bin", LINK))
    found = initramfs.scan(iter([gzip.compress(one)]), toolbox)
    assert found.tree == {"init": Node(EXE, "/bin/sh"), "bin": Node(LINK, "usr/bin")}
    assert initramfs.scan(iter([_initrd()]), toolbox).tree is None
    monkeypatch.setattr(initramfs, "LIMIT", len(one) - 100)
    assert initramfs.scan(iter([one]), toolbox).tree is None


@pytest.mark.parametrize(
    ("archive", "line", "said"),
    [
        (_initrd(("etc/x", b"", EXE)), f"root=UUID={ROOT}", "there is no /init"),
        (_initrd(("init", b"#!/bin/sh\n", EXE)), "", "/init is run by /bin/sh, which is not there"),
        (_initrd(("init", b"\x7fELF", EXE)), f"root=UUID={ROOT}", ""),
        (_initrd(("start", b"\x7fELF", EXE)), f"root=UUID={ROOT} rdinit=/start", ""),
    ],
)
def test_an_initrd_of_which_nothing_is_started_is_said(
    archive: bytes, line: str, said: str, tmp_path: Path, toolbox: Toolbox
) -> None:
    """The kernel then mounts root by itself, or ends; `rdinit=` names another program."""
    disk = Maker(tmp_path, toolbox)
    entry = f"linux /vmlinuz\ninitrd /initrd\noptions {line} console=ttyS0\n".encode()
    disk.make({FALLBACK: BOOT, CONF: entry, "/vmlinuz": kernel(), "/initrd": archive})
    sentences = (check.sentence for check in disk.inspect().checks)
    found = [sentence for sentence in sentences if re.search("initrd is started: |cannot be started: ", sentence)]
    assert [said in sentence for sentence in found] == [True] * bool(said)
