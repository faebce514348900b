"""A disk held to a contract that has no store: partitions, sizes, file systems, verity, and the way to boot."""

import fnmatch
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace

from vmtests.causes import Cause
from vmtests.contract import Contract, Partition
from vmtests.image import layout
from vmtests.image.chain import Chain
from vmtests.image.check import Check, breach, passed
from vmtests.image.cmdline import values
from vmtests.image.layout import Volume
from vmtests.image.source import Source
from vmtests.sizes import format_size

_EMPTY = "_empty"
"""The label of a partition that systemd-sysupdate may fill (sysupdate.d(5), `MatchPattern=`)."""

_ALIKE = {"fat": "vfat", "fat32": "vfat", "luks": "crypto_luks", "lvm": "lvm2_member"}
_HASHES = "dm_verity_hash"

TWINS = "sfdisk --part-label DISK NUMBER LABEL: what is found by its label has to be the only one"
LAST = "systemd-repart adds behind what is there: a partition that grows is made last"
_DIFFERS = "build the image again, or mend the contract where that is what is wrong"


def check(
    contract: Contract, disk: Source, sector_size: int | None, volumes: Sequence[Volume], chain: Chain
) -> Iterator[Check]:
    """Yield what comes of each promise of `contract`; `chain` has been followed."""
    yield from _disk(contract, disk, sector_size)
    found = {partition.name: matching(partition, volumes) for partition in contract.partition}
    for partition in contract.partition:
        yield from _partition(partition, found[partition.name], volumes)
        if partition.verity:
            yield from _verity(contract, partition, found, chain.trail.options)
    yield from _boot(contract, chain)


def matching(partition: Partition, volumes: Sequence[Volume]) -> list[Volume]:
    """Return the volumes that a contract's partition is: by its label, else by its type."""

    def fits(volume: Volume) -> bool:
        if not partition.label:
            return volume.type == partition.type
        return fnmatch.fnmatchcase(volume.label, partition.label)

    found = [volume for volume in volumes if fits(volume)]
    if found and partition.copies > 1:
        found += [volume for volume in volumes if volume.label == _EMPTY and volume.type == found[0].type]
    return found


def _disk(contract: Contract, disk: Source, sector_size: int | None) -> Iterator[Check]:
    wanted, step = contract.disk.sector_size, contract.disk.granularity_bytes
    if wanted and sector_size not in (None, wanted):
        text = f"the GPT has sectors of {sector_size} bytes; the contract has {wanted}"
        yield breach("disk", "sector size", sector_size, text, f"systemd-repart --sector-size={wanted}")
    if disk.size % step:
        text = f"the disk has {disk.size} bytes, which is no multiple of {format_size(step)}"
        yield breach("disk", "size", format_size(disk.size), text, f"truncate --size=%{step} makes it larger")
    if contract.disk.size and disk.size != (size := contract.disk.size_bytes):
        text = f"the disk has {format_size(disk.size)} ({disk.size} bytes); the contract has {format_size(size)}"
        yield breach("disk", "size", format_size(disk.size), text, _DIFFERS)


def _partition(partition: Partition, found: Sequence[Volume], volumes: Sequence[Volume]) -> Iterator[Check]:
    subject = f"partition `{partition.name}`"
    if not found:
        there = ", ".join(f"`{volume.label}`" if volume.label else volume.type for volume in volumes if volume.number)
        text = f"there is no partition {partition.shown}; there is {there or 'none at all'}"
        cause = Cause.ESP_MISSING if partition.type == layout.ESP else Cause.PARTITION_MISSING
        yield _of(partition, breach(subject, "label", "missing", text, cause=cause))
        return
    if len(found) < partition.copies:
        text = f"there is {len(found)} partition {partition.shown} of the {partition.copies} that the contract has"
        yield _of(partition, breach(subject, "copies", len(found), text, _DIFFERS))
    elif partition.label and partition.copies == 1 and len(found) > 1:
        numbers = " and ".join(str(volume.number) for volume in found)
        text = f"two partitions are {partition.shown}: {numbers}"
        yield _of(partition, breach(subject, "label", partition.label, text, TWINS))
    for volume in found if partition.label else found[: partition.copies]:
        for item in _volume(partition, volume, volumes):
            yield _of(partition, item)


