"""`vmtests build`."""

import argparse
from pathlib import Path

from vmtests import contract as contracts
from vmtests.cli.common import add_modules
from vmtests.errors import InputError, at_named
from vmtests.host import tools
from vmtests.host.copies import copy_disk
from vmtests.image import archive, build, cache, spec
from vmtests.image.reference import Modules


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the raw disk here")
    parser.add_argument("--archive", type=Path, metavar="FILE", help="write Compute Engine's archive here")
    parser.add_argument("--spec", type=Path, metavar="IMAGE.JSON", help="build this instead of the reference image")
    add_modules(parser)
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Build an image: the reference image, or what an image.json describes."""
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
            archive.pack(disk, arguments.archive)
        made = made or [disk]
    for path in made:
        print(path)
    return 0


def _copy(source: Path, target: Path) -> None:
    """Copy a disk, sparse, or sharing blocks where the file system can; `target` appears whole or not at all."""
    partial = target.with_name(f".{target.name}.partial")
    try:
        copy_disk(source, partial)
        partial.replace(target)
    except OSError as error:
        raise at_named(f"{target} cannot be written", error, "name another place") from error
    finally:
        partial.unlink(missing_ok=True)
