"""How much memory there is: the host's, or what a container, a service or a job of it may have."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

_PROC, _GROUPS = Path("/proc"), Path("/sys/fs/cgroup")
# Version 2 (Linux Documentation/admin-guide/cgroup-v2.rst) and 1 (admin-guide/cgroup-v1/memory.rst): the limit, what
# is taken, and what of that are files that were read, which are given up when memory is wanted.
_VERSIONS = {
    "": ("", "memory.max", "memory.current", ("active_file", "inactive_file")),
    "memory": (
        *("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
        ("total_active_file", "total_inactive_file"),
    ),
}


def memory(proc: Path = _PROC, groups: Path = _GROUPS) -> tuple[int, int]:
    """Return bytes: all memory, and that which can be had without swapping (proc_meminfo(5)).

    Where a control group that we are in may have less, it is that.
    """
    fields = dict(line.split(":", 1) for line in (proc / "meminfo").read_text(encoding="utf-8").splitlines())
    total, available = (int(fields[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    for limit, taken in _limits(proc, groups):
        total, available = min(total, limit), min(available, max(limit - taken, 0))
    return total, available


def _limits(proc: Path, groups: Path) -> Iterator[tuple[int, int]]:
    """Yield the bytes that each of our groups with a limit may have, and those that it cannot give up."""
    try:
        lines = (proc / "self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for name in controllers.split(","):
            if name not in _VERSIONS:
                continue
            below, limit, current, files = _VERSIONS[name]
            base = groups / below
            # A container may be told a path of its host's, and has its own group at the top.
            for group in (own := base / path.lstrip("/"), *own.parents):
                with contextlib.suppress(OSError, ValueError):  # "max", or a controller that is off
                    allowed = int((group / limit).read_text(encoding="utf-8"))
                    stat = dict(map(str.split, (group / "memory.stat").read_text(encoding="utf-8").splitlines()))
                    freed = sum(int(stat.get(file, "0")) for file in files)
                    yield allowed, int((group / current).read_text(encoding="utf-8")) - freed
                if group == base:
                    break
