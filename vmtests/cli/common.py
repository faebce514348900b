"""Arguments and output that several commands have."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from vmtests.cli.words import of_the_command
from vmtests.guest.login import Login
from vmtests.guest.seed import Seed
from vmtests.machine.hardware import Disk, DiskBus, FirmwareKind, Hardware, Net
from vmtests.sizes import parse_size
from vmtests.text import inert_quoted


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


def add_login(parser: argparse.ArgumentParser) -> None:
    """Add `--login` and `--login-key`."""
    who = os.environ.get("VMTESTS_LOGIN")
    parser.add_argument(
        "--login",
        metavar="USER[:PASSWORD]",
        default=who,
        help="who logs in where our credentials give no way in; also VMTESTS_LOGIN, which nobody else sees",
    )
    key = os.environ.get("VMTESTS_LOGIN_KEY")
    parser.add_argument(
        "--login-key",
        type=Path,
        metavar="FILE",
        default=None if not key else Path(key),
        help="a private key that lets that user in over ssh; also VMTESTS_LOGIN_KEY",
    )


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add `--seed`."""
    parser.add_argument(
        "--seed",
        choices=[str(seed) for seed in Seed],
        default=str(Seed.AUTO),
        help="how a cloud lets its guests in: cloud-init's NoCloud, Ignition (default: by what the image listens to)",
    )


def login(arguments: argparse.Namespace) -> Login | None:
    """Return what `add_login` has read; raises InputError."""
    if arguments.login is None and arguments.login_key is None:
        return None
    return Login.parse(arguments.login or "root", arguments.login_key)


def add_hardware(parser: argparse.ArgumentParser) -> None:
    """Add the machine's hardware, by the names of `Hardware`."""
    group = parser.add_argument_group("the machine")
    group.add_argument("--memory", default="1G", metavar="SIZE", help="its memory (default: %(default)s)")
    group.add_argument("--cpus", type=int, default=2, metavar="N", help="its processors (default: %(default)s)")
    group.add_argument("--disk-size", metavar="SIZE", help="its disk; larger than the image, root grows")
    group.add_argument(
        "--firmware",
        choices=[str(kind) for kind in FirmwareKind],
        help="what starts the image (default: bios where it has a boot loader for that only, else uefi)",
    )
    group.add_argument(
        "--disk-bus",
        choices=[str(bus) for bus in DiskBus],
        help="how the guest sees its disks (default: cdrom for a CD-ROM image, else virtio-scsi)",
    )
    group.add_argument(
        "--sector-size",
        type=int,
        choices=(512, 4096),
        help="bytes in a sector of its disks (default: as the image's GPT has them)",
    )
    group.add_argument(
        "--disk",
        action="append",
        default=[],
        metavar="FILE|SIZE",
        dest="disks",
        help="a further disk, an image or an empty one of that size; may be given several times",
    )
    group.add_argument("--cdrom", type=Path, metavar="FILE", help="a disc in its drive")
    group.add_argument("--kernel", type=Path, metavar="FILE", help="a kernel to start instead of the boot loader")
    group.add_argument("--initrd", type=Path, metavar="FILE", help="that kernel's initrd")
    group.add_argument("--append", default="", metavar="WORDS", help="that kernel's command line")
    group.add_argument("--secure-boot", action="store_true", help="its firmware starts what is signed only")
    group.add_argument(
        "--firmware-vars",
        type=Path,
        metavar="FILE",
        help="the variables its firmware begins with, as with your own keys in them",
    )
    group.add_argument("--tpm", action="store_true", help="it has a TPM 2.0")
    group.add_argument("--net", choices=[str(net) for net in Net], default=str(Net.ISOLATED), help="its network")
    group.add_argument("--cmdline-extra", default="", metavar="WORDS", help="more of the kernel's command line")
    group.add_argument(
        "--qemu-arg",
        action="append",
        default=[],
        metavar="ARG",
        dest="qemu_args",
        help="an argument of QEMU's own, behind all others; once for each word: --qemu-arg=-device --qemu-arg=e1000e",
    )


def hardware(arguments: argparse.Namespace) -> Hardware:
    """Return what `add_hardware` has read; raises InputError, also for a file that is not there."""
    ordered = Hardware(
        memory_mib=parse_size(arguments.memory) >> 20,
        cpus=arguments.cpus,
        disk_size=None if arguments.disk_size is None else parse_size(arguments.disk_size),
        firmware=arguments.firmware and FirmwareKind(arguments.firmware),
        disk_bus=arguments.disk_bus and DiskBus(arguments.disk_bus),
        sector_size=arguments.sector_size,
        disks=tuple(map(_disk, arguments.disks)),
        cdrom=arguments.cdrom,
        kernel=arguments.kernel,
        initrd=arguments.initrd,
        append=arguments.append,
        secure_boot=arguments.secure_boot,
        firmware_vars=arguments.firmware_vars,
        tpm=arguments.tpm,
        net=Net(arguments.net),
        cmdline_extra=arguments.cmdline_extra,
        qemu_args=tuple(arguments.qemu_args),
    )
    ordered.need_files()
    return ordered


def _disk(text: str) -> Disk:
    path = Path(text)
    return Disk(image=path) if os.path.exists(text) or not text[:1].isdigit() else Disk(size=parse_size(text))  # noqa: PTH110 - it raises for no name


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
    print(inert_quoted(json.dumps(value)))
