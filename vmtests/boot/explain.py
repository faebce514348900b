"""From what a boot was seen to fail with to why: what static inspection knows of the image, joined to the verdict.

The console says "mount failed"; the partition table, the ESP and the superblocks say what there was to mount.
Nothing here needs the cause to be listed before: a breach is joined to the verdict by the part of the disk that was
in use when the boot ended.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from vmtests.boot.stages import Stage
from vmtests.boot.verdict import Cause, Evidence, Verdict
from vmtests.contract import Contract
from vmtests.image.check import Check, Status
from vmtests.image.inspect import Inspection
from vmtests.text import clean

BY_LABEL = "/dev/disk/by-partlabel/"
"""Where udev links partitions by their labels."""

_ESP, _STORE, _ROOT, _TABLE = "esp", "store", "root", "table"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Meaning:
    """What a breach means: the cause, by the part of the disk, what was checked, and the value found."""

    part: str
    what: str
    cause: Cause
    value: str = ".*"
    subject: str = ".*"

    def fits(self, part: str, check: Check) -> bool:
        return (
            self.part == part
            and re.fullmatch(self.what, check.what) is not None
            and re.fullmatch(self.value, check.value) is not None
            and re.match(self.subject, check.subject) is not None
        )


# In the words of vmtests.image's checks. The first row that fits counts.
_MEANINGS = (
    _Meaning(part=_TABLE, what=".*", subject="primary GPT|backup GPT|protective MBR", cause=Cause.GPT_DESTROYED),
    _Meaning(part=_ESP, what="label", value="missing", cause=Cause.ESP_MISSING),
    _Meaning(part=_ESP, what="label", cause=Cause.PARTITION_MISSING),
    _Meaning(part=_ESP, what="boot sector|sector size|FAT type|size|files|type", cause=Cause.ESP_UNREADABLE),
    _Meaning(part=_ESP, what="boot loader", value="missing", cause=Cause.BOOTLOADER_MISSING),
    _Meaning(part=_ESP, what="boot loader", cause=Cause.BOOTLOADER_INVALID),
    _Meaning(part=_ESP, what="entry", cause=Cause.ENTRY_MISSING),
    _Meaning(part=_ESP, what="kernel", value="missing", cause=Cause.KERNEL_MISSING),
    _Meaning(part=_ESP, what="kernel|kernel release|unified kernel image", cause=Cause.KERNEL_INVALID),
    _Meaning(part=_ESP, what="initrd", value="missing", cause=Cause.INITRD_MISSING),
    _Meaning(part=_ESP, what="initrd", cause=Cause.INITRD_INVALID),
    _Meaning(part=_ESP, what="initrd modules", cause=Cause.MODULE_MISSING),
    _Meaning(part=_ESP, what="init", cause=Cause.INIT_MISSING),
    _Meaning(part=_ESP, what="console", cause=Cause.SCREEN_ONLY),
    _Meaning(part=_STORE, what="label", cause=Cause.PARTITION_MISSING),
    _Meaning(part=_STORE, what="magic", cause=Cause.EROFS_SUPERBLOCK),
    _Meaning(part=_STORE, what="checksum", cause=Cause.EROFS_DAMAGED),
    _Meaning(part=_STORE, what="size", subject="erofs", cause=Cause.STORE_TRUNCATED),
    _Meaning(part=_STORE, what="feature.*|algorithm.*|block size", cause=Cause.EROFS_FEATURE),
    _Meaning(part=_ROOT, what="label", cause=Cause.PARTITION_MISSING),
    _Meaning(part=_ROOT, what="magic", cause=Cause.EXT4_SUPERBLOCK),
    _Meaning(part=_ROOT, what="checksum|size", cause=Cause.EXT4_DAMAGED),
    _Meaning(part=_ROOT, what="features", value="read-only", cause=Cause.ROOT_READ_ONLY),
    _Meaning(part=_ROOT, what="feature.*|block size", cause=Cause.EXT4_FEATURE),
    _Meaning(part=_ROOT, what="state", cause=Cause.FSCK_FAILED),
)

NAMED = frozenset({meaning.cause for meaning in _MEANINGS} | {Cause.BOOT_MENU, Cause.MODULE_MISSING})
"""The causes that inspection can name."""

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
    ),
    Stage.KERNEL: {
        Cause.KERNEL_PANIC: _INITRD, Cause.INIT_MISSING: _INITRD, Cause.INITRD_INVALID: _INITRD,
        Cause.NO_PROGRESS: frozenset({Cause.SCREEN_ONLY}), Cause.SCREEN_ONLY: frozenset({Cause.SCREEN_ONLY}),
    },
}  # fmt: skip
"""Which causes inspection may name in the place of one that only says how a boot ended, in early stages."""

_OF_PART = {_STORE: _STORE_CAUSES, _ROOT: _ROOT_CAUSES}
_UNSURE = frozenset(
    {
        Cause.MOUNT_FAILED, Cause.UNIT_FAILED, Cause.DEPENDENCY_FAILED, Cause.EMERGENCY_SHELL, Cause.INIT_MISSING,
        Cause.DEVICE_TIMEOUT, Cause.PROGRAM_DAMAGED, Cause.KERNEL_PANIC, Cause.EROFS_DAMAGED, Cause.EXT4_DAMAGED,
        Cause.FSCK_FAILED,
    }
)  # fmt: skip
"""Causes of stage 1 that a breach of the part in use says more about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Breach:
    part: str
    cause: Cause
    check: Check


