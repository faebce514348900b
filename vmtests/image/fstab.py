"""The file systems that /etc/fstab of root wants mounted at boot, held against what is on the disk (fstab(5)).

One that is not there makes systemd wait for 90 seconds and end in its emergency mode (systemd-fstab-generator(8)).
"""

from collections.abc import Iterator

from vmtests.causes import Cause
from vmtests.image import named
from vmtests.image.check import Check, breach, clean, note
from vmtests.image.extfiles import ExtFiles
from vmtests.image.files import FilesError
from vmtests.image.layout import Volume
from vmtests.image.trail import SUBJECT, Trail, text

_PLACE = "/etc/fstab"
_LATER = frozenset({"nofail", "noauto", "x-systemd.automount", "bind", "rbind", "x-systemd.makefs", "_netdev"})
_MAKERS = ("/usr/bin/cloud-init", "/usr/bin/ignition", "/usr/lib/dracut/modules.d/30ignition/module-setup.sh")
_REPART = ("/usr/lib/repart.d", "/etc/repart.d")
"""What may make partitions and file systems at the first boot."""


def check(trail: Trail, root: Volume) -> Iterator[Check]:
    """Yield a check of each line that names a partition which the disk does not have."""
    files = trail.open(root)
    if not isinstance(files, ExtFiles) or trail.hidden:
        return
    try:
        lines = text(files, _PLACE).splitlines()
        systemd = files.find("/usr/lib/systemd/systemd") or files.find("/lib/systemd/systemd")
        made = [path for directory in _REPART for path in files.below(directory, ".conf")]
        maker = next(iter([*made, *(path for path in _MAKERS if files.find(path))]), None)
    except FilesError:
        return
    for line in lines:
        fields = line.split()
        if len(fields) < 4 or fields[0].startswith("#"):  # device, place, type, options
            continue
        device, place, kind, options = fields[:4]
        key, value = named.key(device)
        if _LATER & set(options.split(",")) or not named.known(key, value):
            continue
        if named.fitting(trail.volumes, key, value) or not named.told(trail.volumes, key):
            continue
        said = f"{_PLACE} wants {clean(device)} at {clean(place)}, and the disk has none such"
        # Root is mounted already; nothing waits for swap to the end.
        if place == "/" or kind == "swap" or systemd is None or maker is not None:
            yield note(SUBJECT, "fstab", device, f"{said}{f': {maker} may make it' if maker else ''}")
        else:
            hint = "give it what blkid says, or the option nofail"
            yield breach(SUBJECT, "fstab", device, f"{said}: systemd waits for it, and stops in emergency mode", hint,
                         cause=Cause.DEVICE_TIMEOUT)  # fmt: skip
