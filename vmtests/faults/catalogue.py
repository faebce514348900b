"""The faults, `fixtures/faults/*.toml`, as facts: what is broken, how, and the verdict that it must get.

Paths on the ESP may name a file of the contract's boot section: `{loader}`, `{entry}`, `{kernel}`, `{initrd}`.
"""

import functools
import tomllib
from pathlib import Path
from typing import Literal

import msgspec

from vmtests.boot.stages import Stage
from vmtests.boot.verdict import Cause
from vmtests.errors import InputError, Owner
from vmtests.machine.hardware import DiskBus
from vmtests.resources import fixture


class _Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="do"):
    """One thing that is done to a copy of the image, or to its machine."""


class Overwrite(_Step, frozen=True, kw_only=True, tag="overwrite"):
    """Overwrites `size` bytes with zeros, or `hex` as it is, from `offset` of a partition or of the disk.

    A negative offset counts from the end.
    """

    partition: str | None = None
    offset: int
    size: int = 0
    hex: str = ""


class Flip(_Step, frozen=True, kw_only=True, tag="flip"):
    """Turns one bit of the store's erofs, at a place of `faults.store.place`."""

    at: str
    bit: int = 0


class Feature(_Step, frozen=True, kw_only=True, tag="feature"):
    """Sets feature bits in the superblock of the store's erofs, and makes its checksum good."""

    incompat: int


class Esp(_Step, frozen=True, kw_only=True, tag="esp"):
    """Removes files of the ESP, writes others, cuts some to a number of bytes, and takes all tries from entries."""

    remove: tuple[str, ...] = ()
    write: dict[str, str] = {}
    truncate: dict[str, int] = {}
    exhaust: tuple[str, ...] = ()


class Sign(_Step, frozen=True, kw_only=True, tag="sign"):
    """Signs programs on the ESP with the key that OVMF has for tests ("snakeoil"), which `own_keys` enrolls."""

    files: tuple[str, ...]


class Options(_Step, frozen=True, kw_only=True, tag="options"):
    """Changes the kernel's command line in the boot entry: words that begin so go, others are added."""

    remove: tuple[str, ...] = ()
    add: tuple[str, ...] = ()


class Initrd(_Step, frozen=True, kw_only=True, tag="initrd"):
    """Changes the initrd: files go (shell patterns), directories move, files and symlinks come, text is replaced.

    Text is replaced in each file that a shell pattern fits and that has it: NixOS has units below store paths.
    `{release}` in a directory that moves is the release of the kernel whose modules are there, `**/` in front of it
    whatever is above it. A file that begins
    with `#!` can be executed. `ballast` is the size in MiB of a file of zeros that is unpacked first.
    """

    remove: tuple[str, ...] = ()
    rename: dict[str, str] = {}
    write: dict[str, str] = {}
    symlink: dict[str, str] = {}
    replace: dict[str, dict[str, str]] = {}
    ballast: int = 0


class Root(_Step, frozen=True, kw_only=True, tag="root"):
    """Changes the ext4 of the root partition with debugfs: files and symlinks come, then its commands are run.

    With `fill` a file takes all the blocks that are free. `{system}` in a path or command is the name in the store of
    what `init=` names.
    """

    write: dict[str, str] = {}
    symlink: dict[str, str] = {}
    commands: tuple[str, ...] = ()
    fill: bool = False


class Table(_Step, frozen=True, kw_only=True, tag="table"):
    """Changes the partition table with sfdisk: a label, a type, a size in sectors, or a partition that goes."""

    partition: str
    label: str | None = None
    type: str | None = None
    sectors: int | None = None
    delete: bool = False


class Machine(_Step, frozen=True, kw_only=True, tag="machine"):
    """Changes the machine: memory in MiB, secure boot, words on the kernel's command line, what its disk is on.

    Secure boot is with Microsoft's keys, or with `own_keys`: the one of `Sign`.

    Its disk is as large as the image unless it may `grow`. A sector of the store (a place as for Flip) cannot be
    read, every write finds the host's disk full, or the disk is slow.
    """

    memory_mib: int = 1024
    secure_boot: bool = False
    own_keys: bool = False
    cmdline: str = ""
    disk_bus: DiskBus | None = None
    grow: bool = True
    read_error: str | None = None
    disk_full: bool = False
    bytes_per_second: int | None = None


class Host(_Step, frozen=True, kw_only=True, tag="host"):
    """Something that happens on the host as soon as the boot has reached a stage: a signal for QEMU."""

    signal: Literal["KILL", "STOP"]
    stage: Stage


Step = Overwrite | Flip | Feature | Esp | Sign | Options | Initrd | Root | Table | Machine | Host


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fault: one sentence that says what is broken, its steps, and the verdict.

    Without `cause` the boot gets ready all the same, and `breach` begins what inspection says of the image. A
    `silent` fault leaves no evidence: its verdict is due at the end of the stage's budget. A `refused` one is no disk
    to boot, which is known without booting it.
    """

    name: str
    area: str = ""
    broken: str
    steps: tuple[Step, ...]
    stage: Stage
    cause: Cause | None = None
    owner: Owner | None = None
    breach: str = ""
    silent: bool = False
    refused: bool = False

    @property
    def ready(self) -> bool:
        """Whether the boot gets ready all the same."""
        return self.cause is None


def to_json(fault: Fault) -> dict[str, object]:
    """Return the fault as JSON data."""
    data: dict[str, object] = msgspec.to_builtins(fault)
    return data


class _File(msgspec.Struct, forbid_unknown_fields=True):
    fault: list[Fault]


def load(path: Path) -> list[Fault]:
    """Read the faults of one file; raises InputError, naming the field, when it is none."""
    try:
        data = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _File, strict=True)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise InputError(f"faults {path}: {error}") from error
    for fault in data.fault:
        if fault.ready is not (fault.stage is Stage.READY) or fault.ready is not (fault.owner is None):
            raise InputError(f"faults {path}: {fault.name} is either ready or has stage, cause and owner")
    return [msgspec.structs.replace(fault, area=path.stem) for fault in data.fault]


@functools.cache
def catalogue() -> dict[str, Fault]:
    """Return all faults by name, in the order of a boot."""
    order = ("firmware", "bootloader", "kernel", "stage1", "stage2", "host")
    files = sorted(fixture("faults").glob("*.toml"), key=lambda path: order.index(path.stem))
    faults: dict[str, Fault] = {}
    for fault in (fault for path in files for fault in load(path)):
        if fault.name in faults:
            raise InputError(f"two faults are named {fault.name}")
        faults[fault.name] = fault
    return faults


def named(names: list[str]) -> list[Fault]:
    """Return the faults with these names, or all of them; raises InputError for an unknown name."""
    known = catalogue()
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"there is no fault named {', '.join(unknown)}", hint="vmtests faults --list names them")
    return [known[name] for name in names] if names else list(known.values())
