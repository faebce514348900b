"""The cockpit on the terminal of this process, which is as it was afterwards."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator

from vmtests.cockpit.guard import guarded
from vmtests.cockpit.port import Cockpit


def has_terminal() -> bool:
    """Whether a person sits at both ends: keys and screen, and the screen can be drawn on."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def fly(cockpit: Cockpit, *, ssh: bool = False, line: bool = False) -> None:
    """Show a machine until the person leaves; raises KeyboardInterrupt when this process was told to end."""
    from vmtests.cockpit.app import CockpitApp

    app = CockpitApp(cockpit, ssh=ssh, line=line)
    with _signals(), guarded(sys.stdin.fileno()):
        # Without the mouse, which then selects text as everywhere in the person's terminal.
        app.run(mouse=False)
    if app.terminated:
        raise KeyboardInterrupt


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
