"""The image contract, `fixtures/contract.toml`, as facts.

The file is the only place where partition labels, mount points and unit names are spelled.
"""

import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path

import msgspec

from vmtests.errors import InputError
from vmtests.resources import fixture
from vmtests.sizes import parse_size

GPT_LABEL_LIMIT = 36
"""Characters in a GPT partition name (UEFI specification 2.10, table 5.6: 72 bytes of UTF-16)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """The disk as a whole: sector size in bytes, granularity as a size string."""

    sector_size: int
    granularity: str

    @property
    def granularity_bytes(self) -> int:
        """The number of bytes of which the disk's size is a multiple."""
        return parse_size(self.granularity)


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One partition: how it is named in the table and what it holds."""

    name: str
    label: str
    type: str
    type_uuid: str
    filesystem: str
    size: str | None = None
    read_only: bool = False
    grow: bool = False

    @property
    def size_bytes(self) -> int | None:
        """The size, or for a partition that grows the least size, in bytes; None where content decides."""
        return None if self.size is None else parse_size(self.size)

    @property
    def device(self) -> str:
        """The udev link by which stage 1 finds the partition."""
        return f"/dev/disk/by-partlabel/{self.label}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """Files on the ESP (absolute paths in it) and the consoles of the kernel."""

    loader: str
    loader_config: str
    entry: str
    kernel: str
    initrd: str
    console: str
    console_speed: int
    debug_console: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """The writable store: overlay directories, the bind on top, and where Nix keeps its state."""

    mount: str
    lower: str
    upper: str
    work: str
    bind_options: tuple[str, ...]
    mode: str
    group: int
    state: str

    def overlay_options(self, prefix: str = "") -> dict[str, str]:
        """Return the overlay's directories by option name, each below `prefix`.

        Stage 1 mounts with the prefix `/sysroot`, and the kernel shows the options as they were given, so
        `/proc/self/mountinfo` of the running system has the prefix too.
        """
        return {
            "lowerdir": prefix + self.lower,
            "upperdir": prefix + self.upper,
            "workdir": prefix + self.work,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage1Mount:
    """A mount of stage 1: its unit, where it is, and the partition's name in the contract if it has one."""

    unit: str
    where: str
    partition: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """Names of units that a boot is followed by."""

    make_upper: str
    find_closure: str
    activation: str
    initrd_fs: str
    switch_root: str
    ready: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """Everything that an image promises."""

    version: int
    disk: Disk
    partition: tuple[Partition, ...]
    boot: Boot
    store: Store
    stage1_mount: tuple[Stage1Mount, ...]
    units: Units

    def by_name(self, name: str) -> Partition:
        """Return the partition with this contract name; raises KeyError."""
        for partition in self.partition:
            if partition.name == name:
                return partition
        raise KeyError(name)

    @property
    def esp(self) -> Partition:
        """The EFI system partition."""
        return self.by_name("esp")

    @property
    def store_partition(self) -> Partition:
        """The partition with the read-only store."""
        return self.by_name("store")

    @property
    def root(self) -> Partition:
        """The root partition."""
        return self.by_name("root")


def load(path: Path) -> Contract:
    """Read a contract file; raises InputError, naming the field, when it is not one."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"contract {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"contract {path} is not TOML: {error}") from error
    return from_data(data, str(path))


def from_data(data: object, origin: str) -> Contract:
    """Make a contract of parsed TOML or JSON; `origin` is named in errors."""
    try:
        contract = msgspec.convert(data, Contract, strict=True)
    except msgspec.ValidationError as error:
        raise InputError(f"contract {origin}: {error}", hint="fixtures/contract.toml is a complete one") from error
    _check(contract, origin)
    return contract


def _check(contract: Contract, origin: str) -> None:
    if contract.version != 1:
        raise InputError(
            f"contract {origin} has version {contract.version}; this vmtests reads version 1",
            hint="use the contract that came with this vmtests",
        )
    names = {partition.name for partition in contract.partition}
    if missing := {"esp", "store", "root"} - names:
        raise InputError(f"contract {origin} has no partition named {', '.join(sorted(missing))}")
    for partition in contract.partition:
        if not 0 < len(partition.label) <= GPT_LABEL_LIMIT:
            raise InputError(
                f"contract {origin}: partition label {partition.label!r} has {len(partition.label)} characters",
                hint=f"GPT allows 1 to {GPT_LABEL_LIMIT}",
            )
        if partition.size is not None:
            parse_size(partition.size)
    if any(partition.grow for partition in contract.partition[:-1]):
        raise InputError(f"contract {origin}: only the last partition can grow")
    if unknown := {mount.partition for mount in contract.stage1_mount if mount.partition} - names:
        raise InputError(f"contract {origin}: a mount of stage 1 names unknown partitions {sorted(unknown)}")


@functools.cache
def default() -> Contract:
    """Return the project's own contract."""
    return load(fixture("contract.toml"))
