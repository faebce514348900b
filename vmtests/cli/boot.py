"""`vmtests boot`."""

import argparse
import sys
from contextlib import AbstractContextManager

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vmtests import contract as contracts
from vmtests import progress
from vmtests.boot.stages import Stage
from vmtests.boot.units import Units
from vmtests.cli.common import (
    add_accel,
    add_contract,
    add_hardware,
    add_image,
    add_json,
    add_login,
    add_modules,
    add_results,
    add_seed,
    hardware,
    login,
    print_json,
)
from vmtests.cli.screen import Cockpit, show
from vmtests.contract import Contract, Promise
from vmtests.errors import InputError, VmtestsError
from vmtests.guest import held
from vmtests.guest.seed import Seed
from vmtests.host.results import new_directory
from vmtests.qemu.lab import REWINDS, Lab
from vmtests.qemu.vm import QemuVm
from vmtests.sizes import parse_seconds
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
    add_hardware(parser)
    add_login(parser)
    add_seed(parser)
    parser.add_argument("--strict", action="store_true", help="a system with failed units is not ready: exit status 1")
    add_contract(parser)
    add_results(parser)
    parser.add_argument("--quiet", action="store_true", help="do not show the console")
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Boot an image and say whether it got ready, or why not."""
    machine = hardware(arguments)
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
        login=login(arguments),
        seed=Seed(arguments.seed),
    ) as lab:
        image = lab.image(arguments.image, arguments.module, direct=machine.kernel is not None)
        for breach in image.inspection.breaches:
            out.print(Text(f"inspection: {breach}"))
        out.print(Text(f"booting {image.name} with {lab.host.accelerator.name} ({lab.host.accelerator.reason})"))
        watch = Heartbeat() if arguments.quiet else Cockpit(out)
        if arguments.rewind is None:
            booting: AbstractContextManager[QemuVm] = lab.machine(image, machine, watch=watch, debug=arguments.debug)
        else:
            booting = lab.rewind(
                image, Stage(arguments.rewind), machine, watch=watch, debug=arguments.debug, anew=arguments.anew
            )
        with booting as vm:
            verdict = vm.wait_verdict()
            watch(vm.follower)
            if not verdict.ready:
                vm.diagnose(verdict)
            units = vm.timeline.units
            broken = _broken(vm, image.contract) if verdict.ready else ()
            if verdict.ready and Promise.STORE in image.contract.promises:  # others may not let us in
                with progress.step("the guest's journal and mounts, for the report"):
                    vm.keep()
        if arguments.debug or image.debug or (image.modules and image.modules.debug):
            _show_units(units, out)
        from vmtests.report import page

        try:
            page.write(lab.results)
        except VmtestsError as error:
            print(f"vmtests: no report: {error.message}", file=sys.stderr)
    if arguments.json:
        print_json({**verdict.to_json(), "broken_promises": list(broken)})
    else:
        show(verdict, lab.results)
    for sentence in broken:
        out.print(Text(f"broken promise: {sentence}", "red"))
    if arguments.strict and verdict.failed_units:
        out.print(Text(f"--strict: {', '.join(verdict.failed_units)} failed", "red"))
        return 1
    return 1 if broken else verdict.exit_status


def _broken(vm: QemuVm, contract: Contract) -> tuple[str, ...]:
    """Return what is broken of a contract that somebody has chosen, as far as only the running system tells."""
    if not contract.origin or contract == contracts.default():
        return ()
    return held.broken(contract, vm)


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
