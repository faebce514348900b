"""Partitions by the names that a command line or an fstab gives them: `UUID=`, `PARTLABEL=`, udev's links."""

from collections.abc import Sequence

from vmtests.image.filesystem import UNNAMED
from vmtests.image.layout import Volume

LINKS = {"/dev/disk/by-uuid/": "UUID", "/dev/disk/by-partuuid/": "PARTUUID", "/dev/disk/by-label/": "LABEL",
         "/dev/disk/by-partlabel/": "PARTLABEL"}  # fmt: skip
"""Directories of links, and the key that means the same."""


def key(device: str) -> tuple[str, str]:
    """Return by what a device is named, one of LINKS' keys where it is, and the name."""
    for link, name in LINKS.items():
        if device.startswith(link):
            return name, device.removeprefix(link)
    kind, _, value = device.strip('"').partition("=")
    return kind, value.strip('"')


def have(volume: Volume, kind: str) -> str:
    """Return a volume's name of a kind."""
    names = {"PARTUUID": volume.unique, "PARTLABEL": volume.label}
    if volume.system is not None:
        system = volume.system.inner or volume.system
        names |= {"UUID": system.uuid, "LABEL": system.label}
    return names.get(kind, "")


def known(kind: str, value: str) -> bool:
    """Whether a name can be looked for: a boot loader's variable, and what udev writes otherwise, are not put in."""
    return kind in LINKS.values() and not set("\\$") & set(value)


def told(volumes: Sequence[Volume], kind: str) -> bool:
    """Whether all names of a kind are known: of some file systems UUID and label are not read."""
    return kind.startswith("PART") or not any(
        volume.system is not None and volume.system.type in UNNAMED for volume in volumes
    )


def fitting(volumes: Sequence[Volume], kind: str, value: str) -> list[Volume]:
    """Return the volumes that a name of a kind fits; of numbers, but not of labels, the case does not count."""
    folded = str.lower if kind.endswith("UUID") else str
    return [volume for volume in volumes if value and folded(have(volume, kind)) == folded(value)]
