"""Which faults fit an image: each needs what it breaks, and a boot in which that comes to the verdict it names."""

from vmtests.causes import Cause
from vmtests.contract import Boot, Contract, Partition, Promise
from vmtests.faults.catalogue import (
    Esp,
    Fault,
    Feature,
    Flip,
    Host,
    Initrd,
    Machine,
    Options,
    Overwrite,
    Root,
    Sign,
    Table,
)
from vmtests.host.architecture import GUEST
from vmtests.image import layout
from vmtests.image.inspect import Inspection

_OURS = frozenset({"stage1", "stage2"})
"""Areas whose faults break what only an image of our layout has."""

_FILES = ("loader", "entry", "kernel", "initrd")
"""What a path on the ESP may name in braces."""


def seen(inspection: Inspection) -> Contract:
    """Return a contract that names what faults break, as inspection has found it: partitions and files of the boot."""
    if Promise.STORE in inspection.contract.promises:
        return inspection.contract
    volumes = {
        "esp": next((item for item in inspection.volumes if item.type == layout.ESP), None),
        "root": next((item for item in inspection.volumes if item.type == f"root-{GUEST.shown}"), None),
    }
    found = tuple(
        Partition(name=name, label=volume.label, type=volume.type)
        for name, volume in volumes.items()
        if volume is not None
    )
    return Contract(partition=found, boot=_boot(inspection))


def _boot(inspection: Inspection) -> Boot:
    loader, *rest = inspection.files or ("",)
    if loader.lower() != GUEST.fallback.lower():
        return Boot()
    entry, *parts = rest or ("",)
    if not entry.startswith("/loader/entries/"):
        # A unified kernel image is its own entry; GRUB's menu is not on the ESP.
        return Boot(loader=loader, entry=entry if entry.startswith("/EFI/Linux/") else "")
    kernel, initrd = (*parts, "", "")[:2]
    return Boot(loader=loader, entry=entry, kernel=kernel, initrd=initrd)


def misfit(fault: Fault, inspection: Inspection) -> str:
    """Return why a fault cannot be made in an image, or says nothing of it there; empty where it fits."""
    if Promise.STORE in inspection.contract.promises:
        return ""
    if fault.area in _OURS:
        return "it breaks what our own layout has"
    contract = seen(inspection)
    names = {partition.name for partition in contract.partition}
    systemd_boot = any("systemd-boot" in step for step in inspection.steps[:1])
    for step in fault.steps:
        missing = ""
        match step:
            case Flip() | Feature():
                missing = "a store"
            case Host():
                missing = "a stage 1 that is seen on the console for certain"
            case Machine() if step.read_error or step.disk_full:
                missing = "a store, or a first write in stage 1"
            case Machine() if step.memory_mib < Machine().memory_mib or step.cmdline:
                missing = "" if systemd_boot else "systemd-boot"
            case Machine() if step.disk_bus is not None:
                missing = "a driver, or the lack of one, that is seen from outside"
            case Machine() if step.own_keys:
                missing = "" if systemd_boot else "systemd-boot"
            case Sign() if not all(_named(path, contract.boot) for path in step.files):
                missing = "a file on its ESP that could be signed"
            case Overwrite() | Table() if step.partition is not None and step.partition not in names:
                missing = f"a partition that is its {step.partition}"
            case Initrd() | Root() | Options():
                # What is in them is somebody else's, and so is what comes of a change.
                missing = "an initrd, a root or an entry of ours"
            case Esp():
                missing = _missing_file(step, contract.boot, systemd_boot=systemd_boot)
        if missing:
            return f"the image has not {missing}"
    if fault.cause is Cause.PARTITION_MISSING:
        return "by what its stage 1 finds partitions is not known"
    return ""


def _named(path: str, boot: Boot) -> str:
    return path.format_map({name: getattr(boot, name) for name in _FILES})


def _missing_file(step: Esp, boot: Boot, *, systemd_boot: bool) -> str:
    texts = [*step.remove, *step.write, *step.write.values(), *step.truncate, *step.exhaust]
    for name in _FILES:
        if any(f"{{{name}}}" in text for text in texts) and not getattr(boot, name):
            return f"a file on its ESP that is its {name}"
    if any(f"{{{name}}}" in text for text in texts for name in ("entry",) if text in step.write):
        return "" if boot.entry.endswith(".conf") else "a boot entry that is text"
    if (step.exhaust or any(path.startswith("/loader/") for path in step.write)) and not systemd_boot:
        return "systemd-boot"
    return ""
