"""`vmtests boot`."""

import argparse
from contextlib import AbstractContextManager

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vmtests import contract as contracts
from vmtests import progress
from vmtests.boot.stages import Stage
from vmtests.boot.units import Units
from vmtests.cli.common import add_accel, add_contract, add_image, add_json, add_modules, add_results, print_json
from vmtests.cli.screen import Cockpit, show
from vmtests.errors import InputError
from vmtests.host.results import new_directory
from vmtests.machine.argv import Hardware
from vmtests.qemu.lab import REWINDS, Lab
from vmtests.qemu.vm import QemuVm
from vmtests.sizes import parse_seconds, parse_size
from vmtests.vm import Heartbeat


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_image(parser)
    add_json(parser)
    add_modules(parser)
    parser.add_argument(
        "--debug",
        action="store_true",
        help="follow stage 1 unit by unit, with a root shell on the second serial port; the image is not changed",
    )
    parser.add_argument(
        "--rewind",
        choices=[str(stage) for stage in REWINDS],
        metavar="STAGE",
        help="begin where this stage begins, which the first such call keeps: %(choices)s",
    )
    add_accel(parser)
    parser.add_argument("--anew", action="store_true", help="with --rewind: boot again, whatever was kept")
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        help="the limit of the whole boot (default: none, only each stage's)",
    )
    parser.add_argument("--memory", default="1G", metavar="SIZE", help="the machine's memory (default: %(default)s)")
    parser.add_argument("--cpus", type=int, default=2, metavar="N", help="its processors (default: %(default)s)")
    parser.add_argument("--disk-size", metavar="SIZE", help="its disk; larger than the image, root grows")
    add_contract(parser)
    add_results(parser)
    parser.add_argument("--quiet", action="store_true", help="do not show the console")
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Boot an image and say whether it got ready, or why not."""
    memory = parse_size(arguments.memory)
    hardware = Hardware(
        memory_mib=memory >> 20,
        cpus=arguments.cpus,
        disk_size=None if arguments.disk_size is None else parse_size(arguments.disk_size),
    )
    out = progress.stderr()
    if arguments.anew and arguments.rewind is None:
        raise InputError("--anew is for --rewind: without it every boot is a new one")
    contract = None if arguments.contract is None else contracts.load(arguments.contract)
    with Lab(
        lambda: new_directory(arguments.results),
        accelerator=arguments.accel,
        cpus=arguments.cpus,
        timeout=None if arguments.timeout is None else parse_seconds(arguments.timeout),
        contract=contract,
    ) as lab:
        image = lab.image(arguments.image, arguments.module)
        for breach in image.inspection.breaches:
            out.print(Text(f"inspection: {breach}"))
        out.print(Text(f"booting {image.name} with {lab.host.accelerator.name} ({lab.host.accelerator.reason})"))
        watch = Heartbeat() if arguments.quiet else Cockpit(out)
        if arguments.rewind is None:
            booting: AbstractContextManager[QemuVm] = lab.machine(image, hardware, watch=watch, debug=arguments.debug)
        else:
            booting = lab.rewind(
                image, Stage(arguments.rewind), hardware, watch=watch, debug=arguments.debug, anew=arguments.anew
            )
        with booting as vm:
            verdict = vm.wait_verdict()
            watch(vm.follower)
            if not verdict.ready:
                vm.diagnose(verdict)
            units = vm.timeline.units
        if arguments.debug or image.debug or (image.modules and image.modules.debug):
            _show_units(units, out)
    if arguments.json:
        print_json(verdict.to_json())
    else:
        show(verdict, lab.results)
    return verdict.exit_status


def _show_units(units: Units, console: Console) -> None:
    """Print a table of stage 1, unit by unit, and of what failed later."""
    if not units.told:
        console.print(Text("the guest does not tell its jobs (no systemd, or a boot loader that reads no SMBIOS)"))
    table = Table(box=None, header_style="bold")
    for column in ("at", "seconds", "waited"):
        table.add_column(column, justify="right")
    for column in ("unit", "result", "waited for"):
        table.add_column(column)
    for unit in units.asked():
        if unit.stage.before(Stage.USERSPACE) or unit.failed:
            times = (f"{t:.2f}" if t is not None else "" for t in (unit.first, unit.seconds, unit.waited))
            style = "red" if unit.failed else "yellow" if not unit.result else ""
            table.add_row(*times, Text(unit.name, style), Text(unit.result or "not ended"), Text(unit.waits_for))
    console.print(table)
