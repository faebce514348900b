"""Bytes of a console to lines, as they come: bounded memory, linear time.

The raw bytes are not touched; terminal sequences are taken out of the copy that is matched and shown.
"""

import re
from dataclasses import dataclass

from vmtests.text import decode

LINE_LIMIT = 8192
"""Bytes of a line that are kept, after terminal sequences were taken out."""

_PARAMETERS = 64  # bytes; no real control sequence has more
_STRING = 256  # bytes of an OSC or DCS; a longer one is a lost terminator, and its text must not stay hidden

# Control sequences: ECMA-48 sections 5.3 to 5.6; `ESC ] P` and `ESC ] R` without terminator:
# console_codes(4). Each alternative is decided by the byte after ESC, so a sequence means the same however
# the input is split.
_TOKEN = re.compile(
    rb"(?P<text>[^\x1b\r\n]+)"
    rb"|(?P<end>[\r\n]+)"
    rb"|\x1b(?:"
    rb"\[(?P<csi>[0-?]{0,%(parameters)d}[ -/]{0,4}[@-~])"
    rb"|\](?:R|P[0-9A-Fa-f]{7}|(?![RP])[^\x07\x1b\r\n]{0,%(string)d}(?:\x07|\x1b\\))"
    rb"|[PX^_][^\x07\x1b\r\n]{0,%(string)d}(?:\x07|\x1b\\)"
    rb"|[ -/]{1,4}[0-~]"
    rb"|(?P<single>[0-OQ-WYZ\\`-~])"
    rb")" % {b"parameters": _PARAMETERS, b"string": _STRING}
)
_UNFINISHED = re.compile(
    rb"\x1b(?:"
    rb"\[[0-?]{0,%(parameters)d}[ -/]{0,4}"
    rb"|\]P[0-9A-Fa-f]{0,6}"
    rb"|(?:\](?![RP])|[PX^_])[^\x07\x1b\r\n]{0,%(string)d}\x1b?"
    rb"|[ -/]{0,4}"
    rb")\Z" % {b"parameters": _PARAMETERS, b"string": _STRING}
)
# The cursor goes elsewhere: what follows is not the same line (firmware and boot menus paint that way).
_MOVES = re.compile(rb"[0-9;]*[Hf]|[23]J")
_MOVES_SINGLE = frozenset({b"c", b"E"})  # RIS, NEL


@dataclass(frozen=True, slots=True, kw_only=True)
class ScannedLine:
    """One line without terminal sequences; `cut` bytes of it were over the limit and are not in `text`."""

    text: str
    cut: int = 0


class Scanner:
    """Splits a stream into lines at newlines and carriage returns, in whatever pieces it comes.

    Lines without visible text are left out. Memory is bounded by the line limit, the longest sequence, and
    what one call returns.
    """

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self._limit = limit
        self._line = bytearray()
        self._cut = 0
        self._carry = b""
        self.examined = 0
        """Bytes looked at so far, those of split sequences each time: the work done."""

    def feed(self, data: bytes) -> list[ScannedLine]:
        """Take the next bytes and return the lines that they end."""
        data = self._carry + data if self._carry else data
        self._carry = b""
        self.examined += len(data)
        lines: list[ScannedLine] = []
        position = 0
        while position < len(data):
            token = _TOKEN.match(data, position)
            if token is None:
                if _UNFINISHED.match(data, position):
                    self._carry = data[position:]
                    break
                position += 1  # an ESC that starts nothing known: what follows it is text
                continue
            if token.lastgroup == "text":
                self._add(data, position, token.end())
            elif token.lastgroup == "end" or self._breaks(token):
                self._end(lines)
            position = token.end()
        return lines

    def finish(self) -> list[ScannedLine]:
        """End the stream: return what was left without a newline, if anything, and start afresh."""
        lines: list[ScannedLine] = []
        self._carry = b""
        self._end(lines)
        return lines

    @property
    def partial(self) -> str:
        """The line that has not ended yet, such as a prompt, with its trailing blanks."""
        return decode(bytes(self._line))

    @property
    def partial_size(self) -> int:
        """Bytes in the line that has not ended yet, those over the limit included."""
        return len(self._line) + self._cut

    def _add(self, data: bytes, start: int, end: int) -> None:
        room = self._limit - len(self._line)
        if end - start <= room:
            self._line += data[start:end]
        else:
            self._line += data[start : start + room]
            self._cut += end - start - room

    def _end(self, lines: list[ScannedLine]) -> None:
        if self._line and (text := decode(bytes(self._line)).rstrip()):
            lines.append(ScannedLine(text=text, cut=self._cut))
        self._line.clear()
        self._cut = 0

    @staticmethod
    def _breaks(token: re.Match[bytes]) -> bool:
        if (csi := token["csi"]) is not None:
            return _MOVES.fullmatch(csi) is not None
        return token["single"] in _MOVES_SINGLE
