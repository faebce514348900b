"""`vmtests contract`."""

import argparse
import tomllib
from pathlib import Path

from rich.text import Text

from vmtests import contract as contracts
from vmtests import progress
from vmtests.cli.common import add_accel, add_hardware, add_image, add_login, add_results, add_seed, hardware, login
from vmtests.errors import GuestError
from vmtests.guest.seed import Seed
from vmtests.host import outputs
from vmtests.host.results import later
from vmtests.qemu.lab import Lab
from vmtests.vm import Heartbeat
from vmtests.vm.draft import draft


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_image(parser)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write it there (default: to the terminal)")
    parser.add_argument("--no-boot", action="store_true", help="look at the disk only: no mounts, no units")
    add_hardware(parser)
    add_login(parser)
    add_seed(parser)
    add_accel(parser)
    add_results(parser)
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the first contract of an image that has none."""
    if arguments.output is not None:
        outputs.check(arguments.output, "--output")
    machine = hardware(arguments)
    out = progress.stderr()
    with Lab(
        later(arguments.results),
        accelerator=arguments.accel,
        contract=contracts.ANY,
        login=login(arguments),
        seed=Seed(arguments.seed),
    ) as lab:
        image = lab.image(arguments.image, direct=machine.kernel is not None)
        for breach in image.inspection.breaches:
            out.print(Text(f"inspection: {breach}"))
        text = draft(image.inspection)
        if not arguments.no_boot:
            with lab.machine(image, machine, watch=Heartbeat()) as vm:
                vm.wait_ready()
                first = contracts.from_data(tomllib.loads(text), arguments.image, text)
                try:
                    text = draft(image.inspection, first, vm)
                except GuestError as error:
                    out.print(Text(f"without mounts and units, since nobody can be asked: {error.message}"))
    contracts.from_data(tomllib.loads(text), arguments.image, text)
    if arguments.output is None:
        print(text, end="")
    else:
        outputs.write(arguments.output, text, "--output")
    return 0
