"""The machine that a person is at: what is asked of it is done by one thread, and every answer is a sentence."""

import errno
from pathlib import Path

import pytest

from tests.cockpit.conftest import TypedHands
from vmtests.boot.follow import Follower
from vmtests.boot.stages import Stage
from vmtests.cockpit import attach
from vmtests.cockpit.port import Act, Way
from vmtests.cockpit.session import POINTS, Session
from vmtests.errors import GuestError, HostError, InputError, VmtestsError
from vmtests.testing import recording

WAIT = 10.0


def _ask(session: Session, act: Act, word: str = "") -> str:
    return session.ask(act, word).result(WAIT)


def _until(parts: dict[Stage, bytes], stage: Stage) -> bytes:
    return b"".join(part for begun, part in parts.items() if not stage.before(begun))


def _power_on(hands: TypedHands) -> None:
    assert hands.made.acquire(timeout=WAIT)


def test_all_that_came_is_shown_once(session: Session, hands: TypedHands, parts: dict[Stage, bytes]) -> None:
    """Stages get their seconds, budgets and what they took lately; a line is told to each reader once."""
    hands.vms[0].say(_until(parts, Stage.KERNEL))
    state = session.state(0)
    rows = {row.stage: row for row in state.rows}
    assert (Stage.KERNEL, None, 3.25, 20.0) == (
        state.stage, rows[Stage.INITRD].seconds, rows[Stage.KERNEL].usual, rows[Stage.KERNEL].budget,
    )  # fmt: skip
    assert rows[Stage.KERNEL].seconds is not None
    assert state.total == len(state.lines) > 2
    assert () == session.state(state.total).lines
    hands.vms[0].say(b"[    9.000000] one more\r\n")
    assert ["[    9.000000] one more"] == [line.text for line in session.state(state.total).lines]


def test_verdict_is_told_with_its_evidence(session: Session, hands: TypedHands) -> None:
    """A boot that failed says why, and where, as soon as that is known."""
    hands.vms[0].say(recording("fault-store-label-wrong").console)
    hands.vms[0].follower.wait_verdict()
    told = session.state(0).told
    assert told is not None
    assert told.word == "failed"
    # Without the lines around it, for there is little room.
    assert "Timed out waiting for device /dev/disk/by-partlabel/nix-store" in told.evidence[0]


def test_asking_interrupts_the_wait_for_a_boot(session: Session, hands: TypedHands) -> None:
    """A boot that says nothing does not keep anybody from asking."""
    assert "sysrq t was sent" in _ask(session, Act.SYSRQ, "t")
    assert ("sysrq", "t") in hands.asked
    assert _ask(session, Act.PICTURE).endswith("screenshot-1.png")
    assert _ask(session, Act.GDB).startswith("gdb -ex")


@pytest.mark.parametrize("key", ["", "tt", "é", "\x1b", "A"])
def test_no_other_byte_is_sent_as_sysrq(session: Session, hands: TypedHands, key: str) -> None:
    """What is no key of sysrq is not typed on the guest's console."""
    with pytest.raises(InputError, match="no key of sysrq"):
        _ask(session, Act.SYSRQ, key)
    assert [("boot",)] == hands.asked


def test_going_back_ends_the_machine_for_another(session: Session, hands: TypedHands) -> None:
    """What was kept is gone back to at once, and the machine that was there has ended."""
    assert "kept: 1: here" in _ask(session, Act.SNAPSHOT)
    assert "going back to 1: here" == _ask(session, Act.REWIND, "1: here")
    _power_on(hands)
    assert hands.vms[0].ended.wait(WAIT)
    assert hands.asked == [("boot",), ("go back", "1: here")]
    assert 2 == session.state(0).machine


def test_stage_that_was_never_kept_is_booted_to(
    session: Session, hands: TypedHands, parts: dict[Stage, bytes]
) -> None:
    """Going back to a stage where no machine is kept boots again, and keeps one when the stage begins."""
    assert "booting anew to kernel" in _ask(session, Act.REWIND, "kernel")
    _power_on(hands)
    assert not hands.kept["kernel"]
    hands.vms[1].say(_until(parts, Stage.KERNEL))
    session.take(Way.CONSOLE, 80, 24).result(WAIT)  # and whoever asks meanwhile does not keep it from that
    assert _ask(session, Act.SYSRQ, "h")
    assert ("keep", "kernel") in hands.asked


