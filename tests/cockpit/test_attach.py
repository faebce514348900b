"""A boot of another process: what is shown and asked goes over a socket of this user's."""

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cockpit.conftest import TypedHands
from vmtests import cli
from vmtests.cockpit import attach, runtime
from vmtests.cockpit.port import Act, Way
from vmtests.cockpit.session import Session
from vmtests.errors import GuestError, HostError, InputError
from vmtests.testing import recording

WAIT = 10.0


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for sockets, whose path is not too long for them wherever the tests run."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
        yield Path(directory)


@pytest.fixture
def attached(session: Session, short: Path) -> Iterator[attach.Attached]:
    """The session, as another process has it."""
    with (
        runtime.directory() as directory,
        attach.Server(session, directory),
        attach.Attached(attach.choose(None)) as attached,
    ):
        yield attached


def test_what_is_shown_is_the_same(attached: attach.Attached, session: Session, hands: TypedHands) -> None:
    """Stages, lines and verdict come over as they are, and each line once."""
    hands.vms[0].say(recording("reference-ready").console)
    mine, theirs = session.state(0), attached.state(0)
    assert (mine.lines, mine.told, mine.title) == (theirs.lines, theirs.told, theirs.title)
    assert [row.stage for row in mine.rows] == [row.stage for row in theirs.rows]
    assert () == attached.state(theirs.total).lines


def test_what_is_asked_is_done_there(attached: attach.Attached, hands: TypedHands) -> None:
    """An answer comes back, and so does an error with its hint."""
    assert "sysrq t was sent" in attached.ask(Act.SYSRQ, "t").result(WAIT)
    assert ("sysrq", "t") in hands.asked
    with pytest.raises(GuestError, match="nothing to go back to"):
        attached.ask(Act.REWIND, "elsewhere").result(WAIT)


def test_line_goes_both_ways_and_is_given_back(attached: attach.Attached, hands: TypedHands) -> None:
    """What is typed there gets to the guest, byte for byte, until it is given back."""
    taken = attached.take(Way.CONSOLE, 80, 24).result(WAIT)
    assert b"login: " == taken.said
    taken.wire.sendall(b"root\r")
    guest = hands.vms[0].guest_end
    assert b"root\r" == guest.recv(100)
    guest.sendall(b"\xff\x00# ")
    assert b"\xff\x00# " == taken.wire.recv(100)
    taken.give_back()
    assert b"" == guest.recv(100)
    taken.wire.close()


def test_end_of_the_boot_is_told(session: Session, short: Path) -> None:
    """When the other process is gone the next look says so."""
    with attach.Server(session, short):
        attached = attach.Attached(short / "attach.sock")
        attached.state(0)
    with attached, pytest.raises(HostError, match="has ended"):
        attached.state(0)


def test_boots_are_told_apart_by_name(
    attached: attach.Attached, session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name that no boot has is refused with those that there are, and --list prints them."""
    with pytest.raises(InputError, match="no boot is called 'x'"):
        attach.choose("x")
    assert cli.main(["attach", "--list"]) == 0
    assert "reference · tcg (test)  firmware since" in capsys.readouterr().out
    assert cli.main(["attach"]) == 2  # pytest's standard input is no terminal


def test_name_of_an_image_does_nothing_to_a_terminal(
    attached: attach.Attached, hands: TypedHands, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is a file's, which may be anybody's, and --list prints it."""
    del attached
    hands.title = "a\x1b[2J.raw"
    assert cli.main(["attach", "--list"]) == 0
    assert "a\\x1b[2J.raw" in capsys.readouterr().out


def test_no_boot_is_told(short: Path) -> None:
    """Without a boot there is nothing to attach to, and the hint says what is one."""
    with pytest.raises(InputError, match="no boot can be attached to"):
        attach.choose(None)


def test_directory_of_others_is_refused(short: Path) -> None:
    """Where somebody else could put a socket none is looked for."""
    (short / "vmtests").mkdir()
    (short / "vmtests").chmod(0o777)
    with pytest.raises(HostError, match="this user alone"):
        attach.running()


def test_boot_that_is_stopped_keeps_nobody_from_the_others(
    attached: attach.Attached, session: Session, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Ctrl-Z, say: it lets connect, and does not answer."""
    monkeypatch.setattr(attach, "_SECONDS", 0.2)
    (stopped := short / "vmtests/stopped").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(stopped / "attach.sock"))
        listener.listen()
        assert 1 == len(attach.running())


def test_looking_for_boots_leaves_nothing(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who only asks what there is makes no directory for it."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
    assert attach.running() == []
    assert list(short.iterdir()) == []


def test_nonsense_is_answered(session: Session, short: Path) -> None:
    """A question that is none gets an error, and the next one its answer."""
    with attach.Server(session, short), attach.Attached(short / "attach.sock") as attached:
        attached._connection.sendall(b"nonsense\n")
        assert b"not understood" in attached._reader.readline()
        assert attached.state(0).machine == 1
