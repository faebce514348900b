"""What a run costs at most, before it begins.

List prices of us-central1 on demand, in US dollars, rounded up ("VM instance pricing", "Disk and image pricing" and
"Cloud Storage pricing" of Google Cloud). Other regions are dearer by up to 59 % (São Paulo), for which `_REGIONS` is.
"""

from collections.abc import Mapping

from vmtests.sizes import GIB

# By machine type: dollars an hour.
_MACHINES: Mapping[str, float] = {
    "e2-micro": 0.009,
    "e2-small": 0.017,
    "e2-medium": 0.034,
    "e2-standard-2": 0.068,
    "e2-standard-4": 0.135,
    "n1-standard-1": 0.048,
    "n1-standard-2": 0.096,
    "n2-standard-2": 0.098,
    "n2-standard-4": 0.195,
    "n2d-standard-2": 0.085,
    "t2d-standard-1": 0.043,
    "c3-standard-4": 0.21,
    "c3d-standard-4": 0.19,
    "n4-standard-2": 0.095,
}
# By type of disk, dollars for a GiB and a month; Hyperdisk with the speed that it has where none is ordered.
_DISKS: Mapping[str, float] = {"pd-standard": 0.04, "pd-balanced": 0.10, "pd-ssd": 0.17, "hyperdisk-balanced": 0.15}
_HOURS = 730
_IMAGE, _OBJECT = 0.05 / _HOURS, 0.026 / _HOURS  # dollars for a GiB and an hour
_ADDRESS = 0.005  # dollars an hour
_REGIONS = 1.6


def at_most(
    machine: str, *, disk: int, disk_type: str, archive: int, seconds: float, machines: int = 1
) -> float | None:
    """Return the dollars that instances cost if nobody removes anything for `seconds`; sizes in bytes.

    None when the price of the machine type, or of its disk's, is not known here.
    """
    if (price := _MACHINES.get(machine)) is None or (room := _DISKS.get(disk_type)) is None:
        return None
    each = price + _ADDRESS + disk / GIB * room / _HOURS
    stored = archive / GIB * (_IMAGE + _OBJECT)
    return (each * machines + stored) * seconds / 3600 * _REGIONS


def sentence(machine: str, *, disk: int, disk_type: str, archive: int, seconds: float, machines: int = 1) -> str:
    """Say what as many instances at a time cost at most."""
    dollars = at_most(machine, disk=disk, disk_type=disk_type, archive=archive, seconds=seconds, machines=machines)
    what = f"one {machine}" if machines == 1 else f"at most {machines} {machine} at a time"
    hours = f"{seconds / 3600:.2g} h, after which {'it deletes itself' if machines == 1 else 'they delete themselves'}"
    if dollars is None:
        return f"{what} for at most {hours}; the price is not known here"
    return f"{what} for at most {hours}: less than ${max(dollars, 0.01):.2f}"