def test_nothing_else_can_be_gone_back_to(session: Session) -> None:
    """A point that there is not is refused, and the machine stays."""
    with pytest.raises(InputError, match="nothing to go back to"):
        _ask(session, Act.REWIND, "elsewhere")
    assert 1 == session.state(0).machine


def test_record_keeps_every_stage(hands: TypedHands, tmp_path: Path, parts: dict[Stage, bytes]) -> None:
    """A boot that is recorded is kept where each stage begins, in their order."""
    with Session(hands, tmp_path, record=True) as session:
        _power_on(hands)
        for part in parts.values():
            hands.vms[0].say(part)
        while len(hands.asked) <= len(POINTS):
            _ask(session, Act.SYSRQ, "h")
            hands.asked.remove(("sysrq", "h"))
        assert hands.asked == [("boot",), *(("keep", str(stage)) for stage in POINTS)]


def test_power_goes_and_comes(session: Session, hands: TypedHands) -> None:
    """A machine whose power was cut does nothing until it is given back, and boots again then."""
    assert "is cut" in _ask(session, Act.POWER)
    assert not session.state(0).on
    for act, word in ((Act.SYSRQ, "t"), (Act.SNAPSHOT, ""), (Act.GDB, "")):
        with pytest.raises(GuestError, match="is off"):
            _ask(session, act, word)
    assert "powered on again" in _ask(session, Act.POWER)
    assert (True, 2) == (session.state(0).on, session.state(0).boot)
    hands.vms[0].say(recording("reference-ready").console)
    told = session.state(0).told
    assert told is not None
    assert "ready" == told.word


def test_who_goes_back_from_a_standstill_stands_still(session: Session, hands: TypedHands) -> None:
    """A machine that is gone back to stands still where the one before did: a debugger is there before it goes on."""
    assert "stands still" in _ask(session, Act.PAUSE)
    _ask(session, Act.SNAPSHOT)
    _ask(session, Act.REWIND, "1: here")
    _power_on(hands)
    assert "goes on" in _ask(session, Act.PAUSE)
    assert hands.asked == [("boot",), ("pause", "True"), ("go back", "1: here"), ("pause", "True"), ("pause", "False")]
    assert not session.state(0).still


def test_stage_is_not_kept_while_the_person_has_the_machine_stand_still(
    hands: TypedHands, tmp_path: Path, parts: dict[Stage, bytes]
) -> None:
    """Who keeps a machine lets it go on: one that is recorded and was stopped is kept when the person lets it."""
    with Session(hands, tmp_path, record=True) as session:
        _power_on(hands)
        _ask(session, Act.PAUSE)
        hands.vms[0].say(_until(parts, Stage.KERNEL))
        for _ in range(3):  # between two of them it looks whether there is something to keep
            _ask(session, Act.SYSRQ, "h")
        assert ("keep", "kernel") not in hands.asked
        _ask(session, Act.PAUSE)
        while ("keep", "kernel") not in hands.asked:
            _ask(session, Act.SYSRQ, "h")


def test_line_is_given_back(session: Session, hands: TypedHands) -> None:
    """What is typed goes to the guest until the line is given back; then the guest's end is closed."""
    taken = session.take(Way.CONSOLE, 80, 24).result(WAIT)
    assert b"login: " == taken.said
    taken.wire.sendall(b"root\r")
    assert b"root\r" == hands.vms[0].guest_end.recv(100)
    taken.give_back()
    assert b"" == hands.vms[0].guest_end.recv(100)


def test_ssh_waits_for_a_guest_that_is_ready(session: Session) -> None:
    """Who asks for a shell too early is told so."""
    with pytest.raises(GuestError, match="has to wait"):
        session.take(Way.SSH, 80, 24).result(WAIT)


