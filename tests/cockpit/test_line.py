"""The emulated terminal: whatever comes, what is drawn are characters and colours."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.events import Key

from vmtests.cockpit.keys import typed
from vmtests.cockpit.line import Screen

_PIECES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [b"\x1b[?3h", b"\x1b[4J", b"\x1b[3K", b"\x1b[?m", b"\x1b[>c", b"\x1b[6n", b"\x1b#8", b"\x1b[2;1r", b"\x1bM"]
    ),
    st.builds(
        lambda n, end: f"\x1b[{n}{end}".encode(), st.integers(0, 10**12), st.sampled_from("@ABCDGHJKLMPXdmhlrn"),
    ),
)  # fmt: skip


@given(st.lists(_PIECES, max_size=20))
def test_every_byte_can_be_fed(pieces: list[bytes]) -> None:
    """Nothing breaks it or changes its size, and every row has printable characters only."""
    screen = Screen(20, 5)
    for piece in pieces:
        screen.feed(piece)
    screen.resize(7, 3)
    screen.feed(b"\x1bc\r\nok")
    assert (7, 3) == (screen.screen.columns, screen.screen.lines)
    for y in range(3):
        assert all(c.isprintable() for segment in screen.row(y, cursor=True) for c in segment.text)


def test_marks_without_end_cost_nothing() -> None:
    """Those that combine with the character before them would all go into one cell."""
    screen = Screen()
    began = time.process_time()
    for _ in range(20):
        screen.feed(b"a" + "\u0591\u0301\u064b".encode() * 4000)
    assert time.process_time() - began < 2
    assert max(len(cell.data) for row in screen.screen.buffer.values() for cell in row.values()) == 1


def test_smaller_screen_keeps_what_is_at_the_cursor() -> None:
    """Rows below the cursor go first, then those at the top: a prompt is never what goes."""
    screen = Screen(20, 24)
    screen.feed(b"one\r\ntwo\r\nlogin: ")
    for lines, shown in ((10, ["one", "two", "login:"]), (2, ["two", "login:"]), (4, ["two", "login:", "", ""])):
        screen.resize(20, lines)
        assert shown == [row.strip() for row in screen.screen.display][: len(shown)]
    screen.feed(b"root")
    assert "login: root" == screen.screen.display[1].strip()


def test_programs_that_use_the_whole_screen_are_drawn() -> None:
    """Scroll regions, charsets, wide characters and colours are those of a terminal."""
    screen = Screen(10, 4)
    screen.feed(b"\x1b[H\x1b[2J\x1b[1;3r\x1b[1;31mred\x1b[0m\r\n\x1b(0qqq\x1b(B\r\n" + "字x".encode())
    rows = ["".join(segment.text for segment in screen.row(y, cursor=False)) for y in range(3)]
    assert ["red", "───", "字x"] == [row.strip() for row in rows]
    style = screen.row(0, cursor=False)[0].style
    assert style is not None
    assert style.color is not None
    assert ("red", True) == (style.color.name, style.bold)


@pytest.mark.parametrize(
    ("key", "character", "sent"),
    [
        ("a", "a", b"a"),
        ("ctrl+c", "\x03", b"\x03"),
        ("ctrl+d", None, b"\x04"),
        ("enter", "\r", b"\r"),
        ("left", None, b"\x1b[D"),
        ("euro_sign", "€", "€".encode()),
        ("ctrl+shift+f13", None, b""),
    ],
)
def test_keys_are_what_a_terminal_sends(key: str, character: str | None, sent: bytes) -> None:
    """Each key of a person's terminal is what the Linux console sends for it."""
    assert sent == typed(Key(key, character))
