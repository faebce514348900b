"""A machine's own files: its disks, further ones, the seed that cloud-init looks for, firmware variables, the TPM."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from vmtests.errors import InputError
from vmtests.host.firmware import Firmware
from vmtests.host.sandbox import run_in
from vmtests.host.tools import Toolbox
from vmtests.machine.confine import check_over, disk_files
from vmtests.machine.disk import backing, make_overlay
from vmtests.machine.handover import copy, copy_directory
from vmtests.machine.hardware import Hardware, oem_strings
from vmtests.machine.template import Template

SEED_LABEL = "CIDATA"
"""The label of the file system in which NoCloud looks (cloud-init, doc/rtd/reference/datasources/nocloud.rst)."""

_SEED_SIZE = "1024"  # KiB


def paths(hardware: Hardware, mine: Template) -> tuple[Path, ...]:
    """Return the files of a machine's further disks."""
    return tuple(mine.further(number) for number in range(1, hardware.further + 1))


def make(hardware: Hardware, mine: Template, firmware: Firmware | None, toolbox: Toolbox) -> None:
    """Make what a machine has before its first power-on, but for the image's disk.

    Raises InputError, HostError, OSError.
    """
    if firmware is None:
        mine.variables.touch()
    else:
        shutil.copyfile(_variables(hardware, firmware), mine.variables)
    mine.tpm.mkdir()
    for number, disk in enumerate(hardware.disks, start=1):
        path = mine.further(number)
        path.unlink(missing_ok=True)
        if disk.image is None:
            toolbox.run("qemu-img", "create", "-q", "-f", "qcow2", path, str(disk.size))
        else:
            make_overlay(toolbox, backing(disk.image), path, disk.size)
    if hardware.seed:
        _make_seed(hardware, mine, toolbox)


def _variables(hardware: Hardware, firmware: Firmware) -> Path:
    """Return the file of the variables that a machine begins with; raises InputError for one of another firmware."""
    own, template = hardware.firmware_vars, firmware.vars_template.outside
    if own is None:
        return template
    have, wanted = own.stat().st_size, template.stat().st_size
    if have != wanted:
        raise InputError(
            f"{own} has {have} bytes, and the variables of {firmware.description} have {wanted}",
            hint=f"begin with {template}: virt-fw-vars --input {template.name} --output FILE --set-pk …",
        )
    return own


def _make_seed(hardware: Hardware, mine: Template, toolbox: Toolbox) -> None:
    raw, source = mine.directory / "seed.img", mine.directory / "seed"
    raw.unlink(missing_ok=True)
    toolbox.run("mkfs.vfat", "-n", SEED_LABEL, "-C", raw, _SEED_SIZE)
    for name, data in hardware.seed.items():
        source.write_bytes(data)
        command = ["mcopy", "-i", os.fspath(raw), os.fspath(source), f"::{name}"]
        run_in(toolbox.root("mcopy"), command, env={"MTOOLSRC": os.devnull})
    # Whole, and not over a file of this machine, which a template of it outlives.
    toolbox.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, mine.further(hardware.further))
    raw.unlink()
    source.unlink()


def credential_files(hardware: Hardware, mine: Template) -> tuple[Path, ...]:
    """Return the files with `oem_strings`, in their order."""
    return tuple(mine.directory / f"oem-{number}" for number in range(len(hardware.credentials)))


def fw_cfg_files(hardware: Hardware, mine: Template) -> tuple[Path, ...]:
    """Return the files with what `Hardware.fw_cfg` holds, in its order."""
    return tuple(mine.directory / f"fw-{number}" for number in range(len(hardware.fw_cfg)))


def hand_in(hardware: Hardware, mine: Template) -> None:
    """Write these files; raises OSError."""
    handed = (*oem_strings(hardware), *hardware.fw_cfg.values())
    files = (*credential_files(hardware, mine), *fw_cfg_files(hardware, mine))
    for path, data in zip(files, handed, strict=True):
        path.write_bytes(data)


def take(hardware: Hardware, template: Template, mine: Template) -> None:
    """Copy what a fork writes to; raises OSError."""
    shutil.copyfile(template.overlay, mine.disk)
    for number, path in enumerate(paths(hardware, mine), start=1):
        shutil.copyfile(template.further_overlay(number), path)
    shutil.copyfile(template.variables, mine.variables)
    shutil.copytree(template.tpm, mine.tpm)


def keep(
    hardware: Hardware, mine: Template, template: Template, toolbox: Toolbox, image: Path, source: Template | None
) -> None:
    """Copy the files of a machine that stands still to its template; raises HostError, OSError.

    Its disk is laid over `image`, and a fork's further ones over those of the template `source`. QEMU could write
    anything to them: that they name nothing else is seen before any tool opens what they name.
    """
    kept: list[tuple[Path, Path, Path, Path | None]] = [(mine.disk, template.disk, template.overlay, image)]
    for number, (path, under) in enumerate(zip(paths(hardware, mine), _under(hardware, source), strict=True), start=1):
        kept.append((path, template.further(number), template.further_overlay(number), under))
    for path, disk, overlay, under in kept:
        copy(path, disk)
        check_over(disk, under)
        make_overlay(toolbox, backing(disk), overlay, None)
    copy(mine.variables, template.variables)
    copy_directory(mine.tpm, template.tpm)


def _under(hardware: Hardware, source: Template | None) -> list[Path | None]:
    """Return what each further disk of a machine is laid over."""
    if source is not None:
        return [source.further(number) for number in range(1, hardware.further + 1)]
    images = [None if disk.image is None else disk.image.absolute() for disk in hardware.disks]
    return [*images, *([None] if hardware.seed else [])]


def readable(hardware: Hardware, template: Template | None) -> Iterator[Path]:
    """Yield the host's files that QEMU reads for its further disks, its disc and its kernel."""
    yield from (path.absolute() for path in (hardware.kernel, hardware.initrd, hardware.cdrom) if path is not None)
    if template is not None:
        for path in paths(hardware, template):
            yield from disk_files(path)
    else:
        for disk in hardware.disks:
            if disk.image is not None:
                yield from disk_files(disk.image.absolute())
