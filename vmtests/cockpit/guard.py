"""A process that puts the terminal right when the one that had changed it is gone, whatever ended that.

It is started before the terminal is changed, and waits for the end of a pipe: a byte first says that all is well.
"""

import ast
import contextlib
import os
import subprocess
import sys
import termios
from collections.abc import Iterator
from typing import Any

# What Textual's driver for Linux switches on, or an older one may have (textual/drivers/linux_driver.py), off again:
# mouse, focus, bracketed paste, keyboard protocol, resize and synchronised output; line wrap, the alternate screen,
# the cursor and colours. A terminal passes over what it does not know.
_RESTORE = (
    b"\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?1015l\x1b[?1016l\x1b[?1004l\x1b[?2004l\x1b[?2048l\x1b[?2026l"
    b"\x1b[<u\x1b[?7h\x1b[?1049l\x1b[?25h\x1b[0m"
)
_WELL = b"."


@contextlib.contextmanager
def guarded(terminal: int) -> Iterator[None]:
    """Have the terminal as it is now put right at the end of this process, if that comes within the block."""
    saved = termios.tcgetattr(terminal)
    out, into = os.pipe()
    try:
        watcher = subprocess.Popen(
            [sys.executable, "-I", __file__, repr(saved)],
            stdin=out,
            stdout=terminal,
            stderr=subprocess.DEVNULL,
            # No key ends it, nor the end of the session; and who has no terminal of its own may set any.
            start_new_session=True,
        )
    finally:
        os.close(out)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, saved)
        with contextlib.suppress(BrokenPipeError):
            os.write(into, _WELL)
        os.close(into)
        watcher.wait()


def _watch(terminal: int, saved: list[Any]) -> None:
    if os.read(0, 1):
        return
    os.write(terminal, _RESTORE)
    # The shell may have set the terminal for its next line already, which has keys for signals: it knows how.
    if not termios.tcgetattr(terminal)[3] & termios.ISIG:
        termios.tcsetattr(terminal, termios.TCSANOW, saved)


if __name__ == "__main__":
    with contextlib.suppress(OSError, termios.error):
        _watch(1, ast.literal_eval(sys.argv[1]))
