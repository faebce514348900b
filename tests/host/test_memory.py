"""Memory is what the host has, or what it lets us have."""

import os
from pathlib import Path

import pytest

from vmtests.host.memory import memory
from vmtests.sizes import GIB, MIB


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A host with 4 GiB, of which 3 are available, as proc(5) and the control groups show it."""
    (tmp_path / "self").mkdir()
    (tmp_path / "meminfo").write_text("MemTotal: 4194304 kB\nMemAvailable: 3145728 kB\n")
    return tmp_path


def group(directory: Path, limit: str, taken: int, files: int, names: tuple[str, str, str]) -> None:
    """Make a control group of memory, with the names of its version."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, value in zip(names, (limit, str(taken), f"anon 1\n{PREFIX[names]}inactive_file {files}"), strict=True):
        (directory / name).write_text(f"{value}\n")


TWO = ("memory.max", "memory.current", "memory.stat")
ONE = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")
PREFIX = {TWO: "", ONE: "total_"}


def test_hosts_memory_is_the_kernels() -> None:
    """All memory is what sysconf(3) says too, unless we may have less, and no more than that is available."""
    total, available = memory()
    assert total <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 1.05
    assert 0 < available <= total


@pytest.mark.parametrize("cgroup", [None, "0::/nowhere\n", "4:pids:/x\n"])
def test_host_without_a_limit_has_its_memory(host: Path, cgroup: str | None) -> None:
    """Where no control group limits us, or none can be seen, it is the host's."""
    if cgroup is not None:
        (host / "self/cgroup").write_text(cgroup)
    assert memory(host, host / "groups") == (4 * GIB, 3 * GIB)


@pytest.mark.parametrize(
    ("cgroup", "below", "names"), [("0::/a/b\n", "", TWO), ("4:cpu,memory:/a/b\n0::/\n", "memory", ONE)]
)
def test_smallest_limit_of_our_groups_counts(host: Path, cgroup: str, below: str, names: tuple[str, str, str]) -> None:
    """Each group above ours may limit us; files that were read are given up when memory is wanted."""
    (host / "self/cgroup").write_text(cgroup)
    groups = host / "groups"
    group(groups / below / "a/b", "max", 1, 0, names)
    group(groups / below / "a", str(2 * GIB), GIB, 512 * MIB, names)
    group(groups / below, "max", 1, 0, names)
    assert memory(host, groups) == (2 * GIB, 3 * GIB // 2)


@pytest.mark.parametrize("path", ["/docker/0123", "/../.."])
def test_container_finds_its_limit_at_the_top(host: Path, path: str) -> None:
    """A container that is told a path of its host's, or one above its own, has its group where the file system is."""
    (host / "self/cgroup").write_text(f"0::{path}\n")
    group(host / "groups", str(GIB), 2 * GIB, 0, TWO)
    assert memory(host, host / "groups") == (GIB, 0)
