"""`vmtests boot`."""

import argparse
import contextlib
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vmtests import contract as contracts
from vmtests import progress
from vmtests.boot.follow import Watch
from vmtests.boot.stages import Stage
from vmtests.boot.units import Units
from vmtests.boot.verdict import Verdict
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
from vmtests.cli.screen import Lines, show
from vmtests.cockpit.run import has_terminal
from vmtests.contract import Contract, Promise
from vmtests.errors import HostError, InputError, VmtestsError
from vmtests.guest import promises
from vmtests.guest.seed import Seed
from vmtests.host.results import later
from vmtests.image.image import Image
from vmtests.machine.hardware import Hardware
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
    parser.add_argument(
        "--record",
        action="store_true",
        help="keep the machine where each stage begins: --rewind goes back there, before whatever went wrong",
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
    parser.add_argument(
        "--plain", action="store_true", help="print lines, as where no terminal is, and end with the verdict"
    )
    parser.add_argument("--ssh", action="store_true", help="open a shell when the guest is ready")
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Boot an image and say whether it got ready, or why not."""
    machine = hardware(arguments)
    out = progress.stderr()
    if arguments.anew and arguments.rewind is None:
        raise InputError("--anew is for --rewind: without it every boot is a new one")
    if arguments.record and arguments.rewind is not None:
        raise InputError("--record is of a whole boot, and --rewind goes back into one", hint="one after the other")
    cockpit = not (arguments.plain or arguments.quiet or arguments.json) and has_terminal()
    if arguments.ssh and not cockpit:
        raise InputError("--ssh needs a terminal, for a person", hint="without --plain, --quiet and --json")
    contract = None if arguments.contract is None else contracts.load(arguments.contract)
    with Lab(
        later(arguments.results),
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
        watch = None if cockpit else Heartbeat() if arguments.quiet else Lines(out)
        with _flown(arguments, lab, image, machine, watch) as (vm, verdict):
            answers = verdict.ready and vm.qemu.alive  # a person may have cut its power
            if not verdict.ready:
                vm.diagnose(verdict)
            units = vm.timeline.units
            broken = _broken(vm, image.contract) if answers else ()
            if answers and Promise.STORE in image.contract.promises:  # others may not let us in
                with progress.step("the guest's journal and mounts, for the report"):
                    vm.keep()
        verdict = _told(vm, verdict)
        if arguments.debug or image.debug or (image.modules and image.modules.debug):
            _show_units(units, out)
        from vmtests.report import page

        try:
            page.write(lab.results)
        except VmtestsError as error:
            out.print(Text(f"vmtests: no report: {error.message}"))
    if arguments.json:
        print_json({**verdict.to_json(), "broken_promises": list(broken)})
    else:
        show(verdict, lab.results)
    for sentence in broken:
        out.print(Text(f"broken promise: {sentence}", "red"))
    if arguments.strict and verdict.ready and verdict.failed_units:
        out.print(Text(f"--strict: {', '.join(verdict.failed_units)} failed", "red"))
        return 1
    return 1 if broken else verdict.exit_status


@contextlib.contextmanager
def _flown(
    arguments: argparse.Namespace, lab: Lab, image: Image, machine: Hardware, watch: Watch | None
) -> Iterator[tuple[QemuVm, Verdict]]:
    """Give the machine that a person has left, which was in the cockpit until then, or whose boot `watch` has told.

    Either way another process can attach to it meanwhile. Raises VmtestsError.
    """
    from vmtests.cockpit import attach, runtime
    from vmtests.cockpit.qemu import QemuHands
    from vmtests.cockpit.run import fly
    from vmtests.cockpit.session import Session
    from vmtests.cockpit.usual import usual

    with runtime.directory() as directory:
        hands = QemuHands(lab, image, machine, directory, debug=arguments.debug)
        usually = usual(lab.results, image.inspection.path)
        with Session(
            hands,
            lab.results,
            usual=usually,
            point=arguments.rewind,
            anew=arguments.anew,
            record=arguments.record,
            watch=watch,
        ) as session:
            with attach.Server(session, directory):
                if watch is None:
                    fly(session, ssh=arguments.ssh)
                else:
                    session.wait()
            session.stop()
            if session.error is not None:
                raise session.error
            if session.verdict is None or not isinstance(session.vm, QemuVm):
                raise HostError("you left before there was a verdict", hint=f"the console is in {lab.results}")
            if watch is not None:
                watch(session.vm.follower)
            yield session.vm, session.verdict


def _told(vm: QemuVm, verdict: Verdict) -> Verdict:
    """Return the verdict on a machine that has ended, whose disk may have told more."""
    return verdict if verdict.ready else vm.follower.failure_after_ready or vm.verdict or verdict


def _broken(vm: QemuVm, contract: Contract) -> tuple[str, ...]:
    """Return what is broken of a contract that somebody has chosen, as far as only the running system tells."""
    if not contract.origin or contract == contracts.default():
        return ()
    return promises.broken(contract, vm)


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
