"""Static truth about a disk image: everything a boot needs that can be known without one."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from vmtests import contract as contracts
from vmtests.causes import Cause
from vmtests.contract import Contract, Partition, Promise
from vmtests.host.tools import Toolbox
from vmtests.image import erofs, esp, ext4, fat, features, gpt, initramfs, layout, promised
from vmtests.image.chain import Chain
from vmtests.image.check import Check, Slice, Status, Word, breach, clean, note, passed
from vmtests.image.erofsfiles import ErofsFiles
from vmtests.image.extfiles import ExtFiles
from vmtests.image.fatfiles import FatFiles
from vmtests.image.files import FilesError
from vmtests.image.layout import Volume
from vmtests.image.source import Format, Source, open_disk
from vmtests.sizes import format_size

_BREACHES, _NOTES, _PARTITIONS = 6, 4, 8  # that fit on a screen, with their hints
_STYLES = {Status.OK: "green", Status.NOTE: "yellow", Status.BREACH: "red"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """All checks of an image, in the order of the disk; `size` is that of the disk in bytes, `labels` are those of the
    partitions in its table, `steps` the way from firmware to kernel where it was followed, `files` the paths of
    what was started or read on it.
    """

    path: Path
    format: Format
    size: int
    checks: tuple[Check, ...]
    labels: frozenset[str] = frozenset()
    packing: str = ""
    volumes: tuple[Volume, ...] = ()
    steps: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    contract: Contract = field(default_factory=contracts.default)
    """What the image was held to."""
    sector_size: int = 512
    """Bytes in a sector, by its GPT."""
    bios_only: bool = False
    """Whether only a BIOS starts it."""
    listens: frozenset[str] = frozenset()
    """Who in it listens to its host, as far as that is seen: `cloud-init`, `ignition`, `qemu-guest-agent`."""

    def talks_on(self, console: str) -> bool:
        """Whether the kernel's command line, as far as it was seen, has a `console=` that begins so."""
        told = (check.value.split() for check in self.checks if check.what == Word.CONSOLE and check.ok)
        return any(word.startswith(console) for words in told for word in words)

    @property
    def disc(self) -> bool:
        """Whether it is a CD-ROM image, and no disk."""
        return any(
            not item.number and item.system is not None and item.system.type == "iso9660" for item in self.volumes[:1]
        )

    @property
    def command_line(self) -> str:
        """What the boot loader gives the kernel; empty where its way was not followed."""
        return next((check.value for check in self.checks if check.what == Word.COMMAND_LINE), "")

    @property
    def root(self) -> str:
        """What `root=` of the kernel's command line names; empty where nothing is known of it."""
        return next((check.value for check in self.checks if check.what == Word.ROOT), "")

    @property
    def names(self) -> dict[str, str]:
        """By what a boot may ask for a partition, as `UUID=` or `PARTLABEL=` (udev's links), and which one it is."""
        named: dict[str, str] = {}
        for volume in self.volumes:
            system = volume.system
            words = {"PARTUUID": volume.unique, "PARTLABEL": volume.label}
            words |= {} if system is None else {"UUID": system.uuid, "LABEL": system.label}
            named |= {f"{key}={value}": volume.where for key, value in words.items() if value}
        return named

    @property
    def breaches(self) -> tuple[Check, ...]:
        """The checks that name a fault."""
        return tuple(check for check in self.checks if not check.ok)

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against booting the image."""
        return not self.breaches

    def to_json(self) -> dict[str, object]:
        """Return the inspection as JSON data; docs/inspect.md has its fields."""
        return {
            "image": clean(str(self.path)),
            "format": self.format.value,
            "packing": self.packing,
            "contract": self.contract.origin,
            "size": self.size,
            "sector_size": self.sector_size,
            "bios_only": self.bios_only,
            "disc": self.disc,
            "listens": sorted(self.listens),
            "ok": self.ok,
            "breaches": [check.sentence for check in self.breaches],
            "notes": [check.sentence for check in self.checks if check.status is Status.NOTE],
            "partitions": [volume.to_json() for volume in self.volumes],
            "boot": list(self.steps),
            "checks": [check.to_json() for check in self.checks],
        }

    def render(self, console: Console, *, everything: bool = False) -> None:
        """Print what is wrong, what is worth a sentence, the partitions and the way to boot, then the verdict.

        It is about a screen, what is wrong first and how much more there is. With `everything` nothing is left out,
        and a table of all checks comes before that.
        """
        if everything:
            rows = RichTable(box=None, pad_edge=False)
            for column in ("subject", "check", "value", ""):
                rows.add_column(column, overflow="fold")
            for check in self.checks:
                shown = Text(check.status.value, style=_STYLES[check.status])
                rows.add_row(Text(check.subject), Text(check.what), Text(check.value), shown)
            console.print(rows)
        for status, most in ((Status.BREACH, _BREACHES), (Status.NOTE, _NOTES)):
            told = [check for check in self.checks if check.status is status]
            for check in told if everything else told[:most]:
                console.print(Text.assemble((f"{status}: ", _STYLES[status]), check.sentence), soft_wrap=True)
                if check.advice:
                    console.print(Text(f"  hint: {check.advice}"), soft_wrap=True)
            if not everything and len(told) > most:
                console.print(Text(f"{len(told) - most} more {status} lines: --all shows them"), soft_wrap=True)
        parts = RichTable(box=None, pad_edge=False, show_header=False)
        for volume in self.volumes if everything else self.volumes[:_PARTITIONS]:
            system = "no file system" if volume.system is None else volume.system.type
            size = format_size(volume.content.size)
            parts.add_row(
                *(Text(clean(text)) for text in (str(volume.number), volume.label, volume.type, size, system))
            )
        if self.volumes:
            console.print(parts)
        if not everything and len(self.volumes) > _PARTITIONS:
            console.print(Text(f"{len(self.volumes) - _PARTITIONS} more partitions: --all shows them"))
        if self.steps:
            console.print(Text(f"boot: {' → '.join(self.steps)}"), soft_wrap=True)
        count = len(self.breaches)
        verdict = "ok" if self.ok else f"{count} breach{'es' if count > 1 else ''}"
        form = f"{self.format}.{self.packing}" if self.packing and self.format is not Format.ARCHIVE else self.format
        name = f"{clean(str(self.path))} ({form}, {format_size(self.size)}): "
        console.print(Text.assemble(name, (verdict, "green" if self.ok else "red")), soft_wrap=True)


def inspect(
    path: Path, contract: Contract | None, toolbox: Toolbox, *, form: Format | None = None, direct: bool = False
) -> Inspection:
    """Check the image `path`, without booting or changing it.

    It is held against `contract`; without one, an image of the project's own layout against the project's, and any
    other only against what any image promises: that firmware, loader and kernel find what they look for. With `form`
    it is a disk of that format, whatever it looks like. With `direct` somebody starts a kernel without its boot
    loader, and nothing is said of that.

    Faults of the image are breaches of the result. Raises InputError when the path is no disk image that can be read
    whole, HostError when the host cannot read it.
    """
    with open_disk(path, toolbox, form=form, direct=direct) as disk:
        default = contracts.default()
        size = gpt.sector_size(disk) or (contract or default).disk.sector_size or default.disk.sector_size
        if gpt.sector_size(disk) is None and not gpt.is_protective(disk):
            table = gpt.Table(sector_size=size, header=None, entries=(), checks=())
        else:
            table = gpt.read(disk, size)
        found = layout.volumes(disk, table)
        held = contract or (default if is_ours(default, found) else contracts.ANY)
        if Promise.STORE not in held.promises and table.header is not None and layout.by_mbr(disk):
            text = "a GPT is left from before: firmware and Linux go by the MBR, which has no entry of type EE"
            left = note(Word.PROTECTIVE_MBR, "type", "MBR", text)
            table = gpt.Table(sector_size=size, header=None, entries=(), checks=(left,))
            found = layout.volumes(disk, table)
        chain = Chain(disk, table, found, toolbox)
        if Promise.STORE in held.promises:
            checks = tuple(_checks(disk, table, held, toolbox))
        else:
            checks = tuple(_any(disk, table, found, None if direct else chain))
            if held.origin:
                known = gpt.sector_size(disk)
                # What the contract says of it comes first: it is what somebody wants to know.
                checks = (*promised.check(held, disk, known, found, chain), *checks)
        return Inspection(
            path=path,
            format=disk.format,
            packing=disk.packing,
            size=disk.size,
            checks=checks,
            labels=frozenset(clean(entry.label) for entry in table.entries),
            volumes=tuple(found),
            steps=tuple(clean(step) for step in chain.trail.steps),
            files=tuple(chain.trail.files),
            contract=held,
            sector_size=gpt.sector_size(disk) or 512,
            bios_only=chain.bios_only,
            listens=chain.listens(),
        )


def is_ours(contract: Contract, volumes: list[Volume]) -> bool:
    """Return whether a disk has the layout of a contract with a store.

    That is its label, or what could be one that is labelled otherwise: its file system and type, beside ESP and root.
    """
    labels = {volume.label for volume in volumes}
    store, others = contract.store_partition, {contract.esp.label, contract.root.label}
    alike = any(
        volume.label not in others
        and volume.type == store.type
        and volume.system is not None
        and volume.system.type == store.filesystem
        for volume in volumes
    )
    return store.label in labels or (others <= labels and alike)


def _any(disk: Source, table: gpt.Table, volumes: list[Volume], chain: Chain | None) -> Iterator[Check]:
    """Check a disk that somebody else has laid out."""
    yield from disk.checks
    for check in table.checks:
        if check.subject == Word.PROTECTIVE_MBR and not check.ok:
            continue  # what firmware makes of it belongs to its way
        # Of two copies one is enough; two partitions in one place, or of one GUID, are for Linux what they are.
        one_is_good = table.header is not None
        yield replace(check, status=Status.NOTE) if one_is_good and not check.ok else check
    if table.header is None and any(not check.ok for check in table.checks):
        return
    way: list[Check] = []
    try:
        way += [] if chain is None else chain.check()
    except FilesError as error:
        text = f"the files that the boot needs cannot be read: {error}"
        way.append(breach("boot", "files", "unreadable", text, cause=Cause.ESP_UNREADABLE))
    root = None if chain is None else chain.trail.root
    kernel = None if chain is None else chain.trail.kernel
    for volume in volumes:
        # Where it is known which one is root, nothing waits for the others but firmware for the ESP.
        needed = root is None or volume is root or volume.type in (layout.ESP, layout.XBOOTLDR)
        for check in (*layout.check(volume), *_superblock(volume, kernel if volume is root else None)):
            yield check if needed or check.ok else replace(check, status=Status.NOTE)
    yield from way


def _superblock(volume: Volume, kernel: tuple[int, int] | None) -> Iterator[Check]:
    """Check a file system as far as no kernel would mount it; what fsck or root's options mend is a note.

    With `kernel`, which mounts it, it is held against what that one knows.
    """
    kind = "" if volume.system is None else volume.system.type
    found: Iterator[Check] = iter(())
    if kind == "erofs":
        found = erofs.check(volume.content, volume.where, kernel)
    elif kind.startswith("ext"):
        found = ext4.check(volume.content, volume.where, kernel)
    elif kind in features.SYSTEMS:
        found = features.check(volume.content, kind, volume.where, kernel)
    for check in found:
        mended = check.what == Word.STATE or check.cause is Cause.ROOT_READ_ONLY
        # A kernel that is newer than what is known here may know more.
        guessed = check.what == "features" and kernel is not None and kernel > features.KNOWN
        if not check.ok and check.what != Word.SIZE:
            yield replace(check, status=Status.NOTE) if mended or guessed else check


def _sector_size(disk: Source, contract: Contract) -> int:
    return gpt.sector_size(disk) or contract.disk.sector_size


def _checks(disk: Source, table: gpt.Table, contract: Contract, toolbox: Toolbox) -> Iterator[Check]:
    yield from disk.checks
    yield from _disk(disk, contract)
    sector_size = _sector_size(disk, contract)
    if sector_size != contract.disk.sector_size:
        text = f"the GPT has sectors of {sector_size} bytes; the contract has {contract.disk.sector_size}"
        yield breach("GPT", "sector size", sector_size, text, "systemd-repart --sector-size=512")
    yield from table.checks
    if table.header is None:
        if not table.checks:
            text = "there is no GPT, by which firmware and stage 1 find the partitions of the contract"
            yield breach("GPT", "header", "none", text, cause=Cause.GPT_DESTROYED)
            yield from _partitions(contract, table, {})
        return
    found = match(contract, table.entries)
    yield from _partitions(contract, table, found)
    kernel: tuple[int, int] | None = None
    init = ""
    contents: dict[str, Slice] = {}
    # The ESP first, whatever its place: it tells which kernel has to read the others.
    for partition in sorted(contract.partition, key=lambda item: item.name != "esp"):
        entry = found.get(partition.name)
        if entry is None or entry.last_lba < entry.first_lba:
            continue
        content = contents[partition.name] = Slice(disk, table.start(entry), table.length(entry))
        where = _where(entry)
        if partition.filesystem == "vfat":
            yield from _of(partition, esp.check_boot_sector(content, where))
            there = fat.parse(content.read(0, 512)) is not None and partition.name == "esp"
            if there and (files := layout.fat_files(content, disk)) is not None:
                kernel, init = yield from _esp(partition, files, contract, toolbox)
        elif partition.filesystem == "erofs":
            yield from _of(partition, erofs.check(content, where, kernel))
        elif partition.filesystem == "ext4":
            yield from _of(partition, ext4.check(content, where, kernel))
        else:
            text = f"{partition.filesystem} on {where} was not looked into"
            yield note(where, "file system", partition.filesystem, text)
    if init and (lower := contents.get("store")) is not None:
        yield from _of(contract.store_partition, _init(init, contract, lower, contents.get("root")))


def _of(partition: Partition, checks: Iterator[Check]) -> Iterator[Check]:
    """Yield checks of a partition under its name in the contract."""
    for check in checks:
        yield replace(check, part=partition.name)


def _esp(
    partition: Partition, files: FatFiles, contract: Contract, toolbox: Toolbox
) -> Generator[Check, None, tuple[tuple[int, int] | None, str]]:
    """Check the files of the ESP, and the initrd against the kernel that is there.

    Gives the kernel's version, and what init= says where it is in the store.
    """
    release, init = None, ""
    initrd = False
    checks = esp.check_files(files, contract)
    while True:
        try:
            check = next(checks)
        except StopIteration as end:
            version: tuple[int, int] | None = end.value
            break
        yield replace(check, part=partition.name)
        if check.ok and check.what == Word.KERNEL_RELEASE:
            release = check.value
        if check.ok and check.what == Word.INIT:
            init = check.value
        initrd |= check.ok and check.what == Word.INITRD
    if initrd and (path := files.find(contract.boot.initrd)) is not None:
        chunks = files.chunks(path, 0, initramfs.LIMIT)
        wanted = initramfs.wanted(contract)
        yield from _of(partition, initramfs.check_release(chunks, path, release, toolbox, wanted=wanted))
    return version, init


def _init(init: str, contract: Contract, lower: Slice, root: Slice | None) -> Iterator[Check]:
    """Check that the store path of init= is in the lower layer of the store, or else in the upper one.

    Says nothing where the file systems cannot be read: that is another check's.
    """
    name = init.removeprefix(f"{contract.store.mount}/").split("/")[0]
    try:
        there = any(name == entry for entry, _ in ErofsFiles(lower).top())
        if not there and root is not None and contract.store.upper:
            there = ExtFiles(root).find(f"{contract.store.upper}/{name}") is not None
    except FilesError:
        return
    if there:
        yield passed("store", "init", name)
    else:
        text = f"init={clean(init)} on the kernel's command line is in no store path of the image"
        yield breach("store", "init", clean(name), text, cause=Cause.INIT_MISSING)


def match(contract: Contract, entries: tuple[gpt.Entry, ...]) -> dict[str, gpt.Entry]:
    """Return the entry of each partition of the contract, by its name there.

    A partition is found by its label; else what stands in its place is taken for it, if that is labelled as
    nothing in the contract.
    """
    found: dict[str, gpt.Entry] = {}
    labels = {partition.label for partition in contract.partition}
    for index, partition in enumerate(contract.partition):
        entry = next((item for item in entries if item.label == partition.label), None)
        if entry is None and index < len(entries) and entries[index].label not in labels:
            entry = entries[index]
        if entry is not None:
            found[partition.name] = entry
    return found


def _where(entry: gpt.Entry) -> str:
    return f"partition `{entry.label}` (entry {entry.number})"


def _disk(disk: Source, contract: Contract) -> Iterator[Check]:
    size, step = disk.size, contract.disk.granularity_bytes
    if size % step == 0:
        yield passed("disk", "size", format_size(size))
    else:
        text = f"the disk has {size} bytes; Compute Engine takes multiples of {format_size(step)} only"
        if disk.format is Format.ARCHIVE:
            yield breach("disk", "size", format_size(size), text, f"truncate -s %{contract.disk.granularity} disk.raw")
        else:
            yield note("disk", "size", format_size(size), text)


def _partitions(contract: Contract, table: gpt.Table, found: dict[str, gpt.Entry]) -> Iterator[Check]:
    for partition in contract.partition:
        yield from _of(partition, _partition(partition, table, found.get(partition.name)))
    known = {entry.number for entry in found.values()}
    for entry in table.entries:
        if entry.number not in known:
            twin = next((item for item in found.values() if item.label == entry.label), None)
            if twin is not None:
                text = f"two partitions are labelled `{entry.label}`: entries {twin.number} and {entry.number}"
                yield breach(_where(entry), "label", entry.label, text, promised.TWINS)
            else:
                yield note(_where(entry), "label", entry.label, f"{_where(entry)} is not in the contract")
    wanted = [partition.name for partition in contract.partition if partition.name in found]
    order = sorted(wanted, key=lambda name: found[name].number)
    if order != wanted:
        real, due = (", ".join(contract.by_name(name).label for name in names) for names in (order, wanted))
        text = f"partitions are in the order {real}; the contract has {due}"
        yield breach("GPT", "order", real, text, "sfdisk --reorder sorts the table by place")
    else:
        yield passed("GPT", "order", ", ".join(found[name].label for name in order))
    root = found.get("root")
    if root is not None and contract.root.grow:
        behind = [entry for entry in table.entries if entry.first_lba > root.last_lba]
        if behind:
            text = f"{_where(root)} is not the last and cannot grow: {_where(behind[0])} is behind it"
            yield breach(_where(root), "place", f"sector {root.first_lba}", text, promised.LAST)
        else:
            yield passed(_where(root), "place", "last")


def _partition(partition: Partition, table: gpt.Table, entry: gpt.Entry | None) -> Iterator[Check]:
    if entry is None or entry.label != partition.label:
        instead = f"; there is `{entry.label}` in its place" if entry else ""
        text = f"no partition labelled `{partition.label}`{instead}"
        found = f"{'mounts look for' if partition.name == 'esp' else 'stage 1 looks for'} {partition.device}"
        if entry is not None:
            hint = f"{found}; sfdisk --part-label DISK {entry.number} {partition.label} names it so"
        elif partition.name == "esp":
            hint = "the firmware starts what is on a partition of type `esp`; in repart.d: Type=esp"
        else:
            hint = f"{found}; in repart.d: Type={partition.type}, Label={partition.label}"
        cause = Cause.ESP_MISSING if entry is None and partition.name == "esp" else Cause.PARTITION_MISSING
        value = entry.label if entry else "missing"
        yield breach(f"partition `{partition.label}`", "label", value, text, hint, cause=cause)
    if entry is None:
        return
    where = _where(entry)
    unreadable = Cause.ESP_UNREADABLE if partition.name == "esp" else None
    if str(entry.type_uuid) != partition.type_uuid.lower():
        text = f"{where} has type {entry.type_uuid}; the contract has {partition.type_uuid}"
        yield breach(where, "type", entry.type_uuid, text, f"repart.d: Type={partition.type}", cause=unreadable)
    else:
        yield passed(where, "type", partition.type)
    size = max(0, table.length(entry))
    if partition.size_bytes is not None and size < partition.size_bytes:
        least = format_size(partition.size_bytes)
        text = f"{where} has {format_size(size)}; the contract asks for {least} at least"
        yield breach(where, "size", format_size(size), text, cause=unreadable)
    else:
        yield passed(where, "size", format_size(size))
