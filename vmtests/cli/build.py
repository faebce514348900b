"""`vmtests build`."""

import argparse
import contextlib
import dataclasses
import sys
from pathlib import Path

from vmtests import contract as contracts
from vmtests.cli.common import add_json, add_modules, print_json
from vmtests.errors import InputError, at_named
from vmtests.host import outputs, tools
from vmtests.host.copies import copy_disk
from vmtests.host.meter import Meter
from vmtests.host.process import give_way
from vmtests.host.scratch import owned
from vmtests.host.tools import Toolbox
from vmtests.image import build, cache, compression, spec
from vmtests.image.build import STDOUT, Order
from vmtests.image.reference import Modules
from vmtests.image.spec import ImageSpec
from vmtests.image.target import beside, publish


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the raw disk here")
    parser.add_argument(
        "--archive", type=Path, metavar="FILE", help="write Compute Engine's archive here; `-` is standard output"
    )
    parser.add_argument("--spec", type=Path, metavar="IMAGE.JSON", help="build this instead of the reference image")
    parser.add_argument(
        "--compress",
        metavar="HOW",
        help="compress the store otherwise than image.json says: none, or ALGORITHM"
        "[,level=N][,cluster=SIZE][,dedupe][,fragments][,workers=N] (docs/building.md)",
    )
    parser.add_argument("--check", action="store_true", help="build it twice, and say which file differs if one does")
    parser.add_argument("--deep", action="store_true", help="have each file system checked, to its last file")
    parser.add_argument("--nice", action="store_true", help="let everybody else go first, at processors and disks")
    add_json(parser, "print one JSON object: seconds of each part, peak memory, bytes written")
    add_modules(parser)
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Build an image: the reference image, or what an image.json describes."""
    _refuse(arguments)
    if arguments.nice:
        give_way()
    order = Order(disk=arguments.out, packed=arguments.archive, twice=arguments.check, deep=arguments.deep)
    with Meter() as meter:
        disk = _build(arguments, order, tools.find())
    made = [path for path in (arguments.out or disk, arguments.archive) if path not in {None, STDOUT}]
    if arguments.json:
        usage = meter.usage
        print_json({
            "disk": str(made[0]) if made and made[0] != arguments.archive else None,
            "archive": None if arguments.archive is None else str(arguments.archive),
            "seconds": {name: round(seconds, 2) for name, seconds in order.seconds.items()},
            "cpu_seconds": round(usage.cpu_s, 2),
            "peak_memory_bytes": usage.peak_bytes,
            "written_bytes": usage.written_bytes,
        })  # fmt: skip
    elif arguments.archive != STDOUT:
        for path in made:
            print(path)
    return 0


def _refuse(arguments: argparse.Namespace) -> None:
    """Raise InputError for arguments that contradict each other, and for places that are none."""
    if arguments.spec and arguments.module:
        raise InputError("--module and --spec exclude each other", hint="modules are for the reference image")
    looks = arguments.check or arguments.deep
    if arguments.spec and not (arguments.out or arguments.archive or looks):
        raise InputError("--spec needs --out or --archive", hint="say where the image goes: --out disk.raw")
    if arguments.compress is not None:
        compression.parse(arguments.compress)
        if not (arguments.out or arguments.archive or looks):
            raise InputError("--compress needs --out or --archive", hint="the cache has the reference image as it is")
    if arguments.out is not None:
        outputs.check_disk(arguments.out, "--out")
    if arguments.archive not in {None, STDOUT}:
        outputs.check_disk(arguments.archive, "--archive")
    if arguments.out and arguments.archive and arguments.out.resolve() == arguments.archive.resolve():
        raise InputError(f"--out and --archive are both {arguments.out}", hint="give the archive another name")
    if arguments.archive == STDOUT:
        if arguments.json:
            raise InputError("--archive - and --json both write to standard output", hint="give the archive a file")
        if sys.stdout.isatty():
            raise InputError("an archive is not written to a terminal", hint="vmtests build --archive - > FILE")


def _build(arguments: argparse.Namespace, order: Order, toolbox: Toolbox) -> Path | None:
    """Build what was asked for; return the disk in the cache where that is all there is."""
    if arguments.spec is not None:
        described = _compressed(spec.load(arguments.spec), arguments.compress)
        build.check_targets(described, order, arguments.spec)
        build.build(described, toolbox, order)
        return None
    contract, modules = contracts.default(), Modules.parse(arguments.module)
    if arguments.compress is not None or arguments.check:
        with cache.described(contract, modules, toolbox) as reference:
            build.build(_compressed(reference, arguments.compress), toolbox, order)
        return None
    with contextlib.ExitStack() as stack:

        def keep(directory: Path) -> None:
            stack.enter_context(owned(directory))

        with order.part("reference image"):
            disk = cache.reference_image(contract, modules, toolbox, keep)
        build.finish(disk, toolbox, order)
        if order.disk is not None:
            with order.part("copy"):
                _copy(disk, order.disk)
    return None if order.disk or order.packed else disk


def _compressed(described: ImageSpec, how: str | None) -> ImageSpec:
    return described if how is None else dataclasses.replace(described, compression=how)


def _copy(source: Path, target: Path) -> None:
    """Copy a disk, sparse, or sharing blocks where the file system can; `target` appears whole or not at all."""
    with beside(target) as work:
        copy_disk(source, work / target.name)
        try:
            publish(work / target.name, target)
        except OSError as error:
            raise at_named(f"{target} cannot be written", error, "name another place") from error
