"""`vmtests emulator`."""

import argparse
import contextlib
import time
from pathlib import Path

from rich.text import Text

from vmtests import progress
from vmtests.cli.common import add_accel
from vmtests.emulator import Emulator
from vmtests.emulator.fake import FakeHypervisor
from vmtests.emulator.hold import Holder
from vmtests.gce.record import read
from vmtests.sizes import parse_size
from vmtests.text import printable

_SENTENCE = 1000  # characters


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--port", type=int, default=0, metavar="N", help="the port (default: one that is free)")
    add_accel(parser)
    parser.add_argument(
        "--memory", default="2G", metavar="SIZE", help="a machine's memory at most (default: %(default)s)"
    )
    parser.add_argument("--no-boot", action="store_true", help="only say that machines boot: to try out an API client")
    parser.add_argument(
        "--hold",
        type=Path,
        metavar="FILE",
        help="only say how its answers differ from what `vmtests gce record` wrote",
    )
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until ended, which is how a server ends."""
    if arguments.hold is not None:
        return _hold(arguments.hold)
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


def _hold(file: Path) -> int:
    exchanges = read(file)
    with Emulator(hypervisor=FakeHypervisor()) as emulator:
        holder = Holder(emulator)
        differences = holder.hold(exchanges)
    for difference in differences:
        print(printable(difference, _SENTENCE))
    told = f"{holder.asked} requests, {len(differences)} differences"
    progress.stderr().print(Text(f"{told}, {holder.left_out} left out: the cloud was busy or did not answer"))
    return 2 if differences else 0
