"""What an image promises, as facts: `fixtures/contract.toml` is ours, docs/contract.md says how to write another.

Nothing has to be promised. A text that is empty, and a tuple that is, says that there is no such promise.
"""

import dataclasses
import difflib
import fnmatch
import functools
import posixpath
import re
import tomllib
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import msgspec

from vmtests.errors import InputError
from vmtests.resources import PARSED_LIMIT, fixture, read_named
from vmtests.sizes import format_size, parse_size
from vmtests.text import printable

GPT_LABEL_LIMIT = 36
"""UTF-16 units in a GPT partition name (UEFI specification 2.10, table 5.6: 72 bytes)."""

TYPES = {
    uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"): "esp",
    uuid.UUID("bc13c2ff-59e6-4262-a352-b275fd6f7172"): "xbootldr",
    uuid.UUID("21686148-6449-6e6f-744e-656564454649"): "bios-grub",
    uuid.UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709"): "root-x86-64",
    uuid.UUID("2c7357ed-ebd2-46d9-aec1-23d437ec2bf5"): "root-x86-64-verity",
    uuid.UUID("41092b05-9fc8-4523-994f-2def0408b176"): "root-x86-64-verity-sig",
    uuid.UUID("8484680c-9521-48c6-9c11-b0720656f69e"): "usr-x86-64",
    uuid.UUID("77ff5f63-e7b6-4633-acf4-1565b864c0e6"): "usr-x86-64-verity",
    uuid.UUID("e7bb33fb-06cf-4e81-8273-e543b413e2e2"): "usr-x86-64-verity-sig",
    uuid.UUID("b921b045-1df0-41c3-af44-4c6f280d3fae"): "root-arm64",
    uuid.UUID("44479540-f297-41b2-9af7-d131d5f0458a"): "root-x86",
    uuid.UUID("933ac7e1-2eb4-4f13-b844-0e14e2aef915"): "home",
    uuid.UUID("3b8f8425-20e0-4f3b-907f-1a25a76f98e8"): "srv",
    uuid.UUID("4d21b016-b534-45c2-a9fb-5c16e091fd2d"): "var",
    uuid.UUID("7ec6f557-3bc5-4aca-b293-16ef5df639d1"): "tmp",
    uuid.UUID("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f"): "swap",
    uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4"): "linux-generic",
    uuid.UUID("e6d6d379-f507-44c2-a23c-238f2a3df928"): "linux-lvm",
    uuid.UUID("a19d880f-05fc-4d3b-a006-743f0f84911e"): "linux-raid",
    uuid.UUID("ca7d7ccb-63ed-4c53-861c-1742536059cc"): "luks",
    uuid.UUID("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"): "microsoft-basic-data",
}
"""Names of partition types, as systemd-repart spells them (Discoverable Partitions Specification)."""

MBR_TYPES = {
    0x82: "swap", 0x83: "linux-generic", 0x8E: "linux-lvm", 0xEA: "xbootldr", 0xEF: "esp", 0xFD: "linux-raid",
}  # fmt: skip
"""What the types of a master boot record are called likewise."""

_WHOLE = "fixtures/contract.toml is a complete one"
_UNIT = re.compile(r"[\w:.\\@-]+\.(?:service|socket|target|mount|swap|timer|path|device|automount|slice|scope)")
_SERVICE = re.compile(r"[\w:.\\@+-]+")  # as other inits call it; systemd takes it for NAME.service (systemctl(1))


