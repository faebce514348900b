"""The clock of a guest that was kept is set when it goes on, by whatever the guest has for that."""

import os
import re
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from vmtests.errors import GuestError

from .conftest import BASH, Connect, MakeGuest


@pytest.fixture
def dates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file that gets what date(1) is called with in a guest; no guest of these sets this host's clock."""
    date = tmp_path / "date"
    date.write_text('#!/bin/sh\necho "$@" >>"$HOME/dates"\n')
    date.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path / "dates"


def test_clock_is_set_again_when_the_guest_was_slow(
    make_guest: MakeGuest, connect: Connect, dates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest that takes long to set its clock is told the time once more."""
    shell = connect(make_guest())
    now = iter([100.0, 108.0, 108.0, 108.2])
    monkeypatch.setattr("vmtests.guest.serial.time", SimpleNamespace(time=lambda: next(now), monotonic=time.monotonic))
    shell.wake()
    assert dates.read_text(encoding="utf-8").split() == ["-s", "@100.000", "-s", "@108.000"]
    assert [] == list(now)


def test_clock_is_set_once_for_each_time(make_guest: MakeGuest, connect: Connect, dates: Path) -> None:
    """A call that comes twice, since its answer was late, does not set the clock back to when it was made."""
    guest = make_guest()
    shell = connect(guest)
    shell.wake()
    (call,) = [line for line in bytes(guest.sent).splitlines() if line.split()[4:5] == [b"_vm_wake"]]
    guest.connection.sendall(call + b"\n")
    shell.wake()
    assert 2 == len(dates.read_text(encoding="utf-8").splitlines())


def test_clock_that_the_program_may_not_set_is_set_by_date(
    make_guest: MakeGuest, connect: Connect, dates: Path
) -> None:
    """Whom the kernel refuses the clock says so, and date(1) is tried; what waited is gone, and nothing hangs."""
    guest = make_guest()
    shell = connect(guest)
    assert shell.prepare()
    guest.sent.clear()
    shell.wake()
    assert (["_vm_wake"], 1) == (guest.calls, len(dates.read_text(encoding="utf-8").splitlines()))
    assert "there\n" == shell.run("echo there").stdout


def test_guest_that_refuses_the_program_does_without(
    make_guest: MakeGuest, connect: Connect, dates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the small program cannot run nothing waits, and date(1) sets the clock."""
    monkeypatch.setattr("vmtests.guest.standin.program", lambda: b"\x7fELF of another world")
    shell = connect(make_guest())
    assert "" == shell.prepare()
    shell.wake()
    assert dates.read_text(encoding="utf-8").startswith("-s @")
    assert "there\n" == shell.run("echo there").stdout


_TOOLS = "rm mkdir mkfifo chmod cat base64 head wc od stty sleep tr sh bash"


def _only(tmp_path: Path, **programs: str) -> tuple[str, ...]:
    """Return how a guest is started that has its shell's tools and `programs`, which are scripts."""
    (tmp_path / "bin").mkdir()
    for name in _TOOLS.split():
        (tmp_path / "bin" / name).symlink_to(Path("/usr/bin", name))
    for name, script in programs.items():
        program = tmp_path / "bin" / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o700)
    return (BASH[0], "--setenv", "PATH", f"{tmp_path}/bin", *BASH[1:])


def test_clock_is_set_by_a_busybox_without_links(make_guest: MakeGuest, connect: Connect, tmp_path: Path) -> None:
    """A busybox that has no link called date is asked itself, in whole seconds."""
    connect(make_guest(*_only(tmp_path, busybox='echo "$@" >>"$HOME/called"'))).wake()
    assert re.fullmatch(r"date -s @\d+\n", (tmp_path / "called").read_text(encoding="utf-8"))


def test_clock_is_set_by_a_date_of_whole_seconds(make_guest: MakeGuest, connect: Connect, tmp_path: Path) -> None:
    """A date(1) that knows no fractions, as busybox's, is told the second."""
    date = 'case $2 in *.*) exit 1;; esac; echo "$@" >>"$HOME/called"'
    connect(make_guest(*_only(tmp_path, date=date))).wake()
    assert re.fullmatch(r"-s @\d+\n", (tmp_path / "called").read_text(encoding="utf-8"))


def test_guest_without_date_goes_on(make_guest: MakeGuest, connect: Connect, tmp_path: Path) -> None:
    """Where nothing can set the clock it goes on from where it stood, and commands run."""
    shell = connect(make_guest(*_only(tmp_path)))
    shell.wake()
    assert "there\n" == shell.run("echo there").stdout


def test_clock_that_may_not_be_set_is_an_error(make_guest: MakeGuest, connect: Connect, tmp_path: Path) -> None:
    """A date(1) that fails is told, and no busybox asked instead."""
    shell = connect(make_guest(*_only(tmp_path, date="exit 1", busybox="exit 0")))
    with pytest.raises(GuestError, match="does not set its clock"):
        shell.wake()
