"""`vmtests faults`."""

import argparse
import sys
from pathlib import Path

from rich.text import Text

from vmtests import progress
from vmtests.cli.common import add_accel, add_json, add_results, print_json
from vmtests.errors import InputError
from vmtests.faults import catalogue
from vmtests.faults.apply import keep
from vmtests.faults.catalogue import Fault
from vmtests.faults.fitting import misfit, seen
from vmtests.faults.run import Outcome, Runner
from vmtests.host import outputs
from vmtests.host.results import later
from vmtests.qemu.lab import Lab
from vmtests.text import printable


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="faults to run")
    parser.add_argument(
        "--image",
        default="reference",
        metavar="IMAGE",
        help="the image that is broken: those faults that fit its layout (default: %(default)s)",
    )
    parser.add_argument("--all", action="store_true", help="run every fault that fits the image")
    parser.add_argument("--list", action="store_true", help="name the faults and what is broken; run nothing")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write the image with the one fault that is named there; boot nothing"
    )
    add_json(parser, "print one JSON object a line")
    parser.add_argument("-j", "--jobs", type=int, default=1, metavar="N", help="machines at a time (default: 1)")
    add_accel(parser)
    add_results(parser)
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Break an image in known ways and check each verdict."""
    faults = catalogue.named(arguments.names)
    if arguments.list and arguments.image == "reference":
        for fault in faults:
            print_json(catalogue.to_json(fault)) if arguments.json else print(f"{fault.name}: {fault.broken}")
        return 0
    if not arguments.list and bool(arguments.names) is arguments.all:
        raise InputError("name the faults to run, or say --all", hint="vmtests faults --list names them")
    if arguments.jobs < 1:
        raise InputError("-j takes a number from 1 on")
    if arguments.out is not None and (arguments.list or len(arguments.names) != 1):
        raise InputError("--out is for one fault that is named", hint="vmtests faults init-missing --out broken.raw")
    if arguments.out is not None:
        outputs.check_disk(arguments.out, "--out")
    right = True
    with Lab(later(arguments.results), accelerator=arguments.accel) as lab:
        image = lab.image(arguments.image)
        misfits = {fault.name: misfit(fault, image.inspection) for fault in faults}
        if arguments.list:
            for fault in faults:
                _list(fault, misfits[fault.name], as_json=arguments.json)
            return 0
        fitting = [fault for fault in faults if not misfits[fault.name]]
        if arguments.names and (others := [name for name, why in misfits.items() if why]):
            raise InputError(
                f"{others[0]} does not fit this image: {misfits[others[0]]}",
                hint=f"vmtests faults --list --image {arguments.image} says which do",
            )
        if arguments.out is not None:
            with progress.step(f"breaking a copy of {printable(arguments.image)}"):
                keep(fitting[0], image.path, arguments.out, seen(image.inspection), lab.host.toolbox)
            print(f"{arguments.out}: {fitting[0].broken}")
            return 0
        found = {}
        for outcome in Runner(image, lab).run_all(fitting, jobs=arguments.jobs):
            if outcome.misfit:
                # What a table does not tell: that an initrd has not what is to be taken from it, for example.
                found[outcome.fault.name] = outcome.misfit
                _list(outcome.fault, outcome.misfit, as_json=arguments.json)
            else:
                right &= outcome.right
                print_json(outcome.to_json()) if arguments.json else _show(outcome)
            sys.stdout.flush()
    if arguments.names and found:
        name, why = next(iter(found.items()))
        raise InputError(f"{name} does not fit this image: {why}", hint="the others were run")
    return 0 if right else 1


def _list(fault: Fault, misfit: str, *, as_json: bool) -> None:
    if as_json:
        print_json({**catalogue.to_json(fault), "fits": not misfit, "misfit": misfit})
    else:
        print(f"{fault.name}: {f'does not fit: {misfit}' if misfit else fault.broken}")


def _show(outcome: Outcome) -> None:
    console = progress.console(soft_wrap=True)
    seconds = "" if outcome.verdict is None else f" in {outcome.verdict.evidence_to_verdict_s:.1f} s"
    mark = Text("right", "green") if outcome.right else Text("WRONG", "red")
    console.print(Text.assemble(mark, f" {outcome.fault.name}{seconds}: {outcome.sentence}"))
    if not outcome.right:
        told = outcome.to_json()
        console.print(Text(f"  expected {told['expected']}, got {told['got']}"))