class Promise(StrEnum):
    """What a contract may promise, as far as tests depend on it."""

    STORE = "store"
    """A Nix store: read-only below, writable through an overlay that stage 1 mounts."""
    ENTRY = "entry"
    """A boot entry that systemd-boot starts."""
    ROOT = "root"
    """A partition that is called root."""
    GROW = "grow"
    """A last partition that takes the rest of the disk."""
    PARTITIONS = "partitions"
    MOUNTS = "mounts"
    UNITS = "units"
    """Units that are active once the system is up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """The disk as a whole: `sector_size` in bytes (0: any); its size and the unit of it, as size texts."""

    sector_size: int = 0
    granularity: str = ""
    size: str = ""

    @property
    def granularity_bytes(self) -> int:
        """The number of bytes of which the disk's size is a multiple."""
        return parse_size(self.granularity) if self.granularity else 1

    @property
    def size_bytes(self) -> int:
        """The size in bytes; 0 where none is promised."""
        return parse_size(self.size) if self.size else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One partition: how it is named in the table and what it holds.

    `name` is what the contract calls it. `label` may have wildcards, so that it fits partitions that are named after a
    version; `copies` is how many there are of it (A/B), of which others may be labelled `_empty`. `verity` is the
    name of the partition with its hash tree.
    """

    name: str = ""
    label: str = ""
    type: str = ""
    type_uuid: str = ""
    filesystem: str = ""
    size: str | None = None
    size_max: str | None = None
    read_only: bool = False
    grow: bool = False
    copies: int = 1
    verity: str = ""

    @property
    def size_bytes(self) -> int | None:
        """The size, or for a partition that grows the least size, in bytes; None where content decides."""
        return None if self.size is None else parse_size(self.size)

    @property
    def size_max_bytes(self) -> int | None:
        """The largest size in bytes; None where there is none."""
        return None if self.size_max is None else parse_size(self.size_max)

    @property
    def device(self) -> str:
        """The udev link by which stage 1 finds the partition; empty where it has no label of its own."""
        if not self.label or set("*?[") & set(self.label):
            return ""
        # As udev's blkid writes it (blkid_encode_string of util-linux).
        name = re.sub(r"[^\w#+.:=@\x80-\U0010ffff-]", lambda found: f"\\x{ord(found[0]):02x}", self.label)
        return f"/dev/disk/by-partlabel/{name}"

    @property
    def shown(self) -> str:
        """What it is called in sentences."""
        return f"labelled `{self.label}`" if self.label else f"of type {self.type or self.type_uuid}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """Files on the way to boot (absolute paths in their file system) and the consoles of the kernel."""

    loader: str = ""
    loader_config: str = ""
    entry: str = ""
    kernel: str = ""
    initrd: str = ""
    console: str = "ttyS0"
    console_speed: int = 115200
    debug_console: str = "ttyS1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """The writable store: overlay directories, the bind on top, and where Nix keeps its state."""

    mount: str = ""
    lower: str = ""
    upper: str = ""
    work: str = ""
    bind_options: tuple[str, ...] = ()
    mode: str = ""
    group: int = 0
    state: str = ""

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
class Mount:
    """A mount of the running system: its options are among those that are promised, its source is a partition."""

    where: str
    filesystem: str = ""
    options: tuple[str, ...] = ()
    partition: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """Names of units that a boot is followed by.

    `active` are those that run, or have run, once `ready` is there; `may_fail` those whose failure breaks no promise.
    """

    make_upper: str = ""
    find_closure: str = ""
    activation: str = ""
    initrd_fs: str = "initrd-fs.target"
    switch_root: str = "initrd-switch-root.service"
    ready: str = "multi-user.target"
    active: tuple[str, ...] = ()
    may_fail: tuple[str, ...] = ()

    def broken(self, failed: Iterable[str]) -> list[str]:
        """Return the units that may not have failed, of those that have."""
        return [name for name in failed if not any(fnmatch.fnmatchcase(name, one) for one in self.may_fail)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """Everything that an image promises; without anything, only what any image does: it gets ready, nothing failed."""

    version: int = 1
    disk: Disk = Disk()
    partition: tuple[Partition, ...] = ()
    boot: Boot = Boot()
    store: Store = Store()
    mount: tuple[Mount, ...] = ()
    stage1_mount: tuple[Stage1Mount, ...] = ()
    units: Units = Units()
    origin: str = field(default="", compare=False, repr=False)
    """The file that it was read from, for people; empty for the promises of any image."""

    def find(self, name: str) -> Partition | None:
        """Return the partition with this contract name, if there is one."""
        return next((partition for partition in self.partition if partition.name == name), None)

    def by_name(self, name: str) -> Partition:
        """Return the partition with this contract name; raises KeyError."""
        if (partition := self.find(name)) is None:
            raise KeyError(name)
        return partition

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

    @property
    def promises(self) -> frozenset[Promise]:
        """What is promised at all."""
        return frozenset(
            promise
            for promise, made in {
                Promise.STORE: self.store.mount,
                Promise.ENTRY: self.boot.entry,
                Promise.ROOT: self.find("root"),
                Promise.GROW: any(partition.grow for partition in self.partition),
                Promise.PARTITIONS: self.partition,
                Promise.MOUNTS: self.mount,
                Promise.UNITS: self.units.active,
            }.items()
            if made
        )

    @property
    def shown(self) -> str:
        """What it is called in sentences."""
        return f"contract {self.origin}" if self.origin else "what every image promises"


ANY = Contract()
"""What every image promises: it gets ready, and nothing has failed."""


def load(path: Path) -> Contract:
    """Read a contract file; raises InputError, naming the place in it, when it is not one."""
    try:
        data = tomllib.loads(text := read_named(path, "contract", limit=PARSED_LIMIT))
    except (ValueError, RecursionError) as error:  # numbers without end are no TOMLDecodeError
        raise InputError(f"contract {path} is not TOML: {error}") from error
    return from_data(data, str(path), text)


def from_data(data: object, origin: str, text: str = "") -> Contract:
    """Make a contract of parsed TOML or JSON; `origin` is named in errors, the line too where `text` is the file's."""
    try:
        _check_keys(data)
        try:
            contract = msgspec.convert(data, Contract, strict=True)
        except msgspec.ValidationError as error:
            sentence, _, path = str(error).partition(" - at `$")
            raise _Wrong(path.rstrip("`").lstrip("."), f"{sentence[0].lower()}{sentence[1:]}", _WHOLE) from error
        contract = dataclasses.replace(contract, partition=tuple(map(_named, contract.partition)), origin=origin)
        _check(contract)
    except _Wrong as wrong:
        line = _line(text, wrong.place)
        where = f"contract {origin}{f', line {line}' if line else ''}: {printable(wrong.place)}"
        where += ": " if wrong.place else ""
        raise InputError(f"{where}{wrong.sentence}", hint=wrong.hint) from None
    return contract


