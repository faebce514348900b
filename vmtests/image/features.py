"""Features of xfs and btrfs without which a kernel does not mount them, by their superblocks.

xfs: fs/xfs/libxfs/xfs_format.h; btrfs: include/uapi/linux/btrfs.h; of Linux 6.17. Versions are of the first Linux
that mounts a file system with the feature.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vmtests.causes import Cause
from vmtests.image.check import Check, Readable, Version, breach

KNOWN: Version = (6, 17)
"""The newest Linux whose features are known here."""

_ALWAYS: Version = (2, 6)
_REPAIR = "needsrepair"
_XFS_V5 = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _System:
    """Where a superblock has the bits that keep an older kernel from mounting it, as struct's format, and which."""

    place: int
    form: str
    bits: Mapping[int, tuple[str, Version]]


SYSTEMS: Mapping[str, _System] = {
    "xfs": _System(
        place=216,
        form=">I",
        bits={
            0x001: ("ftype", (3, 10)),
            0x002: ("sparse inodes", (4, 2)),
            0x004: ("meta_uuid", (4, 3)),
            0x008: ("bigtime", (5, 10)),
            0x010: (_REPAIR, _ALWAYS),
            0x020: ("nrext64", (5, 19)),
            0x040: ("exchange", (6, 10)),
            0x080: ("parent", (6, 10)),
            0x100: ("metadir", (6, 13)),
            0x200: ("zoned", (6, 15)),
            0x400: ("zone gaps", (6, 15)),
        },
    ),
    "btrfs": _System(
        place=0x10000 + 0xBC,
        form="<Q",
        bits={
            **dict.fromkeys((0x1, 0x2, 0x4, 0x8, 0x20, 0x40, 0x80, 0x100, 0x200), ("an old one", _ALWAYS)),
            0x00010: ("zstd compression", (4, 14)),
            0x00400: ("metadata_uuid", (5, 0)),
            0x00800: ("raid1c34", (5, 5)),
            0x01000: ("zoned", (5, 12)),
            0x04000: ("raid-stripe-tree", (6, 7)),
            0x10000: ("simple quotas", (6, 7)),
        },
    ),
}
"""By the name of the file system."""


def check(partition: Readable, kind: str, where: str, kernel: Version | None) -> Iterator[Check]:
    """Yield what keeps the file system, one of SYSTEMS, from being mounted by a kernel (major, minor).

    Without `kernel` only what no kernel mounts.
    """
    system = SYSTEMS[kind]
    if kind == "xfs" and partition.read(101, 1)[:1].ljust(1, b"\0")[0] & 0xF < _XFS_V5:
        return  # sb_versionnum: older ones have no such bits
    data = partition.read(system.place, struct.calcsize(system.form))
    if len(data) < struct.calcsize(system.form):
        return
    (found,) = struct.unpack(system.form, data)
    subject = f"{kind} on {where}"
    if unknown := found & ~sum(system.bits):
        text = f"{kind} on {where} has unknown features: incompat bits {unknown:#x}"
        yield breach(subject, "features", f"{unknown:#x}", text, f"mkfs.{kind} without them", cause=Cause.MOUNT_FAILED)
    for bit, (name, since) in system.bits.items():
        if found & bit and name == _REPAIR:
            text = f"{kind} on {where} says that it has to be repaired, and is not mounted before"
            yield breach(subject, "state of repair", name, text, "run xfs_repair", cause=Cause.MOUNT_FAILED)
        elif found & bit and kernel is not None and kernel < since:
            wanted, has = (".".join(map(str, version)) for version in (since, kernel))
            text = f"{kind} on {where} has {name}, since Linux {wanted}; the image's kernel is {has}"
            hint = f"a newer kernel, or mkfs.{kind} without it"
            yield breach(subject, f"feature {name}", f"Linux {wanted} or newer", text, hint, cause=Cause.MOUNT_FAILED)
