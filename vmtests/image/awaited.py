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


def check(trail: Trail, options: str, origin: str) -> Iterator[Check]:
    """Yield a check of each device that is waited for, and is not there."""
    kinds = {volume.system.type for volume in trail.volumes if volume.system is not None}
    inside = bool(kinds & (CONTAINERS - {"crypto_LUKS"}))  # where a LUKS may be, too
    encrypted = [volume for volume in trail.volumes if volume.system and volume.system.type == "crypto_LUKS"]
    for word in words(options):
        if match := _UNLOCKED.fullmatch(word):
            there = inside or any(named.have(volume, "UUID") == match[1].lower() for volume in encrypted)
            waits = f"no LUKS has the UUID {match[1]}"
        elif match := _BY_HOOK.fullmatch(word) or _MOUNTED.fullmatch(word) or _RESUMED.fullmatch(word):
            key, value = named.key(match[1])
            hidden = inside or (bool(encrypted) and not word.startswith("cryptdevice="))
            known = key in named.LINKS.values() and "\\" not in value
            seen = hidden and key in ("UUID", "LABEL")
            there = not known or seen or bool(named.fitting(trail.volumes, key, value))
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
