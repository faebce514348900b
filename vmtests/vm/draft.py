"""A first contract of an image that has none: what is on its disk, and what its boot was seen to come to."""

import json
from collections.abc import Iterator

from vmtests.contract import Contract, Partition
from vmtests.guest import inits, promises
from vmtests.guest.facts import Facts
from vmtests.guest.result import Runner
from vmtests.image.inspect import Inspection
from vmtests.image.layout import Volume
from vmtests.text import inert_quoted, printable

_HEAD = """\
# What {name} promises, as it was seen; take away what is chance, and add what it should.
# docs/contract.md says what can be promised.
"""
_OURS = "vmtests-"


def draft(inspection: Inspection, contract: Contract | None = None, runner: Runner | None = None) -> str:
    """Return a contract file as text.

    With `runner`, a guest that is up, it has the guest's mounts and units too; `contract` is then the first part of
    the text, parsed. Raises GuestError when the guest does not tell.
    """
    text = "\n".join([_HEAD.format(name=printable(inspection.path.name)), *_partitions(inspection.volumes)])
    if runner is not None and contract is not None:
        text = "\n".join([text, *_mounts(contract, runner), *_units(contract, runner)])
    return text


def _partitions(volumes: tuple[Volume, ...]) -> Iterator[str]:
    names: dict[str, int] = {}
    hashes = [volume for volume in volumes if promises.is_hash_tree(_system(volume))]
    alike = [(volume.label, volume.type) for volume in volumes]
    done: set[tuple[str, str]] = set()
    for volume in volumes:
        key = (volume.label, volume.type)
        if not volume.number or key in done:
            continue
        done.add(key)
        yield "[[partition]]"
        name = volume.label or volume.type
        names[name] = names.get(name, 0) + 1
        if names[name] > 1:
            yield f"name = {_quoted(f'{name}-{names[name]}')}"
        if volume.label:
            yield f"label = {_quoted(volume.label)}"
        yield f"{'type_uuid' if volume.type.count('-') == 4 else 'type'} = {_quoted(volume.type)}"
        if system := _system(volume):
            yield f"filesystem = {_quoted(system)}"
        if alike.count(key) > 1:
            yield f"copies = {alike.count(key)}"
        pair = next((item for item in hashes if item.type == f"{volume.type}-verity"), None)
        if pair is not None:
            yield f"verity = {_quoted(pair.label or pair.type)}"
        yield ""


def _system(volume: Volume) -> str:
    return "" if volume.system is None else volume.system.type


def _mounts(contract: Contract, runner: Runner) -> Iterator[str]:
    there = Facts(runner).mounts()
    # What is read through dm-verity is of both, and on the data.
    hashes = {item.verity for item in contract.partition}
    parts = [item for item in contract.partition if item.name not in hashes]
    for place in dict.fromkeys(mount.target for mount in there):
        mount = there.top(place)
        if not mount.source.startswith("/dev/") or mount.fstype in {"devtmpfs", "devpts", "autofs"}:
            continue
        partition = next((item for item in parts if _is_on(item, place, contract, runner)), None)
        yield "[[mount]]"
        yield f"where = {_quoted(place)}"
        yield f"filesystem = {_quoted(mount.fstype)}"
        yield f'options = ["{"ro" if mount.read_only else "rw"}"]'
        if partition is not None:
            yield f"partition = {_quoted(partition.name)}"
        yield ""


def _is_on(partition: Partition, place: str, contract: Contract, runner: Runner) -> bool:
    mount = Facts(runner).mounts().top(place)
    return not list(promises.source(contract.by_name(partition.name), mount, runner))


def _units(contract: Contract, runner: Runner) -> Iterator[str]:
    init = inits.find(runner)
    if init is None:
        return
    up, failed = init.up(runner), init.failed(runner)
    if init.name == "systemd":  # which has hundreds of units: those count that somebody asked for
        shown = runner.run(f"systemctl show --property=Wants --value {contract.units.ready}").check().stdout.split()
        up = tuple(name for name in shown if name in up and name.endswith(".service") and not name.startswith(_OURS))
    yield "[units]"
    yield f"active = [{', '.join(map(_quoted, sorted(up)))}]"
    if failed:
        yield "# They failed when this was written: mend them and remove them here."
        yield f"may_fail = [{', '.join(map(_quoted, sorted(failed)))}]"


def _quoted(text: str) -> str:
    """Return a basic string of TOML, whose escapes JSON's are among; it may be printed on a terminal."""
    quoted = json.dumps(text, ensure_ascii=False)  # JSON's escapes of what is behind U+FFFF are none in TOML
    return inert_quoted("".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in quoted))
