"""`vmtests inspect`."""

import argparse
from pathlib import Path

from vmtests import contract as contracts
from vmtests import progress
from vmtests.cli.common import add_contract, add_json, print_json
from vmtests.host import tools
from vmtests.host.formats import Format
from vmtests.image.inspect import inspect


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "image",
        type=Path,
        metavar="IMAGE",
        help="a disk: raw, qcow2, vmdk, vhd(x), vdi, older; in a gz, xz, zst, bz2, tar or zip; or a directory with it",
    )
    formats = [str(form) for form in Format if form is not Format.ARCHIVE]
    parser.add_argument("--format", choices=formats, help="the disk is of this format, whatever it looks like")
    parser.add_argument("--all", action="store_true", help="print every check, not only what is worth a sentence")
    add_contract(parser)
    add_json(parser)
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Check an image without booting it."""
    contract = None if arguments.contract is None else contracts.load(arguments.contract)
    form = None if arguments.format is None else Format(arguments.format)
    found = inspect(arguments.image, contract, tools.find(), form=form)
    if arguments.json:
        print_json(found.to_json())
    else:
        found.render(progress.console(), everything=arguments.all)
    return 0 if found.ok else 1
