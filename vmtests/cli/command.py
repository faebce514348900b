"""The command line: which command it is, and what is said of how it ended."""

import argparse
import contextlib
import importlib
import io
import json
import os
import signal
import sys
import textwrap
from collections.abc import Callable, Sequence

from vmtests.cli import streams
from vmtests.cli.examples import EXAMPLES
from vmtests.cli.words import of_the_command
from vmtests.errors import HOST_ERRORS, HostError, VmtestsError, of_host
from vmtests.host import threads

COMMANDS = {
    "doctor": "say what this host has, and whether it can boot an image",
    "build": "build an image: the reference image, or what an image.json describes",
    "inspect": "check an image without booting it",
    "sbom": "say what an image is made of, as a bill of materials (CycloneDX)",
    "boot": "boot an image and say whether it got ready, or why not",
    "attach": "have a boot that runs in another terminal in this one",
    "contract": "write a first contract: what an image has, and what its boot came to",
    "explain": "say what became of a boot by the log of its console, whatever was booted",
    "diff": "say what differs between two images, or between their boots",
    "bisect": "find the first bad one of many images in a row",
    "report": "write a run, one boot, or many runs, as one HTML page that needs no network",
    "faults": "break an image in known ways and check each verdict",
    "torture": "cut the power at many moments; each next boot has to get ready, with what was synced",
    "emulator": "serve a Compute Engine and Cloud Storage on this host that boot real machines",
    "gce": "the same on Compute Engine, or on an emulator of it",
    "completion": "print what makes a shell complete all this",
}
"""What each command does. `vmtests.cli.NAME` is imported when it is called: it adds its arguments, and runs."""

_SENTENCE = 2000  # characters; a name in it may be anybody's
_STREAMS = 3
_INTERRUPTED = 2  # as pytest has it: nothing is said of the image


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    try:
        _begin()
        return _main(sys.argv[1:] if argv is None else argv)
    except HOST_ERRORS as error:
        if (host := of_host(error)) is None:
            raise
        _complain(host)
        return host.exit_code
    except KeyboardInterrupt:  # before the command, or behind it
        return _INTERRUPTED
    finally:
        if argv is None:
            # All is done, and the status known: a second Ctrl-C while Python ends would have another.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)


def _main(argv: Sequence[str]) -> int:
    status = 0
    with streams.patient():
        try:
            with streams.watched():
                status = _command(argv)
        except VmtestsError as error:
            if status != error.exit_code:  # else it was told already
                _complain(error)
        except streams.ReaderGoneError:
            pass  # nothing more can be said to them
        else:
            return status
    return VmtestsError.exit_code


def _command(argv: Sequence[str]) -> int:
    arguments = argparse.Namespace()
    try:
        # What ends a process politely ends its machines and removes its scratch files too. sh(1p) ignores the one for
        # what runs in the background, and nohup(1) the other.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        for number in (signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.default_int_handler)
        arguments = parser(argv).parse_args(argv)
        command: Callable[[argparse.Namespace], int] = arguments.command
        return command(arguments)
    except VmtestsError as error:
        return _fail(error, arguments)
    except KeyboardInterrupt:
        with contextlib.suppress(KeyboardInterrupt):  # who presses it twice
            _complain(HostError("interrupted", hint="what was finished is kept: the same command goes on from there"))
        return _INTERRUPTED
    except HOST_ERRORS as error:
        if (host := of_host(error)) is None:
            raise
        return _fail(host, arguments)


def _begin() -> None:
    """Have what a process may expect, whatever started it."""
    # Where one of the three was closed, the next file that is opened would be taken for it.
    while (number := os.open(os.devnull, os.O_RDWR)) < _STREAMS:
        os.set_inheritable(number, True)
    os.close(number)
    sys.stdin, sys.stdout, sys.stderr = (
        stream or os.fdopen(number, mode, encoding="utf-8", closefd=False)
        for number, (stream, mode) in enumerate(zip((sys.stdin, sys.stdout, sys.stderr), "rww", strict=True))
    )
    for stream in (sys.stdout, sys.stderr):
        # Names may be no text, and a terminal no UTF-8.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # Some that start others ignore it, and then nobody's end can be waited for.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # Others block what ends a process, and their children inherit that (sigprocmask(2)).
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    threads.heed()


def _fail(error: VmtestsError, arguments: argparse.Namespace) -> int:
    """Say what is wrong, and return the exit status."""
    said, hint = _complain(error)
    if getattr(arguments, "json", False):
        from vmtests.text import inert_quoted

        print(inert_quoted(json.dumps({"error": said, "hint": hint, "exit_status": error.exit_code})))
    return error.exit_code


def parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser, with the arguments of those commands only that `argv` may call."""
    whole = argparse.ArgumentParser(
        prog="vmtests",
        description="Prove, by booting it, that a disk image really boots.",
        epilog="Exit status: 0 well, 1 the image is at fault, 2 the input or the host is, or nobody can tell. "
        "`vmtests COMMAND --help` has examples.",
    )
    commands = whole.add_subparsers(required=True, metavar="COMMAND")
    for name, does in COMMANDS.items():
        command = commands.add_parser(name, help=does, description=f"{does[0].upper()}{does[1:]}.")
        if name in argv:
            importlib.import_module(f"{__package__}.{name}").add(command)
            command.formatter_class = argparse.RawDescriptionHelpFormatter
            command.epilog = "examples:\n" + textwrap.indent(EXAMPLES[name], "  ")
    return whole


def _complain(error: VmtestsError) -> tuple[str, str | None]:
    """Say what is wrong, and return sentence and hint as they are shown: names in them may have any character."""
    from rich.text import Text

    from vmtests import progress
    from vmtests.text import printable

    console = progress.stderr()
    said = printable(error.message, _SENTENCE)
    hint = printable(of_the_command(error.hint), _SENTENCE) if error.hint else None
    console.print(Text(f"vmtests: {said}"))
    if hint:
        console.print(Text(f"hint: {hint}"))
    return said, hint
