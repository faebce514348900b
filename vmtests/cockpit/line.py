"""A line of the guest as a person has it: an emulated terminal, of which only characters and colours are shown.

Nothing that the guest sends gets to the person's own terminal: pyte keeps a screen of it, and that is drawn.
"""

import codecs
import contextlib
import functools
import itertools
import re
import threading
import unicodedata
from collections.abc import Iterator

import pyte
from rich.color import Color, ColorParseError
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from vmtests.cockpit.keys import GIVE_BACK, typed
from vmtests.cockpit.port import Taken, Wire

COLUMNS, LINES = 80, 24

_READ = 16 << 10
_TICK = 0.05  # seconds
_PER_TICK = 24 << 10  # bytes of the guest that are drawn in a tick; of a flood only the end is
_MARKS = 4  # on one character
_KEPT = "\x1b\r\n\b\t\x0e\x0f\v\f"  # besides what is printable
_COLOURS = {"brown": "yellow", "default": None}
# What sets titles and fills clipboards, which pyte would wait for the end of; and one that is not whole yet.
_TITLE = re.compile(r"\x1b\][^\x07\x1b]{0,4096}(?:\x07|\x1b\\)")
_BEGUN = re.compile(r"\x1b(?:\][^\x07\x1b]{0,4096}\x1b?)?\Z")


class Screen:
    """The screen of an emulated terminal, fed with the bytes of a guest."""

    def __init__(self, columns: int = COLUMNS, lines: int = LINES) -> None:
        self._size = columns, lines
        self.screen = pyte.Screen(columns, lines)
        self._renew()
        self._begun = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def _renew(self) -> None:
        self._stream = pyte.Stream(self.screen)
        self._stream.use_utf8 = False  # which is about charsets only: lines are drawn with one

    def feed(self, data: bytes) -> None:
        """Take bytes."""
        text = _TITLE.sub("", self._begun + self._decoder.decode(data))
        begun = _BEGUN.search(text)
        self._begun = begun[0] if begun else ""
        text = text[: len(text) - len(self._begun)].replace("\x1b]", "")
        # Marks that are left go into the cell before them, without an end.
        text = "".join(
            _harmless(c)
            for c in unicodedata.normalize("NFC", "".join(_few_marks(text)))
            if not unicodedata.combining(c)
        )
        for part in re.split(r"(?=\x1b)", text):
            try:
                self._stream.feed(part)
            except Exception:  # noqa: BLE001 - pyte raises this and that for sequences that it half knows
                self._renew()
        if (self.screen.columns, self.screen.lines) != self._size:
            self.resize(*self._size)  # DECCOLM (console_codes(4))

    def resize(self, columns: int, lines: int) -> None:
        """Have another size: of rows that have no room those below the cursor go first, then the top ones."""
        self._size = columns, lines
        screen, cursor = self.screen, self.screen.cursor
        over = max(cursor.y + 1 - lines, 0)
        rows = {y - over: row for y, row in screen.buffer.items() if over <= y < over + lines}
        screen.buffer.clear()
        screen.buffer.update(rows)
        screen.lines = lines  # pyte takes the top rows first: a prompt goes, and blank rows stay
        screen.resize(lines, columns)
        screen.set_margins()
        cursor.x, cursor.y = min(cursor.x, columns - 1), cursor.y - over

    def row(self, y: int, *, cursor: bool) -> list[Segment]:
        """Return one row as it is drawn."""
        screen = self.screen
        at = screen.cursor.x if cursor and y == screen.cursor.y else -1
        row, cells = screen.buffer[y], []
        for x in range(screen.columns):
            char = row[x]
            look = _look(char.fg, char.bg, char.bold, char.italics, char.underscore, char.reverse != (x == at))
            # The second half of a wide character is empty.
            cells.append(("".join(c if c.isprintable() else "\ufffd" for c in char.data), look))
        return [
            Segment("".join(text for text, _ in run), look)
            for look, run in itertools.groupby(cells, key=lambda cell: cell[1])
        ]