def _volume(partition: Partition, volume: Volume, volumes: Sequence[Volume]) -> Iterator[Check]:
    where, size = volume.where, volume.content.size
    if partition.type and volume.type not in {partition.type, partition.type_uuid}:
        text = f"{where} is of type {volume.type}; the contract has {partition.type}"
        yield breach(where, "type", volume.type, text, f"repart.d: Type={partition.type}")
    if partition.size_bytes is not None and size < partition.size_bytes:
        text = f"{where} has {format_size(size)}; the contract asks for {format_size(partition.size_bytes)} at least"
        yield breach(where, "size", format_size(size), text, "repart.d: SizeMinBytes=")
    if partition.size_max_bytes is not None and size > partition.size_max_bytes:
        text = f"{where} has {format_size(size)}; the contract allows {format_size(partition.size_max_bytes)}"
        yield breach(where, "size", format_size(size), text, "repart.d: SizeMaxBytes=")
    if partition.filesystem and volume.label != _EMPTY:
        real = "none" if volume.system is None else volume.system.type
        wanted = partition.filesystem.lower()
        if real.lower() == _ALIKE.get(wanted, wanted):
            yield passed(where, "file system", real)
        else:
            text = f"{where} has file system {real}; the contract has {partition.filesystem}"
            yield breach(where, "file system", real, text, f"repart.d: Format={partition.filesystem}")
    if partition.grow:
        behind = [other for other in volumes if other.content.offset > volume.content.offset]
        if behind:
            text = f"{where} is not the last and cannot grow: {behind[0].where} is behind it"
            yield breach(where, "place", volume.number, text, LAST)
        else:
            yield passed(where, "place", "last")


def _verity(contract: Contract, partition: Partition, found: dict[str, list[Volume]], options: str) -> Iterator[Check]:
    data, hashes = found[partition.name], found[partition.verity]
    if not data or not hashes:
        return  # told already
    for volume in hashes:
        if volume.label != _EMPTY and (volume.system is None or volume.system.type.lower() != _HASHES):
            text = f"{volume.where} has no hash tree of dm-verity"
            yield _of(
                contract.by_name(partition.verity),
                breach(volume.where, "verity", "none", text, "repart.d: Verity=hash"),
            )
    roots = [*values(options, "roothash"), *values(options, "usrhash")]
    if not roots:
        text = f"the kernel's command line has no roothash= or usrhash=: nothing protects {data[0].where}"
        yield _of(partition, breach("boot", "verity", "missing", text, cause=Cause.VERITY_FAILED))
        return
    # systemd-gpt-auto-generator(8): the partitions' UUIDs are the two halves of the hash.
    named = any(values(options, f"systemd.verity_{kind}_data") for kind in ("root", "usr"))
    halves = [(_uuid(root[:32]), _uuid(root[-32:])) for root in roots]
    known = {volume.unique for volume in data}, {volume.unique for volume in hashes}
    if not named and not any(first in known[0] and second in known[1] for first, second in halves):
        text = f"no partition has the UUIDs that the root hash {roots[0][:16]}… asks for: the disk was built anew"
        hint = "data, hash tree and root hash must be of one build"
        yield _of(partition, breach("boot", "verity", roots[0], text, hint, cause=Cause.VERITY_FAILED))
    else:
        yield passed("boot", "verity", roots[0])


def _uuid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return ""


def _boot(contract: Contract, chain: Chain) -> Iterator[Check]:
    boot, gone = contract.boot, [path.lower() for path in chain.trail.files]
    for what in ("loader", "entry", "kernel", "initrd"):
        path = getattr(boot, what)
        if path and path.lower() not in gone:
            way = " → ".join(chain.trail.steps) or "nothing that is started"
            text = f"the boot does not go by the {what} {path} that the contract has: {way}"
            yield breach("boot", what, path, text, _DIFFERS)
        elif path:
            yield passed("boot", what, path)


def _of(partition: Partition, check: Check) -> Check:
    return replace(check, part=partition.name)
