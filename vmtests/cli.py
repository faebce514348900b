"""The command `vmtests`: what a test can do, from a shell.

Exit status: 0 when all is well, 1 when the image is at fault, 2 when the input or the host is, and after Ctrl-C.
"""

import argparse
import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vmtests import cli_gce, progress
from vmtests import contract as contracts
from vmtests.boot.stages import Stage
from vmtests.boot.units import Units
from vmtests.emulator import Emulator
from vmtests.emulator.fake import FakeHypervisor
from vmtests.errors import HostError, InputError, VmtestsError
from vmtests.faults import catalogue
from vmtests.faults.run import Outcome, Runner
from vmtests.host import accel, doctor, tools
from vmtests.host.results import new_directory
from vmtests.image import archive, build, cache, spec
from vmtests.image.inspect import inspect
from vmtests.image.reference import Modules
from vmtests.machine.argv import Hardware
from vmtests.qemu.lab import REWINDS, Lab
from vmtests.qemu.vm import QemuVm
from vmtests.report.screen import Cockpit, show
from vmtests.sizes import parse_size
from vmtests.text import printable
from vmtests.vm import Heartbeat

_SENTENCE = 2000  # characters; a name in it may be anybody's
_INTERRUPTED = 2  # as pytest has it: nothing is said of the image


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    arguments = _parser().parse_args(argv)
    # What ends a process politely ends its machines and removes its scratch files too.
    signal.signal(signal.SIGTERM, _terminated)
    try:
        command: Callable[[argparse.Namespace], int] = arguments.command
        return command(arguments)
    except VmtestsError as error:
        _complain(error)
        return error.exit_code
    except KeyboardInterrupt:
        _complain(HostError("interrupted", hint="what was finished is kept: the same command goes on from there"))
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; nothing more can be said to them.
        sys.stderr.close()
        return 1


