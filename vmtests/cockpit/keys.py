"""Keys as a terminal sends them: what the guest gets for each key that Textual names."""

from textual.events import Key

GIVE_BACK = "ctrl+right_square_bracket"
"""Gives the line back: Ctrl-], as with telnet(1)."""

# ECMA-48 and the terminal "linux" (terminfo(5), console_codes(4)).
_NAMED = {
    "enter": "\r",
    "tab": "\t",
    "shift+tab": "\x1b[Z",
    "backspace": "\x7f",
    "escape": "\x1b",
    "up": "\x1b[A",
    "down": "\x1b[B",
    "right": "\x1b[C",
    "left": "\x1b[D",
    "home": "\x1b[1~",
    "insert": "\x1b[2~",
    "delete": "\x1b[3~",
    "end": "\x1b[4~",
    "pageup": "\x1b[5~",
    "pagedown": "\x1b[6~",
    "f1": "\x1b[[A",
    "f2": "\x1b[[B",
    "f3": "\x1b[[C",
    "f4": "\x1b[[D",
    "f5": "\x1b[[E",
    "f6": "\x1b[17~",
    "f7": "\x1b[18~",
    "f8": "\x1b[19~",
    "f9": "\x1b[20~",
    "f10": "\x1b[21~",
    "f11": "\x1b[23~",
    "f12": "\x1b[24~",
    "ctrl+at": "\0",
    "ctrl+space": "\0",
    "ctrl+backslash": "\x1c",
    "ctrl+circumflex_accent": "\x1e",
    "ctrl+underscore": "\x1f",
}


def typed(key: Key) -> bytes:
    """Return what is sent to the guest for a key; nothing for one that no terminal sends."""
    if (named := _NAMED.get(key.key)) is not None:
        return named.encode()
    control, _, letter = key.key.rpartition("+")
    if control == "ctrl" and len(letter) == 1 and letter.isalpha():
        return bytes([ord(letter.lower()) & 0x1F])
    return (key.character or "").encode()
