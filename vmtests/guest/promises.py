"""A running guest held to its contract: what of its promises is broken, sentence by sentence."""

import re
import shlex
from collections.abc import Iterator

from vmtests.contract import Contract, Partition
from vmtests.errors import GuestError
from vmtests.guest import devices, inits
from vmtests.guest.devices import Device
from vmtests.guest.facts import Facts, Mount, Mounts
from vmtests.guest.result import Runner
from vmtests.text import clean

_VERITY = re.compile(r"^/sys/block/(dm-\d+)/dm/uuid:", re.MULTILINE)


def broken(contract: Contract, runner: Runner) -> tuple[str, ...]:
    """Return what is broken of the promises that can be seen in a guest that is up, a sentence each.

    Raises GuestError when the guest cannot be asked.
    """
    return (*units(contract, runner), *mounts(contract, runner), *verity(contract, runner))


def units(contract: Contract, runner: Runner) -> Iterator[str]:
    """Yield what is broken of the promises on units: none has failed, and those that have to be are active.

    A unit is what the guest's init calls a service.
    """
    promised = contract.units
    init = inits.find(runner)
    if init is None:
        first = clean(inits.first_process(runner)) if promised.active else ""
        for name in promised.active:
            yield f"{name} is not known to be active: nobody can ask the guest's init, `{first}`"
        return
    for name in promised.broken(init.failed(runner)):
        yield f"{clean(name)} has failed"
    for name in promised.active:
        service = init.service(runner, name)
        if not service.there:
            yield f"{name} is not there ({init.name}: {clean(service.words)})"
        elif not service.up:
            yield f"{name} is not active ({init.name}: {clean(service.words)})"


def mounts(contract: Contract, runner: Runner) -> Iterator[str]:
    """Yield what is broken of the promises on mounts."""
    if not contract.mount:
        return
    there = _there(contract, runner)
    for promised in contract.mount:
        try:
            real = there.top(promised.where)
        except GuestError:
            yield f"nothing is mounted at {promised.where}"
            continue
        if promised.filesystem and real.fstype != promised.filesystem:
            yield f"{promised.where} is {clean(real.fstype)}, and not {promised.filesystem}"
        for option in promised.options:
            held = (not real.read_only) if option == "rw" else option in real.options | real.super_options
            if not held:
                shown = ",".join(sorted(real.options))
                yield f"{promised.where} is mounted without {option}: {clean(shown)}"
        if promised.partition:
            partition = contract.by_name(promised.partition)
            yield from source(partition, real, runner)
            if partition.read_only and not real.read_only:
                yield f"{promised.where} can be written to, and the partition {partition.shown} is read-only"


def _there(contract: Contract, runner: Runner) -> Mounts:
    """Return the guest's mounts, those with them that are made when somebody looks (systemd-gpt-auto-generator(8))."""
    places = shlex.join(mount.where for mount in contract.mount)
    runner.run(f'for place in {places}; do [ -e "$place/." ]; done')
    return Facts(runner).mounts()


def source(partition: Partition, mount: Mount, runner: Runner) -> Iterator[str]:
    """Yield a sentence when a mount is not of a partition, also where dm-crypt, verity or LVM are between them."""
    below = list(devices.each(devices.under(mount, runner)))
    if not any(devices.is_of(partition, device) for device in below):
        names = ", ".join(f"{device.name} `{device.partlabel or ''}`" for device in below) or mount.source
        yield f"{mount.target} is not of the partition {partition.shown}: it is of {clean(names)}"


def is_hash_tree(filesystem: str) -> bool:
    """Return whether a file system, as blkid names it, is the hash tree of dm-verity."""
    return filesystem.lower() == "dm_verity_hash"


def verity(contract: Contract, runner: Runner) -> Iterator[str]:
    """Yield a sentence when a partition that verity is to protect is not read through it, where it is mounted."""
    promised = [partition for partition in contract.partition if partition.verity]
    if not promised:
        return
    told = runner.run("grep -s '^CRYPT-VERITY-' /sys/block/dm-*/dm/uuid /dev/null").stdout
    made = set(_VERITY.findall(told))
    there = _there(contract, runner)
    for partition in promised:
        hashes = contract.by_name(partition.verity)
        places = [mount.where for mount in contract.mount if mount.partition == partition.name]
        for mount in (there.top(place) for place in places if there.at(place)):
            if not _protected(partition, hashes, devices.under(mount, runner), made):
                yield f"{mount.target} is not read through dm-verity over the partition {partition.shown}"
        if not places and not (made and _protected(partition, hashes, devices.listed(runner), made)):
            yield f"no device of dm-verity is there for the partition {partition.shown}"


def _protected(partition: Partition, hashes: Partition, found: list[Device], made: set[str]) -> bool:
    """Return whether one of the devices `made` by dm-verity is among `found`, and is made of both partitions."""
    over = (list(devices.each(device.children)) for device in devices.each(found) if device.kname in made)
    return any(all(any(devices.is_of(part, one) for one in below) for part in (partition, hashes)) for below in over)
