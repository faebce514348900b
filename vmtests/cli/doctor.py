"""`vmtests doctor`."""

import argparse

from vmtests import progress
from vmtests.cli.common import add_accel, add_json, print_json
from vmtests.host import accel, doctor


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_json(parser)
    add_accel(parser, "the accelerator to probe")
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Say what this host has, and whether it can boot an image."""
    report = doctor.report(request=accel.Request(arguments.accel))
    if arguments.json:
        print_json(report.as_dict())
    else:
        report.print(progress.console())
    return 0 if report.ok else 2
