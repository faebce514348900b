"""Processes that end with this one."""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from vmtests.errors import HostError
from vmtests.host.process import SandboxedProcess
from vmtests.host.sandbox import sandbox

SPAWNER = """
import os, sys, threading
from pathlib import Path
from vmtests.host.process import SandboxedProcess
from vmtests.host.sandbox import sandbox
argv = [*sandbox(Path("/")), "sleep", "600"]
started = []
def start():
    fds = [int(sys.argv[1])]
    started.append(SandboxedProcess(argv, pass_fds=fds, stderr=2, on_exit=lambda _: None, name="x"))
thread = threading.Thread(target=start)
thread.start()
thread.join()
print("up", flush=True)
threading.Event().wait()
"""


def start(*command: str, ended: threading.Event, statuses: list[int]) -> SandboxedProcess:
    """Start a command in a sandbox."""

    def on_exit(status: int) -> None:
        statuses.append(status)
        ended.set()

    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        return SandboxedProcess(
            [*sandbox(Path("/")), *command],
            pass_fds=(),
            stderr=nowhere.fileno(),
            on_exit=on_exit,
            name="test",
        )


def test_exit_status() -> None:
    """The exit status is told once the process has ended."""
    ended, statuses = threading.Event(), list[int]()
    process = start("sh", "-c", "exit 7", ended=ended, statuses=statuses)
    assert process.join(10)
    assert statuses == [7]


def test_killed() -> None:
    """A killed process is told as 128 and the signal's number."""
    ended, statuses = threading.Event(), list[int]()
    process = start("sleep", "600", ended=ended, statuses=statuses)
    process.kill()
    assert ended.wait(10)
    assert statuses == [128 + signal.SIGKILL]
    process.kill()


def test_late() -> None:
    """Of two programs that want the same processor, each has waited for it."""
    ended, statuses = threading.Event(), list[int]()
    processor = str(min(os.sched_getaffinity(0)))
    script = "for each in 1 2 3; do while :; do :; done & done; while :; do :; done"
    process = start("taskset", "-c", processor, "sh", "-c", script, ended=ended, statuses=statuses)
    end = time.monotonic() + 10
    while not (late := process.late) and time.monotonic() < end:
        ended.wait(0.02)
    process.kill()
    assert process.join(10)
    assert late > 0
    assert process.late == 0


def test_no_program() -> None:
    """A sandbox that is not installed is the host's error."""
    with pytest.raises(HostError, match="/nowhere/bwrap cannot be run"):
        SandboxedProcess(["/nowhere/bwrap", "--", "x"], pass_fds=(), stderr=2, on_exit=lambda _: None, name="x")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_ends_with_its_parent(how: signal.Signals) -> None:
    """A process outlives the thread that asked for it, and ends within a second of the program's end."""
    ours, theirs = os.pipe()
    parent = subprocess.Popen(
        [sys.executable, "-c", SPAWNER, str(theirs)], stdout=subprocess.PIPE, pass_fds=[theirs], text=True
    )
    os.close(theirs)
    with parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "up\n"
        # The other end is open in the parent and in the process: end of file means that both are gone.
        assert select.select([ours], [], [], 0.2) == ([], [], [])
        parent.send_signal(how)
        parent.wait(10)
        assert ([ours], [], []) == select.select([ours], [], [], 1)
    assert os.read(ours, 1) == b""
    os.close(ours)


@pytest.mark.parametrize("huge_pages", [True, False])
def test_process_does_without_huge_pages(tmp_path: Path, huge_pages: bool) -> None:
    """Who is to take little memory gets small pages (proc_pid_status(5), THP_enabled); this process keeps its own."""
    told = tmp_path / "told"
    with told.open("wb") as stderr:
        process = SandboxedProcess(
            [*sandbox(Path("/")), "sh", "-c", "grep THP_enabled /proc/self/status >&2"],
            pass_fds=[],
            stderr=stderr.fileno(),
            on_exit=lambda _: None,
            name="x",
            huge_pages=huge_pages,
        )
        process.join()
    assert ["THP_enabled:", str(int(huge_pages))] == told.read_text().split()
    assert "THP_enabled:\t1" in Path("/proc/self/status").read_text()
