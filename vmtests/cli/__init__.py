"""The command `vmtests`: what a test can do, from a shell; a file a command.

Exit status: 0 when all is well, 1 when the image is at fault, 2 when the input, the host or a bug of ours is, and
after Ctrl-C.
Until `command` is there, which says so, Ctrl-C ends the process as it ends any program that does nothing about it:
Python would tell which module it was importing.
"""

import os
import signal
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    if argv is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from vmtests.cli import command

        return command.main(argv)
    except Exception as error:
        if argv is not None:
            raise
        # Python's own status is 1, which would be the image's fault.
        said = b"vmtests: this host has no memory left\n"
        if not isinstance(error, MemoryError):
            sys.excepthook(type(error), error, error.__traceback__)
            said = b"vmtests: a bug of vmtests, or this host, ended it; that says nothing of the image\n"
        try:  # noqa: SIM105 - Ctrl-C while contextlib is imported here would be a traceback
            os.write(2, said)
        except OSError:
            pass
        return 2
