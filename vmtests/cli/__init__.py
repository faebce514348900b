"""The command `vmtests`: what a test can do, from a shell; a file a command.

Exit status: 0 when all is well, 1 when the image is at fault, 2 when the input or the host is, and after Ctrl-C.
Until `command` is there, which says so, Ctrl-C ends the process as it ends any program that does nothing about it:
Python would tell which module it was importing.
"""

import signal
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    if argv is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from vmtests.cli import command

    return command.main(argv)
