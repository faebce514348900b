"""From what a boot was seen to fail with to why: what static inspection knows of the image, joined to the verdict.

The console says "mount failed"; the partition table, the ESP and the superblocks say what there was to mount.
Nothing here needs the cause to be listed before: a breach is joined to the verdict by the part of the disk that was
in use when the boot ended.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from vmtests.boot.stages import Stage
from vmtests.boot.verdict import Cause, Evidence, Verdict
from vmtests.contract import Contract
from vmtests.errors import Owner
from vmtests.text import clean

BY_LABEL = "/dev/disk/by-partlabel/"
"""Where udev links partitions by their labels."""

_STORE, _ROOT = "store", "root"


class Known(Protocol):
    """A check of an image that may name the cause of a failure (`image.check.Check`)."""

    @property
    def cause(self) -> Cause | None:
        """Why a boot would fail for it."""

    @property
    def part(self) -> str:
        """The contract's name of the partition, empty for the disk as a whole."""

    @property
    def subject(self) -> str:
        """What was looked at: two copies of one thing have different subjects."""

    @property
    def sentence(self) -> str:
        """What was found."""

    @property
    def hint(self) -> str | None:
        """What can be done."""

    @property
    def ok(self) -> bool:
        """Whether it speaks against booting the image."""


class Inspected(Protocol):
    """What was inspected (`image.inspect.Inspection`)."""

    @property
    def checks(self) -> Sequence[Known]:
        """What was found."""

    @property
    def labels(self) -> frozenset[str]:
        """The labels of the partitions that are there."""

    @property
    def names(self) -> Mapping[str, str]:
        """By what a boot may ask for a partition (`UUID=...`), and which one it is."""

    @property
    def root(self) -> str:
        """What `root=` of the kernel's command line names."""


_LOADER = frozenset(
    {
        Cause.GPT_DESTROYED, Cause.ESP_MISSING, Cause.ESP_UNREADABLE, Cause.BOOTLOADER_MISSING,
        Cause.BOOTLOADER_INVALID, Cause.PARTITION_MISSING,
    }
)  # fmt: skip
_ENTRY = frozenset(
    {
        Cause.ENTRY_MISSING, Cause.KERNEL_MISSING, Cause.KERNEL_INVALID, Cause.INITRD_MISSING, Cause.INITRD_INVALID,
        Cause.ESP_UNREADABLE,
    }
)  # fmt: skip
_INITRD = frozenset({Cause.INITRD_MISSING, Cause.INITRD_INVALID})
_STORE_CAUSES = frozenset({Cause.EROFS_SUPERBLOCK, Cause.EROFS_DAMAGED, Cause.EROFS_FEATURE, Cause.STORE_TRUNCATED})
_ROOT_CAUSES = frozenset(
    {Cause.EXT4_SUPERBLOCK, Cause.EXT4_DAMAGED, Cause.EXT4_FEATURE, Cause.ROOT_READ_ONLY, Cause.FSCK_FAILED}
)

_VAGUE: dict[Stage, dict[Cause, frozenset[Cause]]] = {
    Stage.FIRMWARE: dict.fromkeys((Cause.FIRMWARE_NO_BOOT_DEVICE, Cause.NO_PROGRESS, Cause.BOOT_LOOP), _LOADER),
    Stage.BOOTLOADER: dict.fromkeys(
        (
            Cause.BOOTLOADER_ERROR, Cause.FIRMWARE_NO_BOOT_DEVICE, Cause.UNEXPECTED_RESET, Cause.NO_PROGRESS,
            Cause.BOOT_LOOP,
        ), _ENTRY
    ) | {Cause.OUT_OF_MEMORY: _INITRD},  # systemd-boot asserts that it got memory, and asks for none
    Stage.KERNEL: {
        Cause.KERNEL_PANIC: _INITRD, Cause.INIT_MISSING: _INITRD, Cause.DEVICE_TIMEOUT: _INITRD,
        Cause.INITRD_MISSING: _INITRD, Cause.INITRD_INVALID: _INITRD,
        Cause.NO_PROGRESS: frozenset({Cause.SCREEN_ONLY}), Cause.SCREEN_ONLY: frozenset({Cause.SCREEN_ONLY}),
    },
}  # fmt: skip
"""Which causes inspection may name in the place of one that only says how a boot ended, in early stages."""

