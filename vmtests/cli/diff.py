"""`vmtests diff`."""

import argparse
from pathlib import Path

from rich.table import Table
from rich.text import Text

from vmtests import progress
from vmtests.cli.common import add_accel, add_hardware, add_json, add_results, hardware, print_json
from vmtests.errors import InputError
from vmtests.host import outputs, tools
from vmtests.host.results import later
from vmtests.image import contents, diff
from vmtests.image.diff import Difference
from vmtests.image.image import Image
from vmtests.machine.hardware import Hardware
from vmtests.qemu.lab import Lab
from vmtests.report import booted, page
from vmtests.report.booted import Booted, Times
from vmtests.report.record import Boot, read
from vmtests.text import printable
from vmtests.vm import Heartbeat

_SIGNS = {"added": ("+", "green"), "missing": ("-", "red"), "changed": ("~", "yellow")}
_BOOTS = 1000  # of each
_TOLD = 200  # differences that are printed; --json and --html have all


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    which = "an image (a disk's path, `reference`, `reference+debug`, `nix:FLAKE#ATTR`), or a directory of results"
    parser.add_argument("first", metavar="A", help=which)
    parser.add_argument("second", metavar="B", help="the same, to be compared with it")
    parser.add_argument(
        "--boot",
        nargs="?",
        type=int,
        const=1,
        metavar="N",
        help="boot each N times (default: once), in turns; from five on stages can be told from chance",
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write it as one page that needs no network")
    add_accel(parser)
    add_hardware(parser)
    add_results(parser)
    add_json(parser)
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Say what differs between two images, or between what their boots left."""
    names = (arguments.first, arguments.second)
    recorded = [Path(name).is_dir() and _has_boot(Path(name)) for name in names]
    if arguments.boot is not None and (not 0 < arguments.boot <= _BOOTS or any(recorded)):
        raise InputError(f"--boot N is for images, and N from 1 to {_BOOTS}", hint="results are compared as they are")
    if arguments.html is not None:
        outputs.check(arguments.html, "--html")
    differences: list[Difference] | None = None  # where two images are compared
    left_out: list[str] = []  # what could not be read in them, and may differ
    boots: Booted | None = None
    if all(recorded):
        boots = booted.compare(list(read(Path(names[0])).boots), list(read(Path(names[1])).boots))
    elif any(recorded):
        raise InputError("one of them is an image and the other what a boot left", hint="compare two of a kind")
    else:
        machine, toolbox = hardware(arguments), tools.find()
        with Lab(later(arguments.results), accelerator=arguments.accel, cpus=arguments.cpus) as lab:
            found = []
            for name in names:
                path = _image(name, lab).path
                with progress.step(f"reading {printable(name)}"):
                    found.append(contents.read(path, toolbox))
            differences = diff.compare(found[0], found[1])
            left_out = [f"{name}: {why.told}" for name, why in found[0].facts["left out"].items()]
            if arguments.boot is not None:
                # In turns: a host that gets busier does so for both.
                turns = [(n, side) for n in range(arguments.boot) for side in (0, 1)]
                done = [_boot(lab, names[side], f"{'ab'[side]}-{n + 1}", machine) for n, side in turns]
                boots = booted.compare(done[::2], done[1::2])
    if arguments.html is not None:
        text = page.fill("diff.html.j2", names=names, differences=differences, boots=boots, left_out=left_out)
        outputs.write(arguments.html, text, "--html")
    if arguments.json:
        told = {
            "differences": [d.to_json() for d in differences or ()],
            "booted": None if boots is None else boots.to_json(),
            "left_out": left_out,
        }
        print_json({"first": names[0], "second": names[1], **told})
    else:
        _show(differences, boots, left_out)
    return 0


def _has_boot(directory: Path) -> bool:
    return any(directory.glob("console.jsonl")) or any(directory.glob("*/console.jsonl"))


def _image(name: str, lab: Lab) -> Image:
    """Return an image; `reference+debug+bloat:1G` is the reference image with modules."""
    known, *modules = name.split("+")
    return lab.image(known, modules) if known == "reference" else lab.image(name)


def _boot(lab: Lab, name: str, place: str, machine: Hardware) -> Boot:
    with lab.machine(_image(name, lab), machine, name=place, watch=Heartbeat()) as vm:
        verdict = vm.wait_verdict()
        if verdict.ready:
            vm.keep()
        else:
            vm.diagnose(verdict)
    return read(lab.results / place).boots[0]


def _show(differences: list[Difference] | None, boots: Booted | None, left_out: list[str]) -> None:
    console = progress.console()
    section = ""
    told = [*(differences or ()), *(boots.differences if boots else ())]
    for difference in told[:_TOLD]:
        if difference.section != section:
            section = difference.section
            console.print(Text(section, "bold"))
        sign, style = _SIGNS[difference.word]
        facts = " → ".join(fact for fact in (difference.first, difference.second) if fact)
        console.print(Text.assemble(f"  {sign} ", (difference.name, style), f"  {facts}"), soft_wrap=True)
        for line in difference.lines:
            console.print(Text(f"      {line}"), soft_wrap=True)
    if len(told) > _TOLD:
        console.print(f"… and {len(told) - _TOLD} more: --json and --html have all")
    if not told:
        console.print("nothing differs in what was read; left out:" if left_out else "nothing differs")
        for left in left_out[:_TOLD]:
            console.print(Text(f"  {left}"), soft_wrap=True)
    if boots is not None:
        counts = " and ".join(str(count) for count in boots.boots)
        console.print(_table(f"seconds, medians of {counts} boots", [*boots.stages, *boots.units]))


def _table(title: str, rows: list[Times]) -> Table:
    table = Table(box=None, title=title, title_justify="left", header_style="bold")
    table.add_column("")
    for column in ("A", "B"):
        table.add_column(column, justify="right")
    table.add_column("")
    for row in rows:
        times = ("-" if t is None else f"{t:.2f}" for t in (row.first, row.second))
        chance = f" (by chance 1 in {1 / row.chance:.0f})" if row.word and row.chance else ""
        table.add_row(Text(row.name), *times, Text(f"{row.word}{chance}", "red" if "slower" in row.word else ""))
    return table
