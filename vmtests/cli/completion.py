"""`vmtests completion`."""

import argparse

import shtab

from vmtests.cli import command


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish", "tcsh"), help="for which shell")
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what makes a shell complete commands, options and files."""
    print(shtab.complete(command.parser(list(command.COMMANDS)), shell=arguments.shell))
    return 0
