"""What a person sees and types, driven by Textual's own pilot."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import OptionList, RichLog, Static

from tests.cockpit.conftest import TypedHands
from vmtests.boot.stages import Stage
from vmtests.cockpit.app import CockpitApp
from vmtests.cockpit.line import Line
from vmtests.cockpit.session import Session
from vmtests.testing import recording

Person = Pilot[None]
SIZE = (100, 40)


def _fly(session: Session, person: Callable[[Person, CockpitApp], Awaitable[None]], *, ssh: bool = False) -> None:
    app = CockpitApp(session, ssh=ssh)

    async def run() -> None:
        async with app.run_test(size=SIZE) as pilot:
            await person(pilot, app)

    asyncio.run(asyncio.wait_for(run(), 60))


async def _until(pilot: Person, seen: Callable[[], bool]) -> None:
    """Wait until something is seen; the test as a whole has a limit."""
    while not seen():
        await pilot.pause(0.05)


def _shown(app: CockpitApp, place: str) -> str:
    return str(app.screen_stack[0].query_one(place, Static).render())


def _console(app: CockpitApp) -> str:
    return "\n".join(line.text for line in app.screen_stack[0].query_one("#console", RichLog).lines)


def _screen(app: CockpitApp) -> str:
    (line,) = app.screen_stack[0].query(Line)
    return "\n".join(line._emulated.screen.display)


def test_stages_move_and_the_verdict_appears(session: Session, hands: TypedHands, parts: dict[Stage, bytes]) -> None:
    """Each stage is marked when it begins, with its time; the verdict is there as soon as it is known."""

    async def person(pilot: Person, app: CockpitApp) -> None:
        await _until(pilot, lambda: "no verdict yet" in _shown(app, "#told"))
        for stage, part in parts.items():
            hands.vms[0].say(part)
            if stage is not Stage.READY:
                await _until(pilot, lambda stage=stage: f"▶ {stage}" in _shown(app, "#stages"))  # type: ignore[misc]
        await _until(pilot, lambda: "ready: multi-user.target was reached" in _shown(app, "#told"))
        await _until(pilot, lambda: "usual 3.2 s" in _shown(app, "#stages"))
        await _until(pilot, lambda: "Welcome to" in _console(app))

    _fly(session, person)


def test_failure_is_told_with_what_led_to_it(session: Session, hands: TypedHands) -> None:
    """A boot that failed shows the sentence, the line that says so, and a hint."""
    hands.vms[0].say(recording("fault-store-label-wrong").console)

    async def person(pilot: Person, app: CockpitApp) -> None:
        await _until(pilot, lambda: "failed: " in _shown(app, "#told"))
        await _until(pilot, lambda: "hint: " in _shown(app, "#told") and "✗" in _shown(app, "#stages"))

    _fly(session, person)


def test_line_takes_typing_and_is_given_back(session: Session, hands: TypedHands) -> None:
    """With the line every key is the guest's, quit and Ctrl-C too, until Ctrl-] gives it back."""

    async def person(pilot: Person, app: CockpitApp) -> None:
        await pilot.press("t")
        await _until(pilot, lambda: bool(app.screen_stack[0].query(Line)))
        await _until(pilot, lambda: "login:" in _screen(app))
        await pilot.press("q", "ctrl+c", "x", "enter", "up", "ü")
        assert "q\x03x\r\x1b[Aü".encode() == hands.vms[0].guest_end.recv(100)
        hands.vms[0].guest_end.sendall(b"\x1b[31mhello\x1b[0m\r\n# ")
        await _until(pilot, lambda: "hello" in _screen(app))
        await pilot.press("ctrl+right_square_bracket")
        await _until(pilot, lambda: not app.screen_stack[0].query(Line))
        await _until(pilot, lambda: "given back" in _shown(app, "#says"))
        assert b"" == hands.vms[0].guest_end.recv(100)
        await pilot.press("q")

    _fly(session, person)
    assert ("sysrq", "c") not in hands.asked


def test_what_came_while_the_line_was_taken_is_as_wide_as_ever(session: Session, hands: TypedHands) -> None:
    """The console, which was not on the screen then, knows its width again before it is written to."""
    long = "a line of the guest that is longer than twenty characters"

    async def person(pilot: Person, app: CockpitApp) -> None:
        await pilot.press("t")
        await _until(pilot, lambda: bool(app.screen_stack[0].query(Line)))
        hands.vms[0].say(f"{long}\r\n".encode())
        await _until(pilot, lambda: session.state(0).total > 0)
        app._drop_line()
        app._look()  # before there is a layout
        await _until(pilot, lambda: "characters" in _console(app))
        assert long in _console(app)

    _fly(session, person)


def test_end_of_the_guest_gives_the_line_back(session: Session, hands: TypedHands) -> None:
    """A guest that is gone takes no typing: the console is shown again, with a word about it."""

    async def person(pilot: Person, app: CockpitApp) -> None:
        await pilot.press("t")
        await _until(pilot, lambda: bool(app.screen_stack[0].query(Line)))
        hands.vms[0].guest_end.close()
        await _until(pilot, lambda: "closed" in _shown(app, "#says"))
        await _until(pilot, lambda: not app.screen_stack[0].query(Line))
        assert app.screen_stack[0].query_one("#console").display

    _fly(session, person)


