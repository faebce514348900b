"""`vmtests emulator`."""

import argparse
import contextlib
import time

from rich.text import Text

from vmtests import progress
from vmtests.cli.common import add_accel
from vmtests.emulator import Emulator
from vmtests.emulator.fake import FakeHypervisor
from vmtests.sizes import parse_size


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--port", type=int, default=0, metavar="N", help="the port (default: one that is free)")
    add_accel(parser)
    parser.add_argument(
        "--memory", default="2G", metavar="SIZE", help="a machine's memory at most (default: %(default)s)"
    )
    parser.add_argument("--no-boot", action="store_true", help="only say that machines boot: to try out an API client")
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until ended, which is how a server ends."""
    with (
        contextlib.suppress(KeyboardInterrupt),
        Emulator(
            port=arguments.port,
            hypervisor=FakeHypervisor() if arguments.no_boot else None,
            accelerator=arguments.accel,
            memory_mib=parse_size(arguments.memory) >> 20,
        ) as emulator,
    ):
        print(emulator.endpoint, flush=True)
        for line in emulator.environment:
            progress.stderr().print(Text(line))
        # Not signal.pause(): a Ctrl-C that comes just before it sleeps would be heard with the next one only.
        while True:
            time.sleep(0.5)
    return 0
