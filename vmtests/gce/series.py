"""What differs between the series of machine types: disks, network cards, and what becomes of them in maintenance."""

import re

# Since the third generation machines have no other card than gVNIC ("Using Google Virtual NIC"); `custom` is N1's.
_OLD_CARDS = re.compile(r"(?:custom|e2|f1|g1|n1|n2|n2d|c2|c2d|t2d|m1|m2|a2|g2)-")
# "Hyperdisk overview", machine series support: these take no Persistent Disk.
_HYPERDISK_ONLY = re.compile(r"(?:n4|n4a|n4d|c4|c4a|c4d|h4d|m4|m4n|x4|a3-ultragpu|a4|a4x|g4)-")
# "Live migration process during maintenance events", limitations: those with accelerators, and H series.
_STAY = re.compile(r"(?:a2|a3|a4|a4x|g2|g4|h3|h4d)-")
# The others that take Hyperdisk Balanced as boot disk at all.
_HYPERDISK_TOO = re.compile(r"(?:c3|c3d|n2|n2d|c2|c2d|m1|m2|m3|a3|h3|z3|t2d)-")


def card(machine: str) -> str:
    """Return the kind of network card that a machine type has."""
    return "VIRTIO_NET" if _OLD_CARDS.match(machine) else "GVNIC"


def disk_type(machine: str) -> str:
    """Return the type of boot disk that a machine type takes, and that costs least among the fast ones."""
    return "hyperdisk-balanced" if _HYPERDISK_ONLY.match(machine) else "pd-balanced"


def migrates(machine: str) -> bool:
    """Whether a machine of the type may be moved to another host; one that may not has to be ordered as such."""
    return not _STAY.match(machine)


def takes(machine: str, kind: str) -> bool:
    """Whether a machine type takes a type of boot disk; what is not known here is left to Compute Engine."""
    if kind.startswith("pd-"):
        return not _HYPERDISK_ONLY.match(machine)
    return kind != "hyperdisk-balanced" or bool(_HYPERDISK_ONLY.match(machine) or _HYPERDISK_TOO.match(machine))