def test_snapshot_and_rewind(session: Session, hands: TypedHands) -> None:
    """Here is kept by one key, and chosen from the list by another; the console goes on below a rule."""

    async def person(pilot: Person, app: CockpitApp) -> None:
        hands.vms[0].say(b"before\r\n")
        await pilot.press("s")
        await _until(pilot, lambda: "kept: 1: here" in _shown(app, "#says"))
        await _until(pilot, lambda: "1: here" in app._points)
        await pilot.press("r")
        await _until(pilot, lambda: isinstance(app.screen.focused, OptionList))
        await pilot.press("enter")  # what was kept is the first that is offered
        await _until(pilot, lambda: ("go back", "1: here") in hands.asked and len(hands.vms) == 2)
        hands.vms[1].say(b"after\r\n")
        await _until(pilot, lambda: "after" in _console(app))
        await _until(pilot, lambda: "machine 2" in _console(app))

    _fly(session, person)


def test_sysrq_asks_for_its_key(session: Session, hands: TypedHands) -> None:
    """The key after `y` is sysrq's, whatever it does otherwise; Esc is none."""

    async def person(pilot: Person, app: CockpitApp) -> None:
        await pilot.press("y", "escape")
        await _until(pilot, lambda: "no sysrq" in _shown(app, "#says"))
        await pilot.press("y", "t")
        await _until(pilot, lambda: ("sysrq", "t") in hands.asked)
        assert not app.screen_stack[0].query(Line)
        await pilot.press("y", "!")
        await _until(pilot, lambda: "no key of sysrq" in _shown(app, "#says"))

    _fly(session, person)


@pytest.mark.parametrize(("key", "said"), [("p", "screenshot-1.png"), ("g", "gdb -ex"), ("x", "power is cut")])
def test_answers_are_shown(session: Session, key: str, said: str) -> None:
    """What comes of a key is said in one line: the picture's path, the exact line for gdb."""

    async def person(pilot: Person, app: CockpitApp) -> None:
        await pilot.press(key)
        await _until(pilot, lambda: said in _shown(app, "#says"))

    _fly(session, person)


def test_ssh_opens_when_the_guest_is_ready(session: Session, hands: TypedHands) -> None:
    """With --ssh a shell is asked for when the guest is ready, once; what keeps it from that is said."""

    async def person(pilot: Person, app: CockpitApp) -> None:
        hands.vms[0].say(recording("reference-ready").console)
        await _until(pilot, lambda: "fake machine has no" in _shown(app, "#says"))

    _fly(session, person, ssh=True)


HOSTILE = (
    b"\x1b]0;title\x07\x1b[2J\x1b]52;c;ZXZpbA==\x07[red]markup[/red] [@click=app.quit]x[/]\r\n"
    b"\x1b[?1049h\x1bc\x9b31m\xe2\x80\xaebidi\r\n" + b"\x1b[9999999999@" * 50 + b"\r\n"
)


def test_hostile_console_is_shown_harmlessly(session: Session, hands: TypedHands, tmp_path: Path) -> None:
    """Markup is text, and no sequence of a guest's is in what is drawn, on the console or on a line."""

    async def person(pilot: Person, app: CockpitApp) -> None:
        hands.vms[0].say(HOSTILE)
        await _until(pilot, lambda: "[red]markup[/red] [@click=app.quit]" in _console(app))
        drawn = "".join(
            segment.text for strip in app.screen_stack[0].query_one("#console", RichLog).lines for segment in strip
        )
        assert all(c.isprintable() for c in drawn)
        await pilot.press("t")
        await _until(pilot, lambda: bool(app.screen_stack[0].query(Line)))
        hands.vms[0].guest_end.sendall(HOSTILE + b"\r\nend\r\n")
        await _until(pilot, lambda: "end" in _screen(app))
        (line,) = app.screen_stack[0].query(Line)
        for y in range(line.content_size.height):
            assert all(c.isprintable() for segment in line.render_line(y) for c in segment.text)

    _fly(session, person)


def test_look_that_comes_when_all_is_taken_down_sees_nothing(session: Session) -> None:
    """A timer may be due when the last screen is gone."""
    apps: list[CockpitApp] = []

    async def person(_pilot: Person, app: CockpitApp) -> None:
        apps.append(app)

    _fly(session, person)
    assert [] == apps[0].screen_stack
    apps[0]._look()


def test_picture_of_it_can_be_taken(session: Session, hands: TypedHands, parts: dict[Stage, bytes]) -> None:
    """What is shown is an SVG too, as docs/ has one."""

    async def person(pilot: Person, app: CockpitApp) -> None:
        hands.vms[0].say(b"".join(parts.values()))
        await _until(pilot, lambda: "ready: " in _shown(app, "#told"))
        assert "userspace" in app.export_screenshot()

    _fly(session, person)