class Knowledge:
    """What is known of an image before it boots; without an inspection, nothing is."""

    def __init__(self, contract: Contract, inspection: Inspection | None) -> None:
        self._contract = contract
        self._checks = () if inspection is None else inspection.checks
        self._breaches = tuple(self._read(self._checks))
        labels = (re.match(r"partition `(.*)` \(entry", check.subject) for check in self._checks)
        self._labels = frozenset(match[1] for match in labels if match)
        roots = (check.value for check in self._checks if check.what == "root")
        self._root = next(roots, "").replace("PARTLABEL=", BY_LABEL, 1)

    def absent(self, device: str) -> bool:
        """Whether `device` is a link by a partition label that the disk's table does not have."""
        label = device.removeprefix(BY_LABEL)
        return bool(self._labels) and label != device and _unescaped(label) not in self._labels

    def needs(self, device: str) -> bool:
        """Whether stage 1 mounts `device`, a link by partition label: the contract says so, or `root=`."""
        wanted = {mount.partition for mount in self._contract.stage1_mount}
        devices = {part.device for part in self._contract.partition if part.name in wanted}
        return device in devices or device == self._root

    def explains(self, stage: Stage, cause: Cause) -> bool:
        """Whether a breach says why a boot ends with `cause` in an early stage."""
        return self._early(stage, cause) is not None

    def explain(self, verdict: Verdict) -> Verdict:
        """Return the verdict with what inspection knows about it: cause, sentence, evidence and hint."""
        if verdict.ready or verdict.cause is None:
            return verdict
        breach = self._early(verdict.stage, verdict.cause) or self._stage1(verdict)
        if breach is None:
            return self._menu(verdict)
        check = breach.check
        vague = verdict.cause in _UNSURE or verdict.cause in _VAGUE.get(verdict.stage, {})
        return replace(
            verdict,
            cause=breach.cause if vague else verdict.cause,
            sentence=f"{check.sentence}: {verdict.sentence}",
            evidence=(*verdict.evidence, Evidence(t=0.0, source="inspection", text=check.sentence)),
            hint=check.hint or verdict.hint,
        )

    def _early(self, stage: Stage, cause: Cause) -> _Breach | None:
        wanted = _VAGUE.get(stage, {}).get(cause, frozenset())
        found = [breach for breach in self._breaches if breach.cause in wanted]
        if breaches := [breach for breach in found if breach.cause is not Cause.GPT_DESTROYED]:
            return breaches[0]
        # One good copy of the table is enough.
        return found[0] if len({breach.check.subject.split()[0] for breach in found}) > 1 else None

    def _stage1(self, verdict: Verdict) -> _Breach | None:
        if verdict.stage.before(Stage.INITRD):
            return None
        if verdict.cause in {Cause.PARTITION_MISSING, Cause.DEVICE_TIMEOUT}:
            words = " ".join([verdict.sentence, *(item.text for item in verdict.evidence)])
            for breach in self._breaches:
                label = self._contract.by_name(breach.part).label if breach.part != _TABLE else ""
                if breach.cause is Cause.PARTITION_MISSING and f"{BY_LABEL}{label}" in words:
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
            if partition.device in verdict.sentence:
                yield partition.name
        if "erofs" in words:
            yield _STORE
        if "EXT4-fs" in words or "ext4" in words:
            yield _ROOT
        # The rest of stage 1 lives on the store, and the store's upper directory on root.
        yield from (_STORE, _ROOT)

    def _menu(self, verdict: Verdict) -> Verdict:
        if verdict.stage is not Stage.BOOTLOADER or verdict.cause is not Cause.NO_PROGRESS:
            return verdict
        for check in self._checks:
            if check.what == "loader configuration" and check.status is Status.NOTE:
                return replace(
                    verdict,
                    cause=Cause.BOOT_MENU,
                    sentence=f"{verdict.sentence}: {check.sentence}",
                    evidence=(*verdict.evidence, Evidence(t=0.0, source="inspection", text=check.sentence)),
                )
        return verdict

    def _read(self, checks: Iterable[Check]) -> Iterable[_Breach]:
        for check in checks:
            if check.ok or (part := self._part(check)) is None:
                continue
            for meaning in _MEANINGS:
                if meaning.fits(part, check):
                    yield _Breach(part=part, cause=meaning.cause, check=check)
                    break

    def _part(self, check: Check) -> str | None:
        """Return the contract's name of the partition that a check is about, or `table`."""
        if check.subject == "ESP":
            return _ESP
        if match := re.search(r"partition `(.*)`", check.subject):
            for partition in self._contract.partition:
                if partition.label == match[1]:
                    return partition.name
            system = check.subject.partition(" on ")[0]
            return {"erofs": _STORE, "ext4": _ROOT}.get(system)
        return _TABLE


def _unescaped(label: str) -> str:
    """Undo udev's escapes in a link's name (udev_util_encode_string: `\\x20`)."""
    return clean(re.sub(r"\\x([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), label))
