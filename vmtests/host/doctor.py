"""What a boot needs of this host, what was found, and what to do about the rest."""

import contextlib
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vmtests.errors import HostError
from vmtests.host import accel, firmware, sandbox, tools, user
from vmtests.host.accel import Request
from vmtests.host.admission import OVERHEAD, RESERVE
from vmtests.host.architecture import GUEST
from vmtests.host.memory import memory
from vmtests.host.place import check, free
from vmtests.host.tools import Toolbox
from vmtests.resources import cache_dir
from vmtests.sizes import GIB, MIB, format_size

LEAST_MEMORY = 3 * GIB // 2
"""Bytes of free memory for one machine of 1 GiB, QEMU itself, and the programs around it."""

LEAST_CACHE = 4 * GIB
"""Bytes of free space for the tools tree, the trees of the reference image, and one image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One fact: what it is about, what was found, where it is from or why, and a hint when it is bad."""

    topic: str
    name: str
    ok: bool
    value: str
    why: str = ""
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All facts; `ok` when a boot is possible."""

    rows: tuple[Row, ...]

    @property
    def ok(self) -> bool:
        """Whether a boot is possible."""
        return all(row.ok for row in self.rows)

    def as_dict(self) -> dict[str, object]:
        """Return the report for programs: `ok`, and `rows` with the fields of Row."""
        return {"ok": self.ok, "rows": [asdict(row) for row in self.rows]}

    def print(self, console: Console) -> None:
        """Show the report as a table, and below it what is bad, with its hint."""
        table = Table(box=None, pad_edge=False)
        for heading in ("", "", "found", "why"):
            table.add_column(heading, overflow="fold")
        topic = ""
        for row in self.rows:
            mark = Text("ok", style="green") if row.ok else Text("bad", style="bold red")
            if row.topic != topic:
                table.add_section()
                topic = row.topic
            table.add_row(mark, Text(row.name), Text(row.value), Text(row.why, style="dim"))
        console.print(table)
        for row in self.rows:
            if not row.ok:
                console.print(Text(f"{row.name}: {row.hint or row.value}"))
        console.print(Text("a boot is possible" if self.ok else "no boot is possible yet"))


def report(
    *,
    find: Callable[[], Toolbox] = tools.find,
    request: Request = Request.AUTO,
) -> Report:
    """Look at everything that a boot needs; what is missing becomes a row, never an error.

    Tools are looked for with `find`, which makes the tools tree if need be.
    """
    try:
        tools.check_architecture()
    except HostError as error:
        return Report(rows=(_bad("host", "architecture", error),))
    host = [sandbox_row(), cache_row()]
    rows = (*host, memory_row())
    if not all(row.ok for row in host):
        # Without a cache no tool can be had, and each would complain of the same thing.
        return Report(rows=rows)
    try:
        toolbox = find()
    except HostError as error:
        return Report(rows=(*rows, _bad("tools", "tools", error)))
    accelerator = accelerator_row(toolbox, request)
    return Report(rows=(*rows, *tool_rows(toolbox), accelerator, user_row(toolbox, request), *firmware_rows(toolbox)))


def sandbox_row() -> Row:
    """Say how programs are started: by bubblewrap, or without it, and why."""
    if (refusal := sandbox.refusal()) is None:
        how = "as root" if os.geteuid() == 0 else "in a user namespace"
        return Row(topic="host", name="sandbox", ok=True, value=f"bubblewrap works {how}")
    return Row(topic="host", name="sandbox", ok=True, value="none, and all ends with us without it", why=refusal)


def cache_row() -> Row:
    """Say where the cache is and whether it has room."""
    try:
        place = cache_dir()
        check(place)
    except HostError as error:
        return _bad("host", "cache", error)
    room = free(place)
    filled = (place / "trees").is_dir()
    return Row(
        topic="host",
        name="cache",
        ok=filled or room is None or room >= LEAST_CACHE,
        value=f"{place}, {'room that is not counted' if room is None else f'{format_size(room)} free'}",
        why="already has trees" if filled else f"{format_size(LEAST_CACHE)} are needed to begin with",
        hint="free some space, or set VMTESTS_CACHE to a directory with more",
    )


def memory_row(look: Callable[[], tuple[int, int]] = memory) -> Row:
    """Say whether there is memory for a machine."""
    total, available = look()
    # What is asked before each machine of the usual size (`Admission.room`).
    least = RESERVE + OVERHEAD + GIB
    return Row(
        topic="host",
        name="memory",
        ok=available >= LEAST_MEMORY and total >= least,
        value=f"{format_size(available // MIB * MIB)} of {format_size(total // MIB * MIB)} available",
        why=f"{format_size(LEAST_MEMORY)} are needed, and {format_size(least // MIB * MIB)} in all",
        hint="end something, or give the machine less memory",
    )


def tool_rows(toolbox: Toolbox) -> list[Row]:
    """Say of each tool its version, where it is from, and why."""
    return [
        Row(
            topic="tools",
            name=tool.name,
            ok=True,
            value=f"{tool.version} ({_whose(from_host=tool.from_host)})",
            why=tool.why,
        )
        for tool in toolbox.tools.values()
    ]


def _whose(*, from_host: bool) -> str:
    return "host" if from_host else "tools tree"


def accelerator_row(toolbox: Toolbox, request: Request) -> Row:
    """Say which accelerator is used and what came of running a virtual CPU."""
    try:
        chosen = accel.choose(toolbox, request)
    except HostError as error:
        return _bad("machine", "accelerator", error)
    value = f"{chosen.name}, cpu {chosen.cpu}"
    return Row(topic="machine", name="accelerator", ok=True, value=value, why=chosen.reason)


def user_row(toolbox: Toolbox, request: Request) -> Row:
    """Say whom QEMU runs as: root only where root started us, and this host lets nobody else do it."""
    row = Row(topic="machine", name="user", ok=True, value="you, in a sandbox")
    if os.geteuid() != 0:
        return row
    root, kvm = toolbox.root(GUEST.qemu), Path("/dev/kvm")
    if (reason := user.why_root(root)) is not None:
        return replace(row, value="root", why=reason)
    with contextlib.suppress(HostError):
        needs = (kvm,) if accel.choose(toolbox, request).name is accel.AcceleratorName.KVM else ()
        if user.unprivileged(root, (), needs) is None:
            return replace(row, value="root, without a capability", why=f"{kvm} is its owner's alone")
    return replace(row, value="nobody: another number for each machine", why="root started us")


def firmware_rows(toolbox: Toolbox) -> list[Row]:
    """Say whose firmware it is and which descriptor names it, with and without secure boot."""
    root = toolbox.root(GUEST.qemu)
    whose = _whose(from_host=root == Path("/"))
    rows = []
    for name, secure in (("firmware", False), ("secure boot", True)):
        try:
            found = firmware.find(root, secure_boot=secure)
        except HostError as error:
            # Secure boot is an extra: a boot is possible without it.
            rows.append(Row(topic="machine", name=name, ok=secure, value=error.message, hint=error.hint))
            continue
        code = f"{found.code.inside} ({whose})"
        rows.append(Row(topic="machine", name=name, ok=True, value=code, why=found.descriptor.name))
    return rows


def _bad(topic: str, name: str, error: HostError) -> Row:
    return Row(topic=topic, name=name, ok=False, value=error.message, hint=error.hint)
