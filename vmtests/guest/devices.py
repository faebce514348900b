"""The guest's block devices, as its lsblk(8) tells of them: what a mount is made of, and which is which partition."""

import fnmatch
import shlex
from collections.abc import Iterable, Iterator

import msgspec

from vmtests.contract import MBR_TYPES, Partition
from vmtests.errors import GuestError
from vmtests.guest.facts import Mount
from vmtests.guest.result import Result, Runner

_LSBLK = "lsblk --json --inverse --output NAME,KNAME,PARTLABEL,PARTTYPE,PARTUUID"
_MOST = 1 << 20  # characters of its answer; a disk of a machine has some hundreds
_BY_MBR = {f"0x{number:x}": name for number, name in MBR_TYPES.items()}


class Device(msgspec.Struct):
    """A device, and those that it is made of; `kname` is its name below /dev and /sys/class/block."""

    name: str
    kname: str = ""
    partlabel: str | None = None
    parttype: str | None = None
    partuuid: str | None = None
    children: list["Device"] = []


class _Devices(msgspec.Struct):
    blockdevices: list[Device] = []


def listed(runner: Runner) -> list[Device]:
    """Return the devices that no other is made of; raises GuestError."""
    return _tree(runner.run(_LSBLK))


def under(mount: Mount, runner: Runner) -> list[Device]:
    """Return the device of a mount; raises GuestError."""
    asked = runner.run(f"{_LSBLK} {shlex.quote(f'/dev/block/{mount.device}')}")
    if not asked.ok:  # btrfs has a number of its own
        asked = runner.run(f"{_LSBLK} {shlex.quote(mount.source)}")
    return _tree(asked)


def each(devices: Iterable[Device]) -> Iterator[Device]:
    """Yield devices, each with all that it is made of behind it."""
    for device in devices:
        yield device
        yield from each(device.children)


def is_of(partition: Partition, device: Device) -> bool:
    """Return whether a device is a contract's partition: by its label, else by its type, as of the image's table."""
    if partition.label:
        return fnmatch.fnmatchcase(device.partlabel or "", partition.label)
    kind = (device.parttype or "").lower()
    return kind == partition.type_uuid or _BY_MBR.get(kind) == partition.type


def find(partition: Partition, runner: Runner) -> Device:
    """Return the device of a contract's partition, of several the last; raises GuestError where there is none."""
    if found := [device for device in each(listed(runner)) if is_of(partition, device)]:
        return found[-1]
    raise GuestError(f"the guest has no partition {partition.shown}")


def _tree(asked: Result) -> list[Device]:
    told = asked.check().stdout
    if len(told) > _MOST:
        raise GuestError(f"lsblk in the guest gave no list of devices, but {len(told)} characters")
    try:
        return msgspec.json.decode(told, type=_Devices).blockdevices
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise GuestError(f"lsblk in the guest gave no list of devices: {error}") from error
