"""Devices that a command line names beside `root=`, held against what is on the disk.

Keys are those of systemd-cryptsetup-generator(8), systemd-fstab-generator(8), systemd-veritysetup-generator(8),
systemd-hibernate-resume-generator(8), dracut.cmdline(7) and Arch's hook `encrypt`.
"""

import re
from collections.abc import Iterator

from vmtests.causes import Cause
from vmtests.image import named
from vmtests.image.check import Check, breach, clean, note
from vmtests.image.cmdline import words
from vmtests.image.filesystem import CONTAINERS
from vmtests.image.trail import SUBJECT, Trail

_UNLOCKED = re.compile(r"(?:rd\.)?luks\.(?:uuid|name)=(?:luks-)?([0-9a-fA-F-]{36})(?:=.*)?")
_BY_HOOK = re.compile(r"cryptdevice=((?:UUID|PARTUUID|LABEL|PARTLABEL)=[^:]+)(?::.*)?")
_MOUNTED = re.compile(r"(?:mount\.usr|systemd\.verity_(?:root|usr)_(?:data|hash))=(.+)")
_RESUMED = re.compile(r"resume=(.+)")
_DATA = re.compile(r"(?:rd\.)?luks\.data=(?:luks-)?([0-9a-fA-F-]{36})=(.+)")
_APART = re.compile(r"(?:rd\.)?luks\.options=(?:luks-)?([0-9a-fA-F-]{36})=(?:.*,)?header=.*")
_DEVICES = (_BY_HOOK, _MOUNTED, _RESUMED, _DATA)


def check(trail: Trail, options: str, origin: str) -> Iterator[Check]:
    """Yield a check of each device that is waited for, and is not there."""
    kinds = {volume.system.type for volume in trail.volumes if volume.system is not None}
    inside = bool(kinds & (CONTAINERS - {"crypto_LUKS"}))  # where a LUKS may be, too
    encrypted = [volume for volume in trail.volumes if volume.system and volume.system.type == "crypto_LUKS"]
    # What has its header apart shows no UUID: it is named by its data.
    apart = {match[1].lower() for word in words(options) if (match := _DATA.fullmatch(word) or _APART.fullmatch(word))}
    for word in words(options):
        if match := _UNLOCKED.fullmatch(word):
            there = inside or match[1].lower() in apart or bool(named.fitting(encrypted, "UUID", match[1]))
            waits = f"no LUKS has the UUID {match[1]}"
        elif match := next(filter(None, (pattern.fullmatch(word) for pattern in _DEVICES)), None):
            key, value = named.key(match[match.re.groups])
            hidden = inside or (bool(encrypted) and match.re not in (_BY_HOOK, _DATA))
            seen = hidden and key in ("UUID", "LABEL")
            there = not named.known(key, value) or seen or bool(named.fitting(trail.volumes, key, value))
            waits = "the disk has none such"
        else:
            continue
        if there:
            continue
        said = f"{clean(word)} of {origin} leads nowhere: {waits}"
        if word.startswith("resume="):
            yield note(SUBJECT, "device", word, f"{said}; the boot may wait for it, and goes on without")
        else:
            yield breach(SUBJECT, "device", word, said, "blkid says what there is", cause=Cause.DEVICE_TIMEOUT)
