"""The accelerator, chosen by running a guest (`probe`), whose time tells how patient one has to be."""

import contextlib
import os
import tempfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import msgspec

from vmtests import progress
from vmtests.errors import HostError
from vmtests.host.architecture import GUEST
from vmtests.host.probe import Outcome, run_guest
from vmtests.host.tools import Toolbox
from vmtests.resources import cache_dir

FULL_SPEED = 0.2
"""Seconds that the probe's guest takes at most where KVM is as fast as hardware makes it: a tenth, and some load."""

SLOWEST = 24.0
"""The largest factor for KVM: what is slower than that is a host to be changed."""

_DEVICE = Path("/dev/kvm")
_SLOW = 2.0  # a factor that is worth a word
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class AcceleratorName(StrEnum):
    """How QEMU runs the guest's instructions."""

    KVM = "kvm"
    TCG = "tcg"


class Request(StrEnum):
    """What the user asked for."""

    AUTO = "auto"
    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """The accelerator that is used, why, and the CPU model that goes with it."""

    name: AcceleratorName
    reason: str
    cpu: str
    scale: float
    """The factor by which time budgets grow: with KVM from 1 to SLOWEST, as slow as the probe was; 4 without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    key: str
    outcome: Outcome


def choose(toolbox: Toolbox, request: Request = Request.AUTO, cpus: int = 2) -> Accelerator:
    """Return the accelerator for `request`, for machines of `cpus` processors.

    KVM is taken when a guest really ran with it. The outcome is kept in the cache until the host is booted
    again or QEMU changes. Raises HostError when KVM is asked for and does not work.
    """
    if request is Request.TCG:
        return _tcg("tcg was asked for")
    outcome = kvm_outcome(toolbox, cpus, anew=request is Request.KVM)
    if outcome.works:
        scale = min(max(outcome.seconds / FULL_SPEED, 1.0), SLOWEST)
        slow = f", {scale:.1f} times as slow as others" if scale > _SLOW else ""
        return Accelerator(name=AcceleratorName.KVM, reason=f"{outcome.reason}{slow}", cpu="host", scale=scale)
    if request is Request.KVM:
        raise HostError(f"KVM does not work: {outcome.reason}", hint=outcome.hint or "use --vm-accel=auto or tcg")
    return _tcg(f"KVM does not work: {outcome.reason}")


def without_kvm(toolbox: Toolbox, reason: str, cpus: int = 2) -> Accelerator:
    """Return the accelerator to go on with after KVM has failed for `reason`, which is remembered, too."""
    outcome = Outcome(works=False, reason=reason)
    _remember(cache_dir() / "accelerator.json", _Record(key=_key(toolbox, cpus), outcome=outcome))
    return _tcg(f"KVM does not work: {reason}")


def state_of_host() -> str:
    """Return what the state of a machine with `-cpu host` depends on: the kernel, its kvm modules, the processor.

    uname(2), /sys/module (Linux Documentation/ABI/stable/sysfs-module) and /proc/cpuinfo (proc_cpuinfo(5)).
    """
    wanted = ("model name", "cpu family", "model", "stepping", "flags", "microcode")
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n", 1)[0].splitlines()
    known = [*os.uname()[2:4], *(line for line in lines if line.startswith(wanted))]
    for module in sorted(Path("/sys/module").glob("kvm*")):
        for path in sorted([*module.glob("parameters/*"), *module.glob("*version")]):
            with contextlib.suppress(OSError):
                known.append(f"{path}={path.read_text(encoding='utf-8').strip()}")
    return "\n".join(known)


def _tcg(reason: str) -> Accelerator:
    return Accelerator(name=AcceleratorName.TCG, reason=reason, cpu="max", scale=4)


def kvm_outcome(toolbox: Toolbox, cpus: int = 2, *, anew: bool = False) -> Outcome:
    """Return whether a guest runs with KVM, and what came out; with `anew` a failure is not taken from the cache."""
    if (refusal := device_refusal(_DEVICE)) is not None:
        return refusal
    key = _key(toolbox, cpus)
    place = cache_dir() / "accelerator.json"
    if (known := _recall(place, key)) is not None and (known.works or not anew):
        return known
    with progress.step("trying KVM"):
        outcome = run_guest(toolbox, AcceleratorName.KVM, "host", cpus)
    _remember(place, _Record(key=key, outcome=outcome))
    return outcome


def device_refusal(device: Path) -> Outcome | None:
    """Return why `device` cannot be used; None when it opens. This costs nothing and is never cached."""
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return Outcome(
            works=False,
            reason=f"there is no {device}",
            hint="load kvm_intel or kvm_amd; in a virtual machine, allow nested virtualisation",
        )
    except PermissionError:
        return Outcome(
            works=False,
            reason=f"{device} may not be opened",
            hint="add yourself to the group kvm and log in again",
        )
    except OSError as error:
        return Outcome(
            works=False,
            reason=f"{device} cannot be opened: {error.strerror}",
            hint="the host has to allow nested virtualisation, and a container the device",
        )
    return None


def _key(toolbox: Toolbox, cpus: int) -> str:
    return f"{toolbox.tools[GUEST.qemu].version} {cpus} {_BOOT_ID.read_text(encoding='utf-8').strip()}"


def _recall(place: Path, key: str) -> Outcome | None:
    try:
        record = msgspec.json.decode(place.read_bytes(), type=_Record)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return record.outcome if record.key == key else None


def _remember(place: Path, record: _Record) -> None:
    with tempfile.NamedTemporaryFile(dir=place.parent, prefix=place.name, delete=False) as new:
        new.write(msgspec.json.encode(record))
    Path(new.name).replace(place)
