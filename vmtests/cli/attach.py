"""`vmtests attach`."""

import argparse

from vmtests.errors import InputError
from vmtests.text import printable


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="the name of its directory of results (default: the only one)"
    )
    parser.add_argument(
        "--list", action="store_true", help="print the boots that can be attached to, and where they are"
    )
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Have a boot of another terminal in the cockpit of this one."""
    from vmtests.cockpit import attach
    from vmtests.cockpit.run import fly, has_terminal

    if arguments.list:
        for boot in attach.running():
            told = "no verdict yet" if boot.state.told is None else boot.state.told.word
            name, title = printable(boot.name), printable(boot.state.title)
            print(f"{name}  {title}  {boot.state.stage} since {boot.state.t:.0f} s, {told}")
        return 0
    if not has_terminal():
        raise InputError("attaching needs a terminal, for a person", hint="--list says which boots there are")
    with attach.Attached(attach.choose(arguments.name)) as attached:
        fly(attached)
    return 0