def _few_marks(text: str) -> Iterator[str]:
    """Yield a text without more than a few marks on one character: to order them takes their number's square."""
    marks = 0
    for c in text:
        marks = marks + 1 if unicodedata.combining(c) else 0
        if marks <= _MARKS:
            yield c


def _harmless(c: str) -> str:
    return c if c.isprintable() or c in _KEPT else "" if c in "\0\a" else "\ufffd"


@functools.lru_cache(1024)
def _look(fg: str, bg: str, bold: bool, italic: bool, underline: bool, reverse: bool) -> Style:
    """Return how a character is drawn."""
    return Style(
        color=_colour(fg), bgcolor=_colour(bg), bold=bold, italic=italic, underline=underline, reverse=reverse
    )


def _colour(name: str) -> Color | None:
    name = _COLOURS.get(name, name) or ""
    if not name:
        return None
    if name.startswith("bright"):
        name = f"bright_{name.removeprefix('bright').replace('brown', 'yellow')}"
    with contextlib.suppress(ColorParseError):
        return Color.parse(f"#{name}" if _HEX.match(name) else name)
    return None


_HEX = re.compile(r"[0-9a-f]{6}$")


class Line(Widget, can_focus=True):
    """A line that was taken: what is typed goes to the guest, until it is given back, or ends."""

    class Ended(Message):
        """The line was given back, or the guest's end is closed."""

        def __init__(self, why: str) -> None:
            super().__init__()
            self.why = why

    def __init__(self, taken: Taken, what: str) -> None:
        super().__init__(id="line")
        self._taken = taken
        self.border_title = f"{what}: what you type goes to the guest; Ctrl-] gives it back"
        self._emulated = Screen()
        self._came = bytearray(taken.said)
        self._lock = threading.Lock()
        self._over = False
        self._reader = threading.Thread(target=self._read, args=(taken.wire,), name="line", daemon=True)

    def on_mount(self) -> None:
        """Begin to read, and to draw what came."""
        self._reader.start()
        self.set_interval(_TICK, self._draw)
        # At once: focus() waits its turn, and who sees the first line drawn may type then.
        self.screen.set_focus(self)

    def on_unmount(self) -> None:
        """Give it back."""
        self._taken.give_back()

    def on_resize(self, event: events.Resize) -> None:
        """Have as many columns and lines as there is room for."""
        size = self.content_size
        self._emulated.resize(max(size.width, 2), max(size.height, 2))
        resize = getattr(self._taken.wire, "resize_pty", None)  # of an ssh channel
        if resize is not None:
            with contextlib.suppress(Exception):
                resize(event.size.width, event.size.height)

    def on_key(self, event: events.Key) -> None:
        """Send what was typed; every key is the guest's but the one that gives the line back."""
        event.stop()
        event.prevent_default()
        if event.key == GIVE_BACK:
            self.post_message(self.Ended("the line is given back"))
        elif data := typed(event):
            self._send(data)

    def on_paste(self, event: events.Paste) -> None:
        """Send what was pasted."""
        event.stop()
        self._send(event.text.replace("\n", "\r").encode())

    def render_line(self, y: int) -> Strip:
        """Draw a line of the screen."""
        if y >= self._emulated.screen.lines:
            return Strip.blank(self.content_size.width)
        return Strip(self._emulated.row(y, cursor=self.has_focus))

    def _send(self, data: bytes) -> None:
        try:
            self._taken.wire.sendall(data)
        except OSError:
            self.post_message(self.Ended("the line is closed"))

    def _read(self, wire: Wire) -> None:
        with contextlib.suppress(OSError):
            while data := wire.recv(_READ):
                with self._lock:
                    self._came += data
                    del self._came[: -8 * _PER_TICK]
        self._over = True

    def _draw(self) -> None:
        if not self.size:
            return  # it is not laid out yet
        with self._lock:
            data, self._came = bytes(self._came), bytearray()
        if data:
            self._emulated.feed(data[-_PER_TICK:])
            self.refresh()
        elif self._over:
            self._over = False
            self.post_message(self.Ended("the guest's end of the line is closed"))
