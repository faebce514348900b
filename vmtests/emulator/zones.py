"""Zones and machine types: what Compute Engine has wherever it is."""

from dataclasses import dataclass

ZONES = {
    "us-central1": ("us-central1-a", "us-central1-b", "us-central1-c", "us-central1-f"),
    "us-east1": ("us-east1-b", "us-east1-c", "us-east1-d"),
    "us-west1": ("us-west1-a", "us-west1-b", "us-west1-c"),
    "europe-west1": ("europe-west1-b", "europe-west1-c", "europe-west1-d"),
    "europe-west4": ("europe-west4-a", "europe-west4-b", "europe-west4-c"),
    "asia-east1": ("asia-east1-a", "asia-east1-b", "asia-east1-c"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineType:
    """A machine type: its virtual CPUs, its memory in MiB, and how its disks are attached."""

    name: str
    cpus: int
    memory_mib: int
    nvme: bool = False
    shared: bool = False
    hyperdisk: bool = False
    """Whether it takes Hyperdisk only."""


_TYPES = (
    MachineType(name="e2-micro", cpus=2, memory_mib=1024, shared=True),
    MachineType(name="e2-small", cpus=2, memory_mib=2048, shared=True),
    MachineType(name="e2-medium", cpus=2, memory_mib=4096, shared=True),
    MachineType(name="e2-standard-2", cpus=2, memory_mib=8192),
    MachineType(name="e2-standard-4", cpus=4, memory_mib=16384),
    MachineType(name="n1-standard-1", cpus=1, memory_mib=3840),
    MachineType(name="n1-standard-2", cpus=2, memory_mib=7680),
    MachineType(name="n2-standard-2", cpus=2, memory_mib=8192),
    MachineType(name="n2-standard-4", cpus=4, memory_mib=16384),
    MachineType(name="n2d-standard-2", cpus=2, memory_mib=8192),
    MachineType(name="t2d-standard-1", cpus=1, memory_mib=4096),
    # The third generation: NVMe and gVNIC only.
    MachineType(name="c3-standard-4", cpus=4, memory_mib=16384, nvme=True),
    MachineType(name="c3d-standard-4", cpus=4, memory_mib=16384, nvme=True),
    MachineType(name="n4-standard-2", cpus=2, memory_mib=8192, nvme=True, hyperdisk=True),
    MachineType(name="c4-standard-2", cpus=2, memory_mib=7168, nvme=True, hyperdisk=True),
)
MACHINE_TYPES = {kind.name: kind for kind in _TYPES}


def region_of(zone: str) -> str:
    """Return the region that a zone is in."""
    return zone.rpartition("-")[0]


def zone_exists(zone: str) -> bool:
    """Say whether there is such a zone."""
    return zone in ZONES.get(region_of(zone), ())
