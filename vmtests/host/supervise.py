"""Runs a command that ends, with all that it has started, when the process that asked for it ends.

What bubblewrap does with a process namespace is done here without one, where the host allows none:

    python -I -S supervise.py [--json-status-fd FD --sync-fd FD] [--path DIRECTORY] -- COMMAND...

Two processes watch the command and each other. Both adopt what is orphaned below them (PR_SET_CHILD_SUBREAPER) and
are told of their parent's end (PR_SET_PDEATHSIG, prctl(2)), upon which they kill all that is left: whichever is
killed, the other one sees to it. The options are bubblewrap's (bwrap(1)), and so is the exit status: the command's,
or 128 and the number of the signal that ended it. It is a script, and imports little: it is started for every tool.
"""

import contextlib
import ctypes
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_SIGNALLED = 128
_CANNOT_RUN = 127
_prctl = ctypes.CDLL(None).prctl


def _die_with(parent: int, number: int) -> None:
    """Ask for a signal when `parent` ends, or end at once when it has ended already."""
    _prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(_SIGNALLED + number)


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(_SIGNALLED + number)


def _watch(child: int) -> int:
    """Wait for `child`, or for a signal, then kill all that is left, and return the exit status."""
    status = _SIGNALLED + signal.SIGTERM
    try:
        while True:
            ended, status = os.wait()
            if ended == child:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else _SIGNALLED - code
    finally:
        _end_all()


def _end_all() -> None:
    """Kill our children; theirs become ours, and are killed in their turn, until nobody is left."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        for child in _children():
            with contextlib.suppress(OSError):
                os.kill(child, signal.SIGKILL)
        try:
            os.wait()
        except ChildProcessError:
            return


def _children() -> list[int]:
    """Return our children (proc_pid_stat(5): the fourth field is the parent)."""
    own, found = str(os.getpid()), []
    for entry in os.listdir("/proc"):  # noqa: PTH208 - pathlib takes longer to import than all this
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", "rb") as file:  # noqa: PTH123
                # The name in parentheses may hold anything, so that the last one ends it.
                if file.read().rpartition(b")")[2].split()[1].decode() == own:
                    found.append(int(entry))
    return found


def _fork() -> int:
    """Fork; in the child, be an adopter of orphans that ends with its parent."""
    parent = os.getpid()
    if (child := os.fork()) == 0:
        _die_with(parent, signal.SIGTERM)
        _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return child


def _exec(command: list[str]) -> NoReturn:
    parent = os.getpid()
    if (child := os.fork()) != 0:
        sys.exit(_watch(child))
    _die_with(parent, signal.SIGKILL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and a program would inherit that
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606
    except OSError as error:
        sys.stderr.write(f"{command[0]} cannot be run: {error.strerror}\n")
        sys.stderr.flush()
        os._exit(_CANNOT_RUN)


def main(arguments: list[str]) -> NoReturn:
    """Run what the command line says."""
    split = arguments.index("--")
    options = dict(zip(arguments[:split:2], arguments[1:split:2], strict=True))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _stop)
    # Whoever started us may block what tells that they have ended (sigprocmask(2): it is inherited).
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if (path := options.get("--path")) is not None:
        os.environ["PATH"] = f"{path}:{os.environ.get('PATH', '')}".rstrip(":")
    status = int(options.get("--json-status-fd", -1))
    if status >= 0:
        os.set_inheritable(status, False)
        os.close(int(options["--sync-fd"]))  # the other end of it
    if (inner := _fork()) == 0:
        _exec(arguments[split + 1 :])
    if status >= 0:
        try:
            os.write(status, b'{"child-pid": %d}\n' % inner)
        except BrokenPipeError:  # who asked had ended before we could ask to be told
            os.kill(os.getpid(), signal.SIGTERM)
    sys.exit(_watch(inner))


if __name__ == "__main__":
    main(sys.argv[1:])