def _terminated(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _complain(error: VmtestsError) -> None:
    console = progress.stderr()
    console.print(Text(f"vmtests: {printable(error.message, _SENTENCE)}"))
    if error.hint:
        console.print(Text(f"hint: {printable(error.hint, _SENTENCE)}"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vmtests", description="Prove, by booting it, that a disk image really boots."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("doctor", help="say what this host has, and whether it can boot an image")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.add_argument("--accel", choices=("auto", "kvm", "tcg"), default="auto", help="the accelerator to probe")
    command.set_defaults(command=_doctor)

    command = commands.add_parser("build", help="build an image: the reference image, or what an image.json describes")
    command.add_argument("--out", type=Path, metavar="FILE", help="write the raw disk here")
    command.add_argument(
        "--archive", type=Path, metavar="FILE", help="write the archive that Compute Engine takes here"
    )
    command.add_argument("--spec", type=Path, metavar="IMAGE.JSON", help="build this instead of the reference image")
    command.add_argument(
        "--module",
        action="append",
        default=[],
        metavar="debug|bloat[:SIZE]",
        help="a module of the reference image",
    )
    command.set_defaults(command=_build)

    command = commands.add_parser("inspect", help="check an image without booting it")
    command.add_argument("image", type=Path, metavar="IMAGE", help="a .raw, .qcow2 or .tar.gz")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(command=_inspect)

    command = commands.add_parser("boot", help="boot an image and say whether it got ready, or why not")
    command.add_argument("image", metavar="IMAGE", help="`reference`, `nix:FLAKE#ATTR`, or the path of a disk image")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.add_argument("--module", action="append", default=[], metavar="debug|bloat[:SIZE]", help="as for build")
    command.add_argument(
        "--debug",
        action="store_true",
        help="follow stage 1 unit by unit, with a root shell on the second serial port; the image is not changed",
    )
    command.add_argument(
        "--rewind",
        choices=[str(stage) for stage in REWINDS],
        metavar="STAGE",
        help="begin where this stage begins, which the first such call keeps: %(choices)s",
    )
    command.add_argument("--accel", choices=("auto", "kvm", "tcg"), default="auto", help="the accelerator")
    command.add_argument("--memory", default="1G", metavar="SIZE", help="the machine's memory (default: %(default)s)")
    command.add_argument("--cpus", type=int, default=2, metavar="N", help="its processors (default: %(default)s)")
    command.add_argument("--disk-size", metavar="SIZE", help="its disk; larger than the image, root grows")
    command.add_argument("--results", type=Path, metavar="DIR", help="the directory of the results, used as it is")
    command.add_argument("--quiet", action="store_true", help="do not show the console")
    command.set_defaults(command=_boot)

    command = commands.add_parser("faults", help="break the reference image in known ways and check each verdict")
    command.add_argument("names", nargs="*", metavar="NAME", help="faults to run")
    command.add_argument("--all", action="store_true", help="run every fault")
    command.add_argument("--list", action="store_true", help="name the faults and what is broken; run nothing")
    command.add_argument("--json", action="store_true", help="print one JSON object a line")
    command.add_argument("-j", "--jobs", type=int, default=1, metavar="N", help="machines at a time (default: 1)")
    command.add_argument("--accel", choices=("auto", "kvm", "tcg"), default="auto", help="the accelerator")
    command.add_argument("--results", type=Path, metavar="DIR", help="the directory of the results, used as it is")
    command.set_defaults(command=_faults)

    command = commands.add_parser(
        "emulator", help="serve a Compute Engine and Cloud Storage on this host that boot real machines"
    )
    command.add_argument("--port", type=int, default=0, metavar="N", help="the port (default: one that is free)")
    command.add_argument("--accel", choices=("auto", "kvm", "tcg"), default="auto", help="the accelerator")
    command.add_argument(
        "--memory", default="2G", metavar="SIZE", help="a machine's memory at most (default: %(default)s)"
    )
    command.add_argument(
        "--no-boot", action="store_true", help="only say that machines boot: to try out an API client"
    )
    command.set_defaults(command=_emulator)
    cli_gce.add(commands)
    return parser


def _print_json(value: object) -> None:
    print(json.dumps(value))


def _doctor(arguments: argparse.Namespace) -> int:
    report = doctor.report(request=accel.Request(arguments.accel))
    if arguments.json:
        _print_json(report.as_dict())
    else:
        report.print(Console(highlight=False))
    return 0 if report.ok else 2


def _build(arguments: argparse.Namespace) -> int:
    if arguments.spec and arguments.module:
        raise InputError("--module and --spec exclude each other", hint="modules are for the reference image")
    if arguments.spec and not (arguments.out or arguments.archive):
        raise InputError("--spec needs --out or --archive", hint="say where the image goes: --out disk.raw")
    modules = Modules.parse(arguments.module)
    for target in (arguments.out, arguments.archive):
        if target is not None and (target.is_dir() or not target.absolute().parent.is_dir()):
            raise InputError(f"{target} is no place for a file", hint="name a file in a directory that exists")
    described = None if arguments.spec is None else spec.load(arguments.spec)
    toolbox = tools.find()
    made = [path for path in (arguments.out, arguments.archive) if path is not None]
    if described is not None:
        build.build(described, toolbox, disk=arguments.out, packed=arguments.archive)
    else:
        disk = cache.reference_image(contracts.default(), modules, toolbox)
        if arguments.out is not None:
            _copy(disk, arguments.out)
        if arguments.archive is not None:
            archive.pack(disk, arguments.archive, toolbox)
        made = made or [disk]
    for path in made:
        print(path)
    return 0


def _copy(source: Path, target: Path) -> None:
    """Copy a disk, sparse, or sharing blocks where the file system can; `target` appears whole or not at all."""
    partial = target.with_name(f".{target.name}.partial")
    try:
        subprocess.run(
            ["cp", "--sparse=always", "--reflink=auto", "--", source, partial],
            check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        partial.replace(target)
    except subprocess.CalledProcessError as error:
        lines = error.stderr.splitlines() or ["no message"]
        raise HostError(f"{target} cannot be written: {lines[-1]}") from error
    except OSError as error:
        raise HostError(f"{target} cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


def _inspect(arguments: argparse.Namespace) -> int:
    found = inspect(arguments.image, contracts.default(), tools.find())
    if arguments.json:
        _print_json(found.to_json())
    else:
        found.render(Console(highlight=False))
    return 0 if found.ok else 1


def _boot(arguments: argparse.Namespace) -> int:
    memory = parse_size(arguments.memory)
    hardware = Hardware(
        memory_mib=memory >> 20,
        cpus=arguments.cpus,
        disk_size=None if arguments.disk_size is None else parse_size(arguments.disk_size),
    )
    out = progress.stderr()
    with Lab(lambda: new_directory(arguments.results), accelerator=arguments.accel) as lab:
        image = lab.image(arguments.image, arguments.module)
        for breach in image.inspection.breaches:
            out.print(Text(f"inspection: {breach}"))
        out.print(Text(f"booting {image.name} with {lab.accelerator.name} ({lab.accelerator.reason})"))
        watch = Heartbeat() if arguments.quiet else Cockpit(out)
        if arguments.rewind is None:
            booting: AbstractContextManager[QemuVm] = lab.machine(image, hardware, watch=watch, debug=arguments.debug)
        else:
            booting = lab.rewind(image, Stage(arguments.rewind), hardware, watch=watch, debug=arguments.debug)
        with booting as vm:
            verdict = vm.wait_verdict()
            watch(vm.follower)
            if not verdict.ready:
                vm.diagnose(verdict)
            units = vm.timeline.units
        if arguments.debug or image.debug or (image.modules and image.modules.debug):
            _show_units(units, out)
    if arguments.json:
        _print_json(verdict.to_json())
    else:
        show(verdict, lab.results)
    return verdict.exit_status


def _faults(arguments: argparse.Namespace) -> int:
    faults = catalogue.named(arguments.names)
    if arguments.list:
        for fault in faults:
            _print_json(catalogue.to_json(fault)) if arguments.json else print(f"{fault.name}: {fault.broken}")
        return 0
    if bool(arguments.names) is arguments.all:
        raise InputError("name the faults to run, or say --all", hint="vmtests faults --list names them")
    if arguments.jobs < 1:
        raise InputError("-j takes a number from 1 on")
    right = True
    with Lab(lambda: new_directory(arguments.results), accelerator=arguments.accel) as lab:
        for outcome in Runner(lab.image(), lab).run_all(faults, jobs=arguments.jobs):
            right &= outcome.right
            _print_json(outcome.to_json()) if arguments.json else _show_outcome(outcome)
            sys.stdout.flush()
    return 0 if right else 1


def _show_outcome(outcome: Outcome) -> None:
    console = Console(highlight=False)
    seconds = "" if outcome.verdict is None else f" in {outcome.verdict.evidence_to_verdict_s:.1f} s"
    mark = Text("right", "green") if outcome.right else Text("WRONG", "red")
    console.print(Text.assemble(mark, f" {outcome.fault.name}{seconds}: {outcome.sentence}"))
    if not outcome.right:
        told = outcome.to_json()
        console.print(Text(f"  expected {told['expected']}, got {told['got']}"))


def _emulator(arguments: argparse.Namespace) -> int:
    # To be ended is how a server ends.
    with (
        contextlib.suppress(KeyboardInterrupt),
        Emulator(
            port=arguments.port,
            hypervisor=FakeHypervisor() if arguments.no_boot else None,
            accelerator=arguments.accel,
            memory_mib=parse_size(arguments.memory) >> 20,
        ) as emulator,
    ):
        print(emulator.endpoint, flush=True)
        for line in emulator.environment:
            progress.stderr().print(Text(line))
        while True:
            signal.pause()
    return 0


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


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
