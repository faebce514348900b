"""The program that waits for the end of a guest's shell, run on this host."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from vmtests.guest import keeper
from vmtests.guest.wire import Short

TAG = "vmtests-0123456789ab"


@dataclass(frozen=True, slots=True)
class Ended:
    """What is there after the end of a script."""

    status: str
    said: bytes

    @property
    def short(self) -> Short | None:
        """Return the answer, if there is a whole one."""
        answers = [Short.parse(TAG, line) for line in self.said.splitlines() if line]
        assert answers[0] == answers[-1]
        return answers[0]


class Keep:
    """Runs scripts as agent.sh has them run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._program = directory / "keeper"
        self._program.write_bytes(keeper.program())
        self._program.chmod(0o700)

    def __call__(self, script: str, shell: str = "/bin/bash") -> Ended:
        """Run a script."""
        here = self.directory
        (here / "c").write_text(script)
        (here / "o").touch()
        (here / "e").touch()
        run = f"cd {here}; exec {self._program} {TAG} {shell} {here}/c 3>s </dev/null >o 2>e 5<o 6<e 8>r"
        subprocess.run(["bash", "-c", run], check=True, timeout=20)
        return Ended((here / "r").read_text(), (here / "s").read_bytes())


@pytest.fixture
def keep(tmp_path: Path) -> Keep:
    """Return what runs a script under the program."""
    return Keep(tmp_path)


@pytest.mark.parametrize(
    ("script", "code", "stdout", "stderr"),
    [
        ("", 0, b"", b""),
        ("echo a; exit 7", 7, b"a\n", b""),
        ("exit 255", 255, b"", b""),
        ("kill -9 $$", 137, b"", b""),
        (r"printf 'a\\b:c\nd'; echo 'x \ y' >&2", 0, b"a\\b:c\nd", b"x \\ y\n"),
        ("printf %1999s x; printf %1999s y >&2", 0, b" " * 1998 + b"x", b" " * 1998 + b"y"),
        (r"printf '%01999d' 0 | tr 0 '\n'", 0, b"\n" * 1999, b""),
    ],
    ids=["nothing", "code", "last code", "killed", "escapes", "long", "all escaped"],
)
def test_short_outputs_are_said(keep: Keep, script: str, code: int, stdout: bytes, stderr: bytes) -> None:
    """What is short and plain comes with the exit code, in one answer, twice."""
    ended = keep(script)
    assert Short(code=code, stdout=stdout, stderr=stderr) == ended.short
    assert ended.status == f"{code}\n"
    assert ended.said.count(b"\n") == 4


@pytest.mark.parametrize(
    "script",
    [
        "printf %2000s x",
        "printf %2000s x >&2",
        "head -c 9000 /dev/zero; exit 3",
        r"printf '\0'",
        r"printf 'a\tb'",
        r"printf '\177'",
        "printf ä",
        r"echo good; printf '\r' >&2",
    ],
)
def test_tag_alone_is_said_of_others(keep: Keep, script: str) -> None:
    """What is long, or no plain text, is to be fetched: its end is told, and the exit code is in the file."""
    ended = keep(script)
    assert ended.said == f"\n{TAG}\n".encode()
    assert ended.status == ("3\n" if "exit 3" in script else "0\n")


def test_shell_that_cannot_be_started_is_told(keep: Keep) -> None:
    """As in a shell, that is exit code 127."""
    assert Short(code=127, stdout=b"", stderr=b"") == keep("echo", shell="/nowhere/sh").short


def test_shell_gets_no_other_descriptor(keep: Keep) -> None:
    """What the program reads and writes is not the command's."""
    # By the shell itself: for another program it would open pipes, and close them at a time of its own.
    ended = keep("cd /proc/$$/fd; echo *; echo $0")
    assert ended.short is not None
    # One is the script's, one the directory's.
    assert ended.short.stdout == b"0 1 2 255 3\n" + os.fsencode(keep.directory / "c") + b"\n"
