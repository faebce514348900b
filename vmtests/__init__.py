"""vmtests proves, by booting it, that a disk image really boots.

What is named here, and in `vmtests.testing`, is public; everything else is private and may change. A name is imported
when it is first used: `import vmtests` alone takes a millisecond. docs/api.md lists all of it.

>>> from pathlib import Path
>>> from vmtests import Hardware, Lab
>>> def kernel_of(image: str, results: Path) -> str:
...     with Lab(results) as lab, lab.machine(lab.image(image), Hardware(memory_mib=2048)) as vm:
...         vm.wait_ready()
...         return vm.run("uname -r").check().stdout
"""

import importlib

# For type checkers, which know the name, and import nothing; a test compares it with _PUBLIC.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmtests.boot.console import Line as Line
    from vmtests.boot.follow import Watch as Watch
    from vmtests.boot.stages import Stage as Stage
    from vmtests.boot.timeline import Timeline as Timeline
    from vmtests.boot.verdict import Cause as Cause
    from vmtests.boot.verdict import Evidence as Evidence
    from vmtests.boot.verdict import Verdict as Verdict
    from vmtests.contract import Contract as Contract
    from vmtests.errors import GuestError as GuestError
    from vmtests.errors import HostError as HostError
    from vmtests.errors import ImageError as ImageError
    from vmtests.errors import InputError as InputError
    from vmtests.errors import Owner as Owner
    from vmtests.errors import VmtestsError as VmtestsError
    from vmtests.gce.lab import GceLab as GceLab
    from vmtests.gce.settings import Settings as GceSettings  # noqa: F401 - it has another name there
    from vmtests.guest.facts import Facts as Facts
    from vmtests.guest.result import GuestTimeout as GuestTimeout
    from vmtests.guest.result import Result as Result
    from vmtests.guest.seed import Seed as Seed
    from vmtests.image.image import Image as Image
    from vmtests.image.inspect import Inspection as Inspection
    from vmtests.machine.hardware import Disk as Disk
    from vmtests.machine.hardware import DiskBus as DiskBus
    from vmtests.machine.hardware import FirmwareKind as FirmwareKind
    from vmtests.machine.hardware import Hardware as Hardware
    from vmtests.machine.hardware import Net as Net
    from vmtests.qemu.lab import Lab as Lab
    from vmtests.vm.factories import ColdVm as ColdVm
    from vmtests.vm.factories import FreshVms as FreshVms
    from vmtests.vm.vm import BootError as BootError
    from vmtests.vm.vm import Vm as Vm

_PUBLIC = {
    "BootError": "vmtests.vm.vm",
    "Cause": "vmtests.boot.verdict",
    "ColdVm": "vmtests.vm.factories",
    "Contract": "vmtests.contract",
    "Disk": "vmtests.machine.hardware",
    "DiskBus": "vmtests.machine.hardware",
    "Evidence": "vmtests.boot.verdict",
    "Facts": "vmtests.guest.facts",
    "FirmwareKind": "vmtests.machine.hardware",
    "FreshVms": "vmtests.vm.factories",
    "GceLab": "vmtests.gce.lab",
    "GceSettings": "vmtests.gce.settings:Settings",
    "GuestError": "vmtests.errors",
    "GuestTimeout": "vmtests.guest.result",
    "Hardware": "vmtests.machine.hardware",
    "HostError": "vmtests.errors",
    "Image": "vmtests.image.image",
    "ImageError": "vmtests.errors",
    "InputError": "vmtests.errors",
    "Inspection": "vmtests.image.inspect",
    "Lab": "vmtests.qemu.lab",
    "Line": "vmtests.boot.console",
    "Net": "vmtests.machine.hardware",
    "Owner": "vmtests.errors",
    "Result": "vmtests.guest.result",
    "Seed": "vmtests.guest.seed",
    "Stage": "vmtests.boot.stages",
    "Timeline": "vmtests.boot.timeline",
    "Verdict": "vmtests.boot.verdict",
    "Vm": "vmtests.vm.vm",
    "VmtestsError": "vmtests.errors",
    "Watch": "vmtests.boot.follow",
}
"""Where each public name is, and what it is called there if otherwise."""

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> object:
    if (place := _PUBLIC.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, other = place.partition(":")
    found: object = getattr(importlib.import_module(module), other or name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
