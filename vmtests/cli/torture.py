"""`vmtests torture`."""

import argparse
import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vmtests import progress
from vmtests.cli.common import add_accel, add_image, add_json, add_modules, add_results, print_json
from vmtests.errors import InputError
from vmtests.faults.torture import Outcome, Scene, Torture, moments
from vmtests.host.results import later
from vmtests.qemu.lab import Lab

_MOST = 100_000  # moments: years of a host's time


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_image(parser)
    add_modules(parser)
    parser.add_argument("--moments", type=int, default=30, metavar="N", help="how often (default: %(default)s)")
    parser.add_argument(
        "--scene",
        action="append",
        choices=[str(scene) for scene in Scene],
        help="only then; may be given several times",
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="which moments (default: %(default)s)")
    parser.add_argument("-j", "--jobs", type=int, default=1, metavar="N", help="machines at a time (default: 1)")
    add_json(parser, "print one JSON object a line")
    add_accel(parser)
    add_results(parser)
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Cut the power at many moments and look at each next boot."""
    if arguments.jobs < 1 or not 0 < arguments.moments <= _MOST:
        raise InputError("-j and --moments are numbers from 1 on", hint=f"--moments is {_MOST} at most")
    console, outcomes = progress.console(), []
    with Lab(later(arguments.results), accelerator=arguments.accel) as lab:
        image = lab.image(arguments.image, arguments.module)
        scenes = [scene for scene in Scene if scene in (arguments.scene or Scene)]
        wanted = moments(arguments.moments, arguments.seed, scenes)
        for outcome in Torture(image, lab).run(wanted, jobs=arguments.jobs):
            outcomes.append(outcome)
            print_json(outcome.to_json()) if arguments.json else _show(console, outcome)
            sys.stdout.flush()
    if not arguments.json:
        console.print(_table(outcomes))
    if any(not outcome.right and not outcome.unknown for outcome in outcomes):
        return 1
    return 0 if all(outcome.right for outcome in outcomes) else 2


def _show(console: Console, outcome: Outcome) -> None:
    word = Text("unknown", "yellow") if outcome.unknown else Text("WRONG", "red")
    mark = Text("right", "green") if outcome.right else word
    moment = outcome.moment
    told = f" {moment.number} {moment.scene}, cut after {outcome.cut:.1f} s"
    if outcome.stage:
        told += f" in {outcome.stage}"
    if outcome.synced:
        told += f", {outcome.synced} rounds synced"
    console.print(Text.assemble(mark, f"{told}; next boot {outcome.seconds:.0f} s {outcome.failure}".rstrip()))


def _table(outcomes: list[Outcome]) -> Table:
    table = Table("power cut in", "stage", "moments", "ready with what was synced", "rounds synced", box=None)
    for scene in Scene:
        ours = [outcome for outcome in outcomes if outcome.moment.scene is scene]
        for stage in sorted({outcome.stage for outcome in ours}):
            here = [outcome for outcome in ours if outcome.stage == stage]
            right, synced = sum(outcome.right for outcome in here), sum(outcome.synced for outcome in here)
            table.add_row(str(scene), stage or "ready", str(len(here)), str(right), str(synced) if synced else "")
    return table