def test_machine_that_cannot_be_made_is_told(hands: TypedHands, tmp_path: Path) -> None:
    """The session stays, says why, and another machine can be begun."""
    hands.fails = "QEMU is not there"
    with Session(hands, tmp_path) as session:
        with pytest.raises(VmtestsError, match="no machine"):
            _ask(session, Act.SYSRQ, "t")
        assert session.error is not None
        assert "QEMU is not there" in session.state(0).says
        hands.fails = ""
        _ask(session, Act.REWIND, "firmware")
        _power_on(hands)
        assert _ask(session, Act.SYSRQ, "t")
        assert session.error is None


def test_who_leaves_has_the_machine_until_the_end(hands: TypedHands, tmp_path: Path) -> None:
    """After `stop` the machine goes on, for its diagnosis; it ends with the session."""
    with Session(hands, tmp_path) as session:
        _power_on(hands)
        _ask(session, Act.SYSRQ, "t")
        session.stop()
        assert session.vm is hands.vms[0]
        assert not hands.vms[0].ended.is_set()
    assert hands.vms[0].ended.is_set()


def test_boot_that_is_only_printed_is_waited_for_and_can_be_attached_to(hands: TypedHands, tmp_path: Path) -> None:
    """`watch` is told of every line, in the machine's thread; another process asks meanwhile; `wait` ends it."""
    seen: list[str] = []

    def watch(follower: Follower) -> None:
        seen[:] = [line.text for line in follower.lines]

    with Session(hands, tmp_path, watch=watch) as session, attach.Server(session, tmp_path):
        assert hands.made.acquire(timeout=WAIT)
        with attach.Attached(tmp_path / "attach.sock") as attached:
            assert "sysrq t was sent" in attached.ask(Act.SYSRQ, "t").result(WAIT)
            hands.vms[0].say(recording("fault-store-label-wrong").console)
            session.wait()
        session.stop()
        assert session.verdict is not None
        assert not session.verdict.ready
        assert len(seen) > 10


def test_error_of_who_prints_is_raised_where_the_boot_is_waited_for(hands: TypedHands, tmp_path: Path) -> None:
    """A closed pipe ends the command as ever, and leaves no thread that waits."""

    def watch(follower: Follower) -> None:
        raise BrokenPipeError

    with Session(hands, tmp_path, watch=watch) as session:
        assert hands.made.acquire(timeout=WAIT)
        hands.vms[0].say(b"a line\r\n")
        with pytest.raises(BrokenPipeError):
            session.wait()


def test_machine_that_cannot_be_made_ends_the_wait(hands: TypedHands, tmp_path: Path) -> None:
    """The error is the session's."""
    hands.fails = "no room"
    with Session(hands, tmp_path, watch=lambda follower: None) as session:
        session.wait()
        session.stop()
        assert str(session.error).startswith("no room")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.EMFILE, "Too many open files", "snapshots"), "this host gives no more: Too many open files"),
        (ZeroDivisionError("a bug"), "a bug"),
    ],
    ids=["host", "bug"],
)
def test_whatever_ends_the_machines_thread_ends_the_wait(
    hands: TypedHands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, expected: str
) -> None:
    """Nobody waits for a boot that nobody follows; what the host refuses is told as such."""

    def fail(*_: object) -> bool:
        raise error

    monkeypatch.setattr(hands, "keep_stage", fail)
    with Session(hands, tmp_path, record=True) as session:
        assert hands.made.acquire(timeout=WAIT)
        hands.vms[0].say(recording("fault-store-label-wrong").console)
        assert session._decided.wait(WAIT)
        assert str(session.error).startswith(expected)
        assert expected in session.state(0).says


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device", "x.png"), ZeroDivisionError("x")])
def test_whoever_asks_is_answered_whatever_comes_of_it(
    session: Session, hands: TypedHands, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """An error that is no sentence of ours is one where the host is at fault; the machine goes on."""

    def fail() -> Path:
        raise error

    monkeypatch.setattr(hands.vms[0], "screenshot", fail)
    with pytest.raises(HostError if isinstance(error, OSError) else ZeroDivisionError):
        _ask(session, Act.PICTURE)
    assert "sysrq t was sent" in _ask(session, Act.SYSRQ, "t")
