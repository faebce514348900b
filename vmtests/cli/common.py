"""Arguments and output that several commands have."""

import argparse
import json
from pathlib import Path
from typing import Any

from vmtests.cli.words import of_the_command
from vmtests.machine.argv import Hardware
from vmtests.sizes import parse_size


def add_json(parser: argparse.ArgumentParser, what: str = "print one JSON object") -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help=what)


def add_accel(parser: argparse.ArgumentParser, what: str = "the accelerator") -> None:
    """Add `--accel`."""
    parser.add_argument("--accel", choices=("auto", "kvm", "tcg"), default="auto", help=what)


def add_image(parser: argparse.ArgumentParser) -> None:
    """Add the image to boot."""
    parser.add_argument("image", metavar="IMAGE", help="`reference`, `nix:FLAKE#ATTR`, or the path of a disk image")


def add_modules(parser: argparse.ArgumentParser) -> None:
    """Add `--module`."""
    parser.add_argument(
        "--module",
        action="append",
        default=[],
        metavar="debug|bloat[:SIZE]",
        help="a module of the reference image; may be given several times",
    )


def add_hardware(parser: argparse.ArgumentParser) -> None:
    """Add the machine's hardware, by the names of `Hardware`."""
    group = parser.add_argument_group("the machine")
    group.add_argument("--memory", default="1G", metavar="SIZE", help="its memory (default: %(default)s)")
    group.add_argument("--cpus", type=int, default=2, metavar="N", help="its processors (default: %(default)s)")
    group.add_argument("--disk-size", metavar="SIZE", help="its disk; larger than the image, root grows")


def hardware(arguments: argparse.Namespace) -> Hardware:
    """Return what `add_hardware` has read; raises InputError."""
    return Hardware(
        memory_mib=parse_size(arguments.memory) >> 20,
        cpus=arguments.cpus,
        disk_size=None if arguments.disk_size is None else parse_size(arguments.disk_size),
    )


def add_contract(parser: argparse.ArgumentParser) -> None:
    """Add `--contract`."""
    parser.add_argument(
        "--contract",
        type=Path,
        metavar="FILE",
        help="what the image promises (docs/contract.md; default: ours for our layout, else what any image does)",
    )


def add_results(parser: argparse.ArgumentParser) -> None:
    """Add `--results`."""
    parser.add_argument("--results", type=Path, metavar="DIR", help="the directory of the results, used as it is")


def print_json(value: dict[str, Any]) -> None:
    """Print a value as one line of JSON; a hint in it is in the command's words."""
    if isinstance(hint := value.get("hint"), str):
        value = {**value, "hint": of_the_command(hint)}
    print(json.dumps(value))
