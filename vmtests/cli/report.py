"""`vmtests report`."""

import argparse
from pathlib import Path

from vmtests.report import page


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "examples:\n"
        "  vmtests report results/latest\n"
        "  vmtests report results/latest --against results/20261127T020000Z --out tonight.html"
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="a run's directory of results, or one machine's")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the page goes (default: DIR/report.html)")
    parser.add_argument("--against", type=Path, metavar="DIR", help="an earlier run: what is new, missing, slower")
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the page, and say where it is."""
    print(page.write(arguments.directory, arguments.out, arguments.against))
    return 0
