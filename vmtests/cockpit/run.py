"""The cockpit on the terminal of this process, which is as it was afterwards."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator

from vmtests.cockpit.guard import guarded
from vmtests.cockpit.port import Cockpit
from vmtests.errors import InputError

_KEYS, _SCREEN = 0, 2  # descriptors: Textual reads standard input, and draws on standard error


def has_terminal() -> bool:
    """Whether a person sits at all ends: keys and screen, on which can be drawn, and nobody else reads the output."""
    ends = (sys.__stdin__, sys.__stdout__, sys.__stderr__)
    return all(end is not None and end.isatty() for end in ends) and os.environ.get("TERM", "dumb") != "dumb"


def fly(cockpit: Cockpit, *, ssh: bool = False, line: bool = False) -> None:
    """Show a machine until the person leaves; raises KeyboardInterrupt when this process was told to end."""
    from vmtests.cockpit.app import CockpitApp

    app = CockpitApp(cockpit, ssh=ssh, line=line)
    with _signals(), guarded(_KEYS):
        # Without the mouse, which then selects text as everywhere in the person's terminal.
        app.run(mouse=False)
    if app.terminated:
        raise KeyboardInterrupt


@contextlib.contextmanager
def own() -> Iterator[None]:
    """Have the terminal of this process for keys and screen, whatever its standard input and error are.

    Raises InputError when there is none.
    """
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise InputError("there is no terminal to attach to a guest", hint="--vm-console is for a person") from error
    saved = [(end, os.dup(end)) for end in (_KEYS, _SCREEN)]
    try:
        for end, _ in saved:
            os.dup2(terminal, end)
        yield
    finally:
        os.close(terminal)
        for end, was in saved:
            os.dup2(was, end)
            os.close(was)


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
