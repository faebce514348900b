"""The hang doctor's judgement: from looks at a silent machine to what holds it up. No machine, no clock.

A look is what a monitor tells without the guest's help: processors, disk requests, the screen. Several looks
in a row tell a guest that waits from one that spins, one that is slow from one that is stuck, and one that
talks to the screen from one that is silent.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from vmtests.boot.stages import Stage
from vmtests.boot.verdict import Cause
from vmtests.errors import Owner
from vmtests.host.architecture import GUEST
from vmtests.text import TEXT_LIMIT, clean

PATIENCE = 3
"""Budgets that a silent guest gets in all as long as its disk is read or written."""

_CPUS_NAMED = 4
_SAME_PLACE = 4096  # bytes; a loop is seldom longer

# QEMU target/i386/cpu-dump.c, x86_cpu_dump_state(): 64-bit and 32-bit registers.
_CPU = re.compile(
    r"CPU#(?P<index>\d{1,5})\s+(?:.*\n){1,8}?"
    r"[RE]IP=(?P<rip>[0-9a-f]{8,16}) [RE]FL=\S+ \[.{7}\] CPL=(?P<cpl>\d) .{0,40}?HLT=(?P<halted>\d)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """A virtual processor: its instruction pointer, its privilege level (3 is a program), and whether it sleeps."""

    index: int
    rip: int
    level: int
    halted: bool


def parse_registers(text: str) -> tuple[Cpu, ...]:
    """Read what QEMU's monitor prints for `info registers -a`."""
    return tuple(
        Cpu(
            index=int(match["index"]),
            rip=int(match["rip"], 16),
            level=int(match["cpl"]),
            halted=match["halted"] == "1",
        )
        for match in _CPU.finditer(text)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was seen of a machine at one moment, `t` seconds of a monotonic clock.

    `status` is QEMU's run state. `requests` counts the disk requests that are finished, `in_flight` those that are not
    (None where QEMU does not tell). `screen` is a digest of the picture, empty where there is none.
    """

    t: float
    cpus: tuple[Cpu, ...]
    status: str = "running"
    requests: int = 0
    in_flight: int | None = None
    screen: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """What the doctor says: half a sentence, evidence as source and text, and a cause where it is clear.

    `moving` is true for a guest that is silent and gets on; `idle` for one that has nothing to do, which no host that
    is busy with other things can be the reason for.
    """

    says: str = ""
    evidence: tuple[tuple[str, str], ...] = ()
    cause: Cause | None = None
    hint: str = ""
    owner: Owner | None = None
    moving: bool = False
    idle: bool = False

    def followed_by(self, other: "Opinion") -> "Opinion":
        """Return this opinion with what `other` adds; this one's cause stays."""
        return Opinion(
            says="; ".join(part for part in (self.says, other.says) if part),
            evidence=(*self.evidence, *other.evidence),
            cause=self.cause or other.cause,
            hint=self.hint or other.hint,
            owner=self.owner or other.owner,
            moving=self.moving,
            idle=self.idle,
        )


class Doctor(Protocol):
    """Examines a machine that made no progress for its budget; called in the thread that waits for the boot.

    Raises HostError when the machine does not let itself be examined.
    """

    def look(self, stage: Stage, /) -> Opinion:
        """Look at the machine, several times, and change nothing."""

    def provoke(self, heard: Callable[[], Sequence[str]], /) -> Opinion:
        """Make the guest's kernel talk about itself; `heard` returns the lines that came since."""


def opinion(stage: Stage, looks: Sequence[Look], name: Callable[[int], str] = hex, *, serial: bool = False) -> Opinion:
    """Judge `looks`, oldest first, of which there is at least one; `name` names an address of the kernel.

    With `serial` the kernel is known to talk on the serial line: where its screen changes it only lives.
    """
    first, last = looks[0], looks[-1]
    seconds = last.t - first.t
    where = _processors(looks, name)
    evidence = [("registers", text) for text in where]
    done = last.requests - first.requests
    disk = f"{done} disk requests ended in {seconds:.1f} s"
    if last.in_flight is not None:
        disk += f", {last.in_flight} in flight"
    evidence.append(("block", disk))
    changed = len({look.screen for look in looks if look.screen}) > 1
    if last.screen:
        evidence.append(("screen", "the screen changes" if changed else "the screen does not change"))
    says = "; ".join(where)
    if last.status != "running":
        return Opinion(
            says=f"QEMU has stopped the guest ({clean(last.status)})",
            evidence=(*evidence, ("status", clean(last.status))),
            cause=Cause.QEMU_STOPPED,
            hint="status `io-error` is a full or broken disk of the host; qemu.stderr may say more",
            owner=Owner.HOST,
        )
    if last.in_flight and done == 0 and all(look.in_flight for look in looks):
        return Opinion(
            says=f"{last.in_flight} disk requests are in flight and none came back in {seconds:.1f} s",
            evidence=tuple(evidence),
            cause=Cause.DISK_STALLED,
            hint="the host's disk does not answer, or is throttled; nothing in the image can mend that",
            owner=Owner.HOST,
        )
    if changed and not serial and stage in {Stage.BOOTLOADER, Stage.KERNEL}:
        return Opinion(
            says="the screen changes while the serial console is silent: this guest talks to the screen only",
            evidence=tuple(evidence),
            cause=Cause.SCREEN_ONLY,
            hint=f"the kernel's command line needs console={GUEST.console},115200; diagnosis/ has the screen",
            owner=Owner.IMAGE,
        )
    idle = len(looks) > 1 and not done and not last.in_flight and all(_asleep(look) for look in looks)
    return Opinion(says=says, evidence=tuple(evidence), moving=done > 0 or (changed and serial), idle=idle)


def _asleep(look: Look) -> bool:
    return bool(look.cpus) and all(cpu.halted for cpu in look.cpus)


def _processors(looks: Sequence[Look], name: Callable[[int], str]) -> list[str]:
    """Return half a sentence for each processor, or one for all when all of them sleep."""
    cpus = looks[-1].cpus
    by_index = {cpu.index: [one for look in looks for one in look.cpus if one.index == cpu.index] for cpu in cpus}
    if all(_asleep(look) for look in looks):
        whole = "the only processor sleeps" if len(cpus) == 1 else f"all {len(cpus)} processors sleep"
        return [f"{whole}: the guest waits for something"]
    return [_processor(cpu, by_index[cpu.index], name) for cpu in cpus[:_CPUS_NAMED]]


def _processor(cpu: Cpu, seen: Sequence[Cpu], name: Callable[[int], str]) -> str:
    if all(one.halted for one in seen):
        return f"processor {cpu.index} sleeps"
    awake = [one for one in seen if not one.halted]
    if all(one.level == 3 for one in awake):
        return f"processor {cpu.index} runs a program"
    places = {one.rip // _SAME_PLACE for one in awake}
    last = awake[-1]
    verb = "spins" if len(places) == 1 and len(awake) == len(seen) > 1 else "works"
    return f"processor {cpu.index} {verb} at {name(last.rip)}"


# Linux kernel/sched/core.c, sched_show_task(); arch/x86/kernel/dumpstack.c, show_regs_safe() and printk of traces.
_TASK = re.compile(r"task:(?P<task>.{1,40}?)\s+state:(?P<state>\w)\b")
_TRACE = re.compile(
    r"(?:RIP: 0010:|\s{0,8})(?P<symbol>[A-Za-z_][\w.]{1,120}\+0x[0-9a-f]{1,8}/0x[0-9a-f]{1,8})(?: \[\w{1,60}\])?$"
)
_REFUSED = re.compile(r"sysrq: This sysrq operation is disabled\.")
_SHOWN = 6
_SCHEDULING = ("__schedule", "schedule", "io_schedule", "schedule_timeout", "schedule_preempt_disabled")


def kernel_words(lines: Sequence[str]) -> Opinion:
    """Judge what the kernel said when it was asked by sysrq and NMI; `lines` are normalised."""
    evidence: list[tuple[str, str]] = []
    blocked = ""
    task = ""
    for line in lines:
        if match := _TASK.match(line):
            task = match["task"] if match["state"] == "D" else ""
        elif match := _TRACE.match(line):
            symbol = match["symbol"].partition("+")[0]
            if task and symbol not in _SCHEDULING:
                if not blocked:
                    blocked = f"task {clean(task)} is blocked in {symbol}"
                evidence.append(("sysrq", f"{clean(task)}: {match['symbol']}"))
                task = ""
            elif line.startswith("RIP:"):
                evidence.append(("sysrq", line[:TEXT_LIMIT]))
        elif _REFUSED.match(line):
            evidence.append(("sysrq", "the guest's kernel refuses (kernel.sysrq); boot with the module debug"))
    if not lines:
        evidence.append(("sysrq", "the guest's kernel did not answer on the serial line"))
    return Opinion(says=blocked, evidence=tuple(dict.fromkeys(evidence))[:_SHOWN])
