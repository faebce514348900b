"""What systemd says that it waits for, and whether that can ever come.

A wait for a device ends after 45 or 90 seconds; that a partition does not exist is known at once. Without what stage 1
mounts no boot goes on, whatever else runs. Any other wait may be that of a mount with `nofail`, which holds nobody up:
there only a boot in which nothing else runs is at its end.
"""

import re
from collections.abc import Iterable

from vmtests.boot.explain import Knowledge
from vmtests.boot.stages import Stage, reached

# systemd src/core/manager.c, manager_print_jobs_in_progress().
_COUNT = re.compile(r"\[[ *]{6}\] \((\d{1,6}) of (\d{1,6})\) ")
_JOB = re.compile(
    r"(?:A start job is running for (?P<name>.{1,300}?)|Job (?P<unit>\S{1,300})/start running)(?: \([^()]{1,40}\))?$"
)
_CUT = re.compile(
    r"(?:A start job is running for|Job) (?P<head>.{1,300}?)(?:…|\.\.\.)(?P<tail>.{0,300}?)(?: running)?"
    r"(?: \([^()]{1,40}\))?$"
)
"""Of a long name the middle is left out (`ellipsize()`)."""
_LIMIT = re.compile(r"\((?P<passed>[\w ]{1,30}) / (?P<limit>[\w ]{1,30})\)$")
_SPAN = re.compile(r"(\d{1,6})(d|h|min|s)\b")
_SECONDS = {"d": 86400.0, "h": 3600.0, "min": 60.0, "s": 1.0}
# Services for networks, clouds and snaps, whose names say so; they give up by themselves, mostly after two minutes
# (systemd-networkd-wait-online(8), --timeout=; cloudinit/sources/DataSourceEc2.py, max_wait).
_PATIENT = re.compile(r"wait|online|network|seed|cloud", re.IGNORECASE)
_PATIENCE = 120.0
_UNIT = re.compile(r"dev-(?P<path>\S{1,300})\.device(?: - (?P<description>.+))?$")
_DONE = {
    Stage.INITRD: re.compile(reached("initrd-fs.target", "Initrd File Systems")),
    Stage.USERSPACE: re.compile(reached("local-fs.target", "Local File Systems")),
}
"""After these targets nothing that a boot needs is mounted any more."""

_JOBS_LIMIT = 64


class Waits:
    """Follows the repaints of running jobs."""

    def __init__(self, knowledge: Knowledge | None) -> None:
        self._knowledge = knowledge
        self._shown: set[str] = set()
        self._done: set[Stage] = set()

    def line(self, text: str, stage: Stage) -> None:
        """Take a normalised line that is no repaint: something has happened."""
        self._shown.clear()
        if (done := _DONE.get(stage)) is not None and done.match(text):
            self._done.add(stage)

    def spinner(self, text: str, normal: str, stage: Stage) -> str | None:
        """Take a repaint; return a device that does not exist, if the boot needs it or nothing but such waits run."""
        if self._knowledge is None or stage not in _DONE or stage in self._done:
            return None
        count = int(counted[2]) if (counted := _COUNT.match(text)) else 1
        if (cut := _CUT.match(normal)) is not None:
            device = self._completed(cut["head"], cut["tail"], self._knowledge.needed)
        elif (match := _JOB.match(normal)) is not None:
            device = path(match["name"] or match["unit"])
        else:
            return None
        if not self._knowledge.absent(device):
            # Something else runs; what comes of it is not known yet.
            self._shown.clear()
            return None
        if stage is Stage.INITRD and device in self._knowledge.needed:
            return device
        if len(self._shown) < _JOBS_LIMIT:
            self._shown.add(device)
        return device if len(self._shown) >= count else None

    @staticmethod
    def _completed(head: str, tail: str, devices: Iterable[str]) -> str:
        """Return the one of `devices` whose name, or unit, has these ends; empty where that is none or several."""
        fits = [
            device
            for device in devices
            if any(name.startswith(head) and name.endswith(tail) for name in (device, f"{unit(device)}/start"))
        ]
        return fits[0] if len(fits) == 1 else ""


def remaining(text: str) -> float:
    """Return after how many seconds the job of a repaint ends at the latest; 0 where it may run for ever."""
    if not (match := _LIMIT.search(text)):
        return 0.0
    passed, limit = _seconds(match["passed"]), _seconds(match["limit"])
    if not limit and _PATIENT.search(text):
        limit = _PATIENCE
    return max(limit - passed, 0.0)


def _seconds(span: str) -> float:
    return sum(int(number) * _SECONDS[unit] for number, unit in _SPAN.findall(span))


def waited_for(text: str) -> str:
    """Return what a repaint says is waited for, a device by its path; empty where it says nothing."""
    match = _JOB.match(text)
    return "" if match is None else path(match["name"] or match["unit"])


def unit(device: str) -> str:
    """Return the unit of a device by its path (systemd.unit(5), string escaping for inclusion in unit names)."""
    plain = re.sub(r"[^a-zA-Z0-9:_./]", lambda char: f"\\x{ord(char[0]):02x}", device.strip("/"))
    return f"{plain.replace('/', '-')}.device"


def path(name: str) -> str:
    r"""Return the path of a device that systemd names by description, by unit, or by both, or dracut (`\x2fdev…`)."""
    if not (match := _UNIT.match(name)):
        return _plain(name) if name.startswith(r"\x2f") else name
    if match["description"]:
        return match["description"]
    # systemd.unit(5), string escaping for inclusion in unit names.
    return "/dev/" + _plain(match["path"].replace("-", "/"))


def _plain(escaped: str) -> str:
    return re.sub(r"\\x([0-9a-f]{2})", lambda byte: chr(int(byte[1], 16)), escaped)
