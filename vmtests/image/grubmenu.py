"""How GRUB comes to a kernel: which configurations it reads, and what the entry that it starts names on the disk."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from vmtests.causes import Cause
from vmtests.host.architecture import GUEST
from vmtests.image import grub, linux, loader, named
from vmtests.image.check import Check, breach, clean, note, passed
from vmtests.image.files import Files, FilesError
from vmtests.image.layout import Volume
from vmtests.image.menus import names, waiting
from vmtests.image.trail import SUBJECT, Trail, text

_PREFIX = re.compile(rb"/(?:EFI|efi)/[A-Za-z0-9_.-]{1,40}")
_BLOCK = 1 << 12  # bytes of an environment block, which has 1024
_WHOLE = 8 << 20  # bytes of a boot loader
_STEPS = 4  # from one configuration to another
_BY_NAME = {"uuid": "UUID", "label": "LABEL"}
_NO_FILES = frozenset({"swap", "DM_verity_hash"})
_BIOS = {"grub_cpu": "i386", "grub_platform": "pc"}
_EFI = {"grub_cpu": GUEST.qemu_name, "grub_platform": "efi"}


class _Around:
    """What a script on `volume` finds on the disk."""

    def __init__(self, trail: Trail, volume: Volume) -> None:
        self._trail = trail
        self._volume = volume

    def look(self, operator: str, device: grub.Device | None, path: str) -> bool | None:
        """Return whether a file is as one of the operators of `test` asks for; None where that is not known."""
        try:
            if (files := self._files(device)) is None:
                return None
            directory = files.directory(path)
            real = None if directory else files.find(path)
            sized = real is not None and (operator != "-s" or bool(files.read(real, 1)))
        except FilesError:
            return None
        return directory if operator == "-d" else sized or (directory and operator == "-e")

    def environment(self, device: grub.Device | None, path: str) -> Mapping[str, str] | None:
        """Return the variables of a file; None where it cannot be read here."""
        try:
            return None if (files := self._files(device)) is None else _environment(files, path)
        except FilesError:
            return None

    def entries(self, device: grub.Device | None, variables: Mapping[str, str]) -> list[grub.MenuEntry]:
        """Return what `blscfg` puts into the menu: the Boot Loader Specification's entries, in its order."""
        if (files := self._files(device)) is None:
            return []
        found = [
            loader.parse(text(files, path), path)
            for directory in grub.ENTRIES
            for path in files.below(directory, ".conf")
        ]
        known = [replace(entry, left=None, sort_key="", version="") for entry in found]
        return [
            grub.MenuEntry(
                title=entry.title,
                identifier=entry.id.removesuffix(".conf"),
                kernel=grub.expand(entry.kernel or "", variables),
                options=grub.expand(entry.options, variables),
                initrds=tuple(word for line in entry.initrds for word in grub.expand(line, variables).split() if word),
            )
            for entry in loader.order(known)
        ]

    def _files(self, device: grub.Device | None) -> Files | None:
        volume = _found(self._trail, device, self._volume)
        return None if volume is None else self._trail.open(volume)


def follow(trail: Trail, esp: Volume | None, program: str) -> Iterator[Check]:
    """Follow GRUB, by the first menu that is found where its prefix and distributions have one."""
    own = _BIOS if esp is None else _EFI
    wanted: grub.Device | None = None
    if esp is not None:
        for place in _configurations(trail.open(esp), program):
            menu = _parsed(trail, esp, place, own)
            # That of what it goes on to: $root may be another.
            device = next((device for device, _ in menu.onward if device is not None), menu.device)
            wanted = wanted or device
            if menu.entries:
                yield from _menu(trail, esp, menu, place)
                return
            if onward := _onward(trail, esp, menu, own):
                yield from _menu(trail, *onward)
                return
            there = device and _found(trail, device, esp)
            if there and there is not esp and any(trail.has(there, menu_place) for menu_place in grub.PLACES):
                break  # it goes on there; what else is on the ESP is read by nobody
    there = None if wanted is None else _found(trail, wanted, esp)
    order = [*([there] if there else []), *(volume for volume in trail.volumes if volume not in (there, esp))]
    for volume in [*order, *([esp] if esp else [])]:
        for place in grub.PLACES:
            if not trail.has(volume, place):
                continue
            try:
                menu = _parsed(trail, volume, place, own)
            except FilesError as error:
                yield note(SUBJECT, "GRUB", "not followed", f"{place} on {volume.where} cannot be read: {error}")
                return
            if menu.entries:
                yield from _menu(trail, volume, menu, place)
                return
    if wanted is not None and wanted.kind in _BY_NAME and there is None and _answered(trail, wanted):
        said = f"GRUB looks for the file system {clean(wanted.value)}, which is not on the disk"
        yield breach(SUBJECT, "GRUB", wanted.value, said, cause=Cause.BOOTLOADER_ERROR)
        return
    yield note(SUBJECT, "GRUB", "not followed", "no grub.cfg with a menu was found where it can be read here")


def _parsed(
    trail: Trail, volume: Volume, place: str, own: Mapping[str, str], root: grub.Device | None = None
) -> grub.Menu:
    """Return the menu of a configuration on a volume; raises FilesError."""
    files = trail.open(volume)
    assert files is not None
    directory = place.rpartition("/")[0]
    return grub.parse(
        text(files, place),
        _environment(files, f"{directory}/grubenv"),
        own=own,
        place=directory,
        root=root,
        around=_Around(trail, volume),
    )


