"""`--vm-image=nix:…` runs a flake's program, and says in one sentence what was wrong with Nix or with the flake."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vmtests.errors import HostError, ImageError, InputError, VmtestsError
from vmtests.image import nix


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes a program `nix` of a shell script, the only one on the search path; returns its directory."""

    def make(script: str, version: str = "nix (Nix) 2.26.3") -> Path:
        program = tmp_path / "bin/nix"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n[ \"$1\" = --version ] && echo '{version}' && exit\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
        (tmp_path / "work").mkdir()
        return tmp_path / "work"

    return make


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nix", ".#imageScript"),
        ("nix:.", ".#imageScript"),
        ("nix:.#other", ".#other"),
        ("nix:github:owner/repo#image", "github:owner/repo#image"),
        ("reference", None),
        ("nix.raw", None),
        ("./nix", None),
    ],
)
def test_name_of_a_flake(name: str, expected: str | None) -> None:
    """`nix` and `nix:FLAKE#ATTR` are packages of flakes, imageScript where none is named; nothing else is."""
    assert expected == nix.parse(name)


def test_flake_must_be_named() -> None:
    """`nix:` names nothing."""
    with pytest.raises(InputError, match="names no flake"):
        nix.parse("nix:#image")


def test_last_line_is_the_archive(stand_in: Callable[[str], Path]) -> None:
    """The archive is what the program prints last; it runs in the directory that it is given."""
    work = stand_in("echo chatter; : > image.tar.gz; echo $PWD/image.tar.gz")
    assert work / "image.tar.gz" == nix.build("github:o/r#x", work)


def test_program_gets_the_flake(stand_in: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is relative to where vmtests was called, not to the directory of work."""
    work = stand_in('for last; do :; done; echo "$last" > got; echo got')
    (work / "flake.nix").touch()
    monkeypatch.chdir(work)
    assert f"{work}#x\n" == nix.build(".#x", work).read_text()


def test_missing_nix_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Nix the error says so, and what works without it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match=r"nix is not installed on this host.*--vm-image=reference"):
        nix.build(".#imageScript", tmp_path)


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        ("nix (Nix) 2.8.0", "Nix 2.8 is too old .*install 2.18 or newer"),
        ("nix (Nix) 1.11", "Nix 1.11 is too old"),
        ("who knows", "does not say its version"),
    ],
)
def test_old_nix_is_one_sentence(stand_in: Callable[..., Path], version: str, sentence: str) -> None:
    """A Nix that is too old is told from one that is not, and the least version is named."""
    work = stand_in("exit 0", version)
    with pytest.raises(HostError, match=sentence):
        nix.build("github:o/r#x", work)


def test_directory_without_a_flake_is_one_sentence(stand_in: Callable[[str], Path], tmp_path: Path) -> None:
    """A directory without flake.nix is named before Nix runs."""
    work = stand_in("exit 1")
    with pytest.raises(InputError, match=r"has no flake\.nix"):
        nix.build(f"{tmp_path}#x", work)


@pytest.mark.parametrize(
    ("stderr", "kind", "sentence"),
    [
        ("error: attribute 'x' missing", ImageError, "ended with 1: attribute 'x' missing"),
        ("error: flake 'f' does not provide attribute 'x'", InputError, "nix flake show lists"),
        ("error: unable to download 'https://cache'", HostError, "reach the flake's inputs"),
        (
            "error: opening lock file '/nix/var/nix/db/big-lock': Permission denied",
            HostError,
            "start the Nix daemon",
        ),
        ("tar: No space left on device\nerror: builder failed", HostError, "the disk is full"),
        ("error:\n  Failed assertions:\n  - set efi = true.", InputError, "set efi = true"),
        ("", ImageError, "status 1"),
        ("error: bad \x1b[2J", ImageError, r"bad .{1,8}\[2J"),
    ],
)
def test_failure_is_one_sentence(
    stand_in: Callable[[str], Path], stderr: str, kind: type[VmtestsError], sentence: str
) -> None:
    """What Nix said last becomes one sentence with a hint, printable, owned by whoever has to act."""
    work = stand_in(f"printf '%s\\n' \"{stderr}\" >&2; exit 1")
    with pytest.raises(kind, match=sentence) as error:
        nix.build("github:o/r#x", work)
    assert "\x1b" not in str(error.value)
    assert error.value.hint


@pytest.mark.parametrize("script", ["exit 0", "echo no/such/file", "echo hello"])
def test_program_that_prints_no_file(stand_in: Callable[[str], Path], script: str) -> None:
    """A program that ends well and names no file is at fault."""
    work = stand_in(script)
    with pytest.raises(ImageError, match="which is no file"):
        nix.build("github:o/r#x", work)


def test_nix_ends_with_its_parent(stand_in: Callable[[str], Path], tmp_path: Path) -> None:
    """What Nix started is gone when vmtests is killed with SIGKILL."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    work = stand_in(f"exec 9> '{fifo}'; echo up >&9; sleep 1000")
    script = f"from pathlib import Path; from vmtests.image import nix; nix.build('github:o/r#x', Path({str(work)!r}))"
    with subprocess.Popen([sys.executable, "-c", script]) as parent, fifo.open("rb") as reader:
        assert b"up\n" == reader.readline()
        parent.kill()
        assert b"" == reader.read()
