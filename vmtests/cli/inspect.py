"""`vmtests inspect`."""

import argparse
from pathlib import Path

from rich.console import Console

from vmtests import contract as contracts
from vmtests.cli.common import add_json, print_json
from vmtests.host import tools
from vmtests.image.inspect import inspect


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("image", type=Path, metavar="IMAGE", help="a .raw, .qcow2 or .tar.gz")
    add_json(parser)
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Check an image without booting it."""
    found = inspect(arguments.image, contracts.default(), tools.find())
    if arguments.json:
        print_json(found.to_json())
    else:
        found.render(Console(highlight=False))
    return 0 if found.ok else 1