_OF_PART = {_STORE: _STORE_CAUSES, _ROOT: _ROOT_CAUSES}
_UNSURE = frozenset(
    {
        Cause.MOUNT_FAILED, Cause.UNIT_FAILED, Cause.DEPENDENCY_FAILED, Cause.EMERGENCY_SHELL, Cause.INIT_MISSING,
        Cause.DEVICE_TIMEOUT, Cause.PROGRAM_DAMAGED, Cause.KERNEL_PANIC, Cause.EROFS_DAMAGED, Cause.EXT4_DAMAGED,
        Cause.FSCK_FAILED, Cause.SWITCH_ROOT_FAILED, Cause.INIT_EXITED, Cause.INIT_FROZE,
    }
)  # fmt: skip
"""Causes of stage 1 that a breach of the part in use says more about."""


_DEVICES = frozenset({Cause.DEVICE_TIMEOUT, Cause.PARTITION_MISSING, Cause.MOUNT_FAILED})
_OTHERS = 6  # names of partitions in a sentence
_NAMED = re.compile(
    r"(?:(?P<kind>(?:PART)?(?:UUID|LABEL))=|/dev/disk/by-(?P<link>(?:part)?(?:uuid|label))/)(?P<value>[^\s\"',;:]{1,100})"
)


class Knowledge:
    """What is known of an image before it boots; without an inspection, nothing is."""

    def __init__(self, contract: Contract, inspected: Inspected | None) -> None:
        self._contract = contract
        self._checks = () if inspected is None else tuple(inspected.checks)
        self._breaches = tuple(check for check in self._checks if not check.ok and check.cause is not None)
        self._labels = frozenset() if inspected is None else inspected.labels
        self._names = {} if inspected is None else {_folded(name): it for name, it in inspected.names.items()}
        self._root = "" if inspected is None else inspected.root.replace("PARTLABEL=", BY_LABEL, 1)

    @property
    def ready_unit(self) -> str:
        """The unit that is reached when the system is up."""
        return self._contract.units.ready

    def absent(self, device: str) -> bool:
        """Whether `device` is a link by a partition label that the disk's table does not have."""
        label = device.removeprefix(BY_LABEL)
        return bool(self._labels) and label != device and _unescaped(label) not in self._labels

    @property
    def needed(self) -> frozenset[str]:
        """The devices that stage 1 mounts, as links by partition label: the contract says so, or `root=`."""
        wanted = {mount.partition for mount in self._contract.stage1_mount}
        devices = {part.device for part in self._contract.partition if part.device and part.name in wanted}
        return frozenset(devices | ({self._root} if self._root else set()))

    def explains(self, stage: Stage, cause: Cause) -> bool:
        """Whether a breach says why a boot ends with `cause` in an early stage."""
        return self._early(stage, cause) is not None

    def explain(self, verdict: Verdict) -> Verdict:
        """Return the verdict with what inspection knows about it: cause, sentence, evidence and hint."""
        if verdict.ready or verdict.cause is None:
            return verdict
        if (breach := self._breach(verdict)) is None:
            return self._device(self._menu(verdict))
        vague = verdict.cause in _UNSURE or verdict.cause in _VAGUE.get(verdict.stage, {})
        return replace(
            verdict,
            cause=breach.cause if vague else verdict.cause,
            sentence=f"{breach.sentence}: {verdict.sentence}",
            evidence=(*verdict.evidence, Evidence(t=0.0, source="inspection", text=breach.sentence)),
            hint=breach.hint or verdict.hint,
            owner=verdict.owner if verdict.unknown else Owner.IMAGE,
        )

    def accuses(self, verdict: Verdict) -> bool:
        """Whether inspection has found what makes such a boot fail: then it is no matter of time."""
        return self._breach(verdict) is not None or self.explain(verdict).cause is not verdict.cause

    def _breach(self, verdict: Verdict) -> Known | None:
        early = None if verdict.cause is None else self._early(verdict.stage, verdict.cause)
        return early or self._of_uefi(verdict) or self._stage1(verdict)

    def _of_uefi(self, verdict: Verdict) -> Known | None:
        """Return what UEFI firmware (EDK2) misses on a disk that a BIOS starts: there it is a note."""
        if verdict.cause is not Cause.FIRMWARE_NO_BOOT_DEVICE or not any(
            "BdsDxe" in it.text for it in verdict.evidence
        ):
            return None
        return next((check for check in self._checks if check.ok and check.cause in _LOADER), None)

    def _early(self, stage: Stage, cause: Cause) -> Known | None:
        wanted = _VAGUE.get(stage, {}).get(cause, frozenset())
        found = [breach for breach in self._breaches if breach.cause in wanted]
        if breaches := [breach for breach in found if breach.cause is not Cause.GPT_DESTROYED]:
            return breaches[0]
        # One good copy of the table is enough.
        return found[0] if len({breach.subject for breach in found}) > 1 else None

    def _stage1(self, verdict: Verdict) -> Known | None:
        if verdict.stage.before(Stage.INITRD):
            return None
        if verdict.cause in {Cause.PARTITION_MISSING, Cause.DEVICE_TIMEOUT}:
            words = " ".join([verdict.sentence, *(item.text for item in verdict.evidence)])
            for breach in self._breaches:
                known = self._contract.find(breach.part)
                device = BY_LABEL if known is None else known.device
                if breach.cause is Cause.PARTITION_MISSING and device and device in words:
                    return breach
        if verdict.stage is Stage.INITRD and verdict.cause in _UNSURE | {Cause.MODULE_MISSING}:
            for breach in self._breaches:
                if breach.cause is Cause.MODULE_MISSING:
                    return breach
        owners = [part for part, causes in _OF_PART.items() if verdict.cause in causes]
        for part in owners or self._parts(verdict):
            for breach in self._breaches:
                fits = breach.part == part and breach.cause in _OF_PART.get(part, frozenset())
                if fits and (verdict.cause in _UNSURE or verdict.cause is breach.cause):
                    return breach
        return None

    def _parts(self, verdict: Verdict) -> Iterable[str]:
        """Yield the parts of the disk that were in use, the nearest first: what failed, then what it stands on."""
        words = " ".join([verdict.sentence, *(item.text for item in verdict.evidence)])
        mounts = sorted(self._contract.stage1_mount, key=lambda mount: -len(mount.where))
        for mount in mounts:
            if mount.partition and re.search(rf"{re.escape(mount.where)}(?![\w/])", verdict.sentence):
                yield mount.partition
        for partition in self._contract.partition:
            if partition.device and partition.device in verdict.sentence:
                yield partition.name
        if "erofs" in words:
            yield _STORE
        if "EXT4-fs" in words or "ext4" in words:
            yield _ROOT
        # The rest of stage 1 lives on the store, and the store's upper directory on root.
        yield from (_STORE, _ROOT)

    def _device(self, verdict: Verdict) -> Verdict:
        """Say of a device that did not come whether the image has it."""
        if verdict.cause not in _DEVICES or not self._names or not (match := _NAMED.search(verdict.sentence)):
            return verdict
        kind = (match["kind"] or match["link"]).upper()
        name = f"{kind}={_unescaped(match['value'])}"
        if (where := self._names.get(_folded(name))) is not None:
            said = f"the image has {name}, it is {where}"
            hint = "the machine must have this disk, and the initrd the driver of its controller and the file system's"
        else:
            others = [known for known in self._names if known.startswith(f"{kind}=")]
            has = f"; it has {', '.join(others[:_OTHERS])}" if others else ""
            said = clean(f"the image has no {name}{has}")
            if kind.startswith("PART"):
                verdict = replace(verdict, cause=Cause.PARTITION_MISSING)
            hint = "the boot entry, the initrd or fstab must name what the disk has"
        return replace(
            verdict,
            sentence=f"{said}: {verdict.sentence}",
            evidence=(*verdict.evidence, Evidence(t=0.0, source="inspection", text=said)),
            hint=hint,
        )

    def _menu(self, verdict: Verdict) -> Verdict:
        if verdict.stage is not Stage.BOOTLOADER or verdict.cause is not Cause.NO_PROGRESS:
            return verdict
        for check in self._checks:
            if check.ok and check.cause is Cause.BOOT_MENU:
                return replace(
                    verdict,
                    cause=Cause.BOOT_MENU,
                    sentence=f"{verdict.sentence}: {check.sentence}",
                    evidence=(*verdict.evidence, Evidence(t=0.0, source="inspection", text=check.sentence)),
                )
        return verdict


def _folded(name: str) -> str:
    """Return a name as it is compared: UUIDs are spelled in capitals by some."""
    return name if "LABEL=" in name else name.partition("=")[0] + "=" + name.partition("=")[2].lower()


def _unescaped(label: str) -> str:
    """Undo udev's escapes in a link's name (udev_util_encode_string: `\\x20`)."""
    return clean(re.sub(r"\\x([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), label))
