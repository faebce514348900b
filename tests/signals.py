"""The signals of a terminal, for processes that tests start."""

import signal


def heed() -> None:
    """Take SIGINT and SIGHUP as usual: sh(1p) ignores the one for what runs in the background, nohup(1p) the other."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def block() -> None:
    """Block what ends a process, as some that start others do, who inherit it."""
    heed()
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