class _Wrong(Exception):  # noqa: N818 - it never leaves this module
    """What is wrong at a place like `partition[1].label`."""

    def __init__(self, place: str, sentence: str, hint: str | None = None) -> None:
        super().__init__(sentence)
        self.place, self.sentence, self.hint = place, sentence, hint


_SECTIONS = {
    "disk": Disk, "partition": Partition, "boot": Boot, "store": Store, "mount": Mount, "stage1_mount": Stage1Mount,
    "units": Units,
}  # fmt: skip


def _check_keys(data: object) -> None:
    """Refuse a key that no contract has."""
    if not isinstance(data, dict):
        return
    known = [item.name for item in dataclasses.fields(Contract) if item.name != "origin"]
    for key, value in data.items():
        if key not in known:
            raise _Wrong(key or '""', "no contract has this key", _nearest(key, known))
        keys = [item.name for item in dataclasses.fields(_SECTIONS[key])] if key in _SECTIONS else []
        for number, table in enumerate(value if isinstance(value, list) else [value]):
            place = f"{key}[{number}]" if isinstance(value, list) else key
            for inner in table if isinstance(table, dict) and keys else ():
                if inner not in keys:
                    raise _Wrong(f"{place}.{inner}", "no contract has this key", _nearest(inner, keys))


def _nearest(word: str, known: list[str]) -> str | None:
    if near := difflib.get_close_matches(word, known, 1, 0.6):
        return f"did you mean `{near[0]}`?"
    return f"there are {', '.join(known)}"


_PLACE = re.compile(r"(?P<table>[\w-]+)(?:\[(?P<number>[0-9]{1,9})\])?(?:\.(?P<key>.+?)(?:\[[0-9]+\])?)?", re.DOTALL)


def _line(text: str, place: str) -> int | None:
    """Return the line of the file in which a place like `partition[1].label` is, if it can be told."""
    if (parts := _PLACE.fullmatch(place)) is None:
        return None
    head, key, wanted = parts["table"], parts["key"] or "", int(parts["number"] or 0)
    if not (parts["number"] or key):  # no table, but a key of the file
        head, key = "", head
    found, seen, inside = None, -1, not head
    for index, line in enumerate(text.splitlines(), start=1):
        if table := re.match(r"\s*\[{1,2}\s*([\w-]+)\s*\]{1,2}", line):
            seen += table[1] == head
            inside = table[1] == head and seen == wanted
            if table[1] == (head or key) and (inside or not head):
                found = found or index
        elif key and inside and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line):
            return index
    return found if found or not head else _line(text, head)


def _named(partition: Partition) -> Partition:
    """Return a partition with the name and the type that follow from the rest."""
    kind, number = partition.type, partition.type_uuid.lower()
    known = next((str(item) for item, name in TYPES.items() if name == kind), "")
    name = next((name for item, name in TYPES.items() if str(item) == number), "")
    return dataclasses.replace(
        partition,
        name=partition.name or partition.label or kind,
        type=kind or name or number,
        type_uuid=number or known,
    )


def _check(contract: Contract) -> None:
    if contract.version != 1:
        raise _Wrong("", f"it has version {contract.version}; this vmtests reads version 1", _WHOLE)
    _check_partitions(contract)
    _check_sizes(contract)
    names = {partition.name for partition in contract.partition}
    if contract.store != Store():
        _check_store(contract, names)
    places: set[str] = set()
    for section in ("mount", "stage1_mount"):
        for index, mount in enumerate(getattr(contract, section)):
            place = f"{section}[{index}]"
            if not mount.where.startswith("/"):
                raise _Wrong(f"{place}.where", f"{mount.where!r} is no absolute path")
            if mount.where != (tidy := "/" + posixpath.normpath(mount.where).lstrip("/")):
                raise _Wrong(f"{place}.where", f"no mount is called {mount.where!r}", f"the kernel calls it {tidy}")
            if mount.partition and mount.partition not in names:
                text = f"{mount.where} is of a partition `{mount.partition}` that the contract does not have"
                raise _Wrong(f"{place}.partition", text, _nearest(mount.partition, sorted(names)) if names else None)
            if mount.where in places:
                raise _Wrong(f"{place}.where", f"{mount.where} is promised twice")
            places.add(mount.where)
    for key in ("ready", "active", "may_fail"):
        value = getattr(contract.units, key)
        name = _UNIT if key == "ready" else _SERVICE
        for unit in (value,) if isinstance(value, str) else value:
            if not name.fullmatch(unit.replace("*", "x").replace("?", "x")):
                raise _Wrong(f"units.{key}", f"{unit!r} is no name of a unit", "as in multi-user.target, ssh.service")


