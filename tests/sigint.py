"""Ctrl-C for processes that tests start."""

import signal


def heed() -> None:
    """Take SIGINT as usual: a shell starts what runs in the background with it ignored (sh(1p))."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