def _environment(files: Files, path: str) -> dict[str, str]:
    real = files.find(path)
    return {} if real is None else grub.environment(files.read(real, _BLOCK).decode("utf-8", errors="replace"))


def _onward(
    trail: Trail, volume: Volume, menu: grub.Menu, own: Mapping[str, str]
) -> tuple[Volume, grub.Menu, str] | None:
    """Return the first menu that a configuration without one goes on to, with its volume and place."""
    for _ in range(_STEPS):
        for device, place in menu.onward:
            target = _found(trail, device, volume)
            if target is not None and "$" not in place and trail.has(target, place):
                found = _parsed(trail, target, place, own, menu.device)
                if found.entries:
                    return target, found, place
                volume, menu = target, found
                break
        else:
            return None
    return None


def _configurations(files: Files | None, program: str) -> list[str]:
    """Return the configurations on the ESP, those first that GRUB's program has the directory of."""
    found = [path for path in names(files) if path.lower().endswith("/grub.cfg")]
    prefixes: list[str] = []
    if files is not None and len(found) > 1:
        known = _PREFIX.findall(files.read(program, _WHOLE))
        prefixes = [prefix.decode("ascii").lower() for prefix in known]
    beside = program.rpartition("/")[0].lower()

    def rank(path: str) -> tuple[bool, bool]:
        directory = path.rpartition("/")[0].lower()
        return directory not in prefixes, directory != beside

    return sorted(found, key=rank)


def _found(trail: Trail, device: grub.Device | None, menu: Volume | None) -> Volume | None:
    """Return the volume that a device is, or that `search` finds: of these, that of the menu is looked at first."""
    if device is None:
        return menu
    if device.kind == "device":
        number = grub.partition(device.value)
        return next((volume for volume in trail.volumes if number is not None and volume.number == number), None)
    for volume in [*([menu] if menu else []), *trail.volumes]:
        if device.kind == "file" and trail.has(volume, grub.split(device.value)[1]):
            return volume
        if device.kind in _BY_NAME and named.fitting([volume], _BY_NAME[device.kind], device.value):
            return volume
    return None


def _answered(trail: Trail, device: grub.Device) -> bool:
    """Whether `search` finds no such thing where it is not found here: not all that GRUB reads is read here."""
    if "$" in device.value or trail.hidden:
        return False
    if device.kind in _BY_NAME:
        return named.told(trail.volumes, _BY_NAME[device.kind])
    read = (volume for volume in trail.volumes if volume.system is not None and volume.readable not in _NO_FILES)
    return device.kind == "file" and all(trail.open(volume) is not None for volume in read)


def _menu(trail: Trail, volume: Volume, menu: grub.Menu, place: str) -> Iterator[Check]:
    if menu.waits:
        yield waiting("GRUB", menu.waits, place)
    entry = menu.chosen
    for name in menu.fallback.split():
        if entry is None or not _lacks(trail, volume, entry):
            break
        said = f"kernel {clean(entry.kernel)}, named by {place}, is not there: GRUB falls back to entry {clean(name)}"
        yield note(SUBJECT, "entry", clean(entry.title), said)
        entry = menu.named(name)
    if entry is None or not entry.kernel or any("$" in path for path in (entry.kernel, *entry.initrds)):
        what = f"{place} on {volume.where}" if entry is None else f"what {place} starts first, {clean(entry.title)!r},"
        yield note(SUBJECT, "GRUB", "not followed", f"{what} has scripts, or a loader, that are not followed")
        return
    trail.steps.append(f"{place} {entry.title!r}")
    trail.files.append(place)
    yield passed(SUBJECT, "entry", f"{place} {entry.title!r}")
    target = _target(trail, volume, entry)
    if target is None or entry.scattered:
        where = "several devices" if entry.device is None or entry.scattered else clean(entry.device.value)
        yield note(SUBJECT, "GRUB", "not followed", f"the kernel is on {where}, which is not followed")
        return
    if (there := trail.open(target)) is None:
        yield note(SUBJECT, "GRUB", "not followed", f"the kernel is on {target.where}, which is not read here")
        return
    try:
        yield from linux.entry(trail, there, target, entry.kernel, entry.initrds, entry.options, place)
    except FilesError as error:
        yield note(SUBJECT, "GRUB", "not followed", f"the files of {target.where} cannot be read: {error}")


def _target(trail: Trail, volume: Volume, entry: grub.MenuEntry) -> Volume | None:
    """Return where the kernel of an entry is, None where that is not followed.

    What `search` does not find it leaves as it was: where the menu is.
    """
    found = _found(trail, entry.device, volume)
    return volume if found is None and entry.device is not None and _answered(trail, entry.device) else found


def _lacks(trail: Trail, volume: Volume, entry: grub.MenuEntry) -> bool:
    """Whether the kernel of an entry is surely not there."""
    target = _target(trail, volume, entry)
    try:
        files = None if target is None or "$" in entry.kernel else trail.open(target)
        return files is not None and bool(entry.kernel) and files.find(entry.kernel) is None
    except FilesError:
        return False