def _check_partitions(contract: Contract) -> None:
    names: set[str] = set()
    for index, partition in enumerate(contract.partition):
        place = f"partition[{index}]"
        if not partition.label and not partition.type_uuid and not partition.type:
            raise _Wrong(place, "it has neither a label nor a type by which to find it")
        if (units := len(partition.label.encode("utf-16-le", "surrogatepass")) // 2) > GPT_LABEL_LIMIT:
            text = f"partition label {partition.label!r} has {units} characters"
            raise _Wrong(f"{place}.label", text, f"GPT allows 1 to {GPT_LABEL_LIMIT}")
        if partition.type and not partition.type_uuid:
            raise _Wrong(f"{place}.type", f"no partition type is called {partition.type!r}", _nearest_type(partition))
        try:
            kind = TYPES.get(uuid.UUID(partition.type_uuid)) if partition.type_uuid else None
        except ValueError:
            raise _Wrong(f"{place}.type_uuid", f"{partition.type_uuid!r} is no UUID") from None
        if kind is not None and partition.type != kind:
            text = f"{partition.type_uuid} is the type {kind}, and not {partition.type}"
            raise _Wrong(f"{place}.type_uuid", text)
        if partition.name in names:
            raise _Wrong(place, f"two partitions are called {partition.name}", "give one of them another name =")
        names.add(partition.name)
        if partition.copies < 1:
            raise _Wrong(f"{place}.copies", f"there cannot be {partition.copies} of it")
        if partition.grow and partition is not contract.partition[-1]:
            raise _Wrong("", "only the last partition can grow")
    for index, partition in enumerate(contract.partition):
        if partition.verity and (partition.verity not in names or partition.verity == partition.name):
            text = f"no other partition is called `{partition.verity}`"
            raise _Wrong(f"partition[{index}].verity", text, _nearest(partition.verity, sorted(names)))


def _nearest_type(partition: Partition) -> str | None:
    return _nearest(partition.type, sorted(set(TYPES.values())))


def _check_sizes(contract: Contract) -> None:
    def size(place: str, text: str | None) -> int:
        try:
            return parse_size(text) if text else 0
        except InputError as error:
            raise _Wrong(place, error.message, error.hint) from None

    disk, total = contract.disk, 0
    if disk.sector_size not in {0, 512, 4096}:
        raise _Wrong("disk.sector_size", f"no disk has sectors of {disk.sector_size} bytes", "512 or 4096")
    whole, step = size("disk.size", disk.size), size("disk.granularity", disk.granularity)
    if whole and step and whole % step:
        raise _Wrong("disk.size", f"{disk.size} is no multiple of granularity, {disk.granularity}")
    for index, partition in enumerate(contract.partition):
        place = f"partition[{index}]"
        least = size(f"{place}.size", partition.size)
        most = size(f"{place}.size_max", partition.size_max)
        if most and least > most:
            raise _Wrong(f"{place}.size_max", f"{partition.size_max} is less than size, {partition.size}")
        total += least * partition.copies
    if whole and total > whole:
        raise _Wrong("disk.size", f"partitions of {format_size(total)} do not fit into a disk of {disk.size}")


def _check_store(contract: Contract, names: set[str]) -> None:
    if missing := {"esp", "store", "root"} - names:
        raise _Wrong("", f"a contract with a store needs partitions named {', '.join(sorted(missing))}", _WHOLE)
    for section, keys in (
        ("store", ("mount", "lower", "upper", "work", "mode", "state")),
        ("boot", ("loader", "loader_config", "entry", "kernel", "initrd")),
        ("units", ("make_upper", "find_closure", "activation")),
    ):
        if empty := [key for key in keys if not getattr(getattr(contract, section), key)]:
            raise _Wrong(section, f"a contract with a store needs {', '.join(empty)}", _WHOLE)
    if not contract.stage1_mount:
        raise _Wrong("stage1_mount", "a contract with a store needs the mounts of stage 1", _WHOLE)
    if not contract.disk.sector_size or not contract.disk.granularity:
        raise _Wrong("disk", "a contract with a store needs sector_size and granularity", _WHOLE)


@functools.cache
def default() -> Contract:
    """Return the project's own contract."""
    return load(fixture("contract.toml"))
