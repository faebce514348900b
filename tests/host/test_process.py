"""Processes that end with this one."""

import ctypes
import errno
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import pytest

from tests.signals import block, heed
from vmtests.errors import HostError
from vmtests.host import sandbox, supervise
from vmtests.host.process import SandboxedProcess

SPAWNER = """
import os, sys, threading
from pathlib import Path
from vmtests.host.process import SandboxedProcess
from vmtests.host import sandbox
if sys.argv[2] == "watched":
    sandbox.refusal = lambda: "namespaces are refused"
argv = [*sandbox.sandbox(Path("/")), "sh", "-c", "sleep 600 & setsid sleep 600 & wait"]
started = []
def start():
    fds = [int(sys.argv[1])]
    started.append(SandboxedProcess(argv, pass_fds=fds, stderr=2, on_exit=lambda _: None, name="x").start())
thread = threading.Thread(target=start)
thread.start()
thread.join()
print("up", flush=True)
threading.Event().wait()
"""


# Where the host refuses namespaces there is one way only, the one that is used there.
@pytest.fixture(params=["bubblewrap", "watched"] if sandbox.refusal() is None else ["watched"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How it is started: in a process namespace, or under two watchers."""
    chosen: str = request.param
    if chosen == "watched":
        monkeypatch.setattr(sandbox, "refusal", lambda: "namespaces are refused")
    return chosen


def start(*command: str, ended: threading.Event, statuses: list[int]) -> SandboxedProcess:
    """Start a command in a sandbox."""

    def on_exit(status: int) -> None:
        statuses.append(status)
        ended.set()

    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        return SandboxedProcess(
            [*sandbox.sandbox(Path("/")), *command],
            pass_fds=(),
            stderr=nowhere.fileno(),
            on_exit=on_exit,
            name="test",
        ).start()


@pytest.mark.usefixtures("way")
def test_exit_status() -> None:
    """The exit status is told once the process has ended."""
    ended, statuses = threading.Event(), list[int]()
    process = start("sh", "-c", "exit 7", ended=ended, statuses=statuses)
    assert process.join(10)
    assert statuses == [7]


@pytest.mark.usefixtures("way")
def test_killed() -> None:
    """A killed process is told as 128 and the signal's number."""
    ended, statuses = threading.Event(), list[int]()
    process = start("sleep", "600", ended=ended, statuses=statuses)
    process.kill()
    assert ended.wait(10)
    assert statuses == [128 + signal.SIGKILL]
    process.kill()


@pytest.mark.usefixtures("way")
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


_READ_KEY = "import ctypes, sys; sys.exit(ctypes.CDLL(None).syscall(250, 11, int(sys.argv[1]), 0, 0) >= 0)"


@pytest.mark.usefixtures("way")
def test_keys_of_whoever_starts_it_are_not_read() -> None:
    """It has a session keyring of its own (keyctl(2))."""
    keyctl, add_key, session = 250, 248, -3  # x86-64; linux/keyctl.h
    syscall, statuses = ctypes.CDLL(None, use_errno=True).syscall, list[int]()

    def work() -> None:
        if syscall(keyctl, 1, None) < 0:
            statuses.append(-ctypes.get_errno())
            return
        key = syscall(add_key, b"user", b"password", b"hush", 4, session)
        assert syscall(keyctl, 11, key, 0, 0) == len("hush")
        ended = threading.Event()
        assert start(sys.executable, "-c", _READ_KEY, str(key), ended=ended, statuses=statuses).join(10)

    with ThreadPoolExecutor(1) as pool:  # the keyring is its thread's
        pool.submit(work).result()
    # Where a container has no keys, there are none to read.
    assert statuses in ([0], [-errno.EPERM], [-errno.ENOSYS])


def test_no_program() -> None:
    """A sandbox that is not installed is the host's error."""
    with pytest.raises(HostError, match="/nowhere/bwrap cannot be run"):
        SandboxedProcess(
            ["/nowhere/bwrap", "--", "x"], pass_fds=(), stderr=2, on_exit=lambda _: None, name="x"
        ).start()


def test_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the thread that starts it lacks is told to whoever waits for the start, and nobody waits for its end."""

    def fail(*_: object) -> NoReturn:
        raise MemoryError

    monkeypatch.setattr(SandboxedProcess, "_start", fail)
    with pytest.raises(HostError, match="no memory left"):
        SandboxedProcess(["bwrap", "--", "x"], pass_fds=(), stderr=2, on_exit=lambda _: None, name="x").start()


class Interrupted(threading.Event):
    """Is waited for by somebody who is interrupted then, once."""

    waits = 0

    def wait(self, timeout: float | None = None) -> bool:
        """Wait."""
        self.waits += 1
        if self.waits == 1:
            raise KeyboardInterrupt
        return super().wait(timeout)


@pytest.mark.usefixtures("way")
def test_whoever_is_interrupted_while_it_starts_has_nothing_that_runs() -> None:
    """Ctrl-C comes while it is being started: it ends as one that is killed, and can be waited for."""
    ended, statuses = threading.Event(), list[int]()

    def on_exit(status: int) -> None:
        statuses.append(status)
        ended.set()

    process = SandboxedProcess(
        [*sandbox.sandbox(Path("/")), "sleep", "600"], pass_fds=(), stderr=2, on_exit=on_exit, name="test"
    )
    process._started = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        process.start()
    assert process.join(20)
    assert (True, [128 + signal.SIGKILL]) == (process.ran, statuses)


def test_what_is_killed_before_its_thread_has_begun_never_starts() -> None:
    """Ctrl-C may come before that."""
    process = SandboxedProcess(["/nowhere", "--"], pass_fds=(), stderr=2, on_exit=lambda _: None, name="test")
    process.kill()
    assert process.join(0)
    process._live()
    assert not process.ran


def test_a_signal_comes_too_late_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever ended in the moment of a signal is not an error: its entry in /proc is gone then."""
    ended, statuses = threading.Event(), list[int]()
    process = start("sleep", "600", ended=ended, statuses=statuses)
    gone = subprocess.Popen(["true"])
    gone.wait()
    monkeypatch.setattr(process, "_init_pid", gone.pid)
    process.signal(signal.SIGTERM)
    assert not ended.is_set()
    process.kill()
    assert process.join(10)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_ends_with_its_parent(how: signal.Signals, way: str) -> None:
    """A process outlives the thread that asked for it, and ends with the program: soon also on a busy host."""
    ours, theirs = os.pipe()
    parent = subprocess.Popen(
        [sys.executable, "-c", SPAWNER, str(theirs), way], stdout=subprocess.PIPE, pass_fds=[theirs], text=True
    )
    os.close(theirs)
    with parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "up\n"
        # The other end is open in the parent and in the process: end of file means that both are gone.
        assert select.select([ours], [], [], 0.2) == ([], [], [])
        parent.send_signal(how)
        parent.wait(10)
        assert ([ours], [], []) == select.select([ours], [], [], 20)
    assert os.read(ours, 1) == b""
    os.close(ours)


ENDS_EARLY = """
import os, subprocess, sys
from pathlib import Path
from vmtests.host import sandbox
from vmtests.host.process import SandboxedProcess
if sys.argv[2] == "watched":
    sandbox.refusal = lambda: "namespaces are refused"
argv = [*sandbox.sandbox(Path("/")), "sh", "-c", f"echo began >/proc/self/fd/{sys.argv[1]}; setsid sleep 600; wait"]
kind = subprocess.Popen if sys.argv[3] == "started" else sandbox.Sandboxed
make = kind.__init__
def end(*arguments, **options):
    make(*arguments, **options)
    os.kill(os.getpid(), 9)
kind.__init__ = end
SandboxedProcess(argv, pass_fds=[int(sys.argv[1])], stderr=2, on_exit=lambda _: None, name="x").start()
"""


@pytest.mark.parametrize("moment", ["started", "let begin"])
def test_ends_with_a_parent_that_is_killed_while_it_starts(moment: str, way: str) -> None:
    """kill -9 in the moment in which it is started, or has just been let begin, leaves nothing of it."""
    ours, theirs = os.pipe()
    parent = subprocess.Popen([sys.executable, "-c", ENDS_EARLY, str(theirs), way, moment], pass_fds=[theirs])
    os.close(theirs)
    assert parent.wait(20) == -signal.SIGKILL
    said = b""
    while select.select([ours], [], [], 20)[0] and (data := os.read(ours, 100)):
        said += data
    # End of file: nobody has the other end any more.
    assert select.select([ours], [], [], 0)[0]
    # In a namespace the program waits for our answer.
    assert not (said and way == "bubblewrap" and moment == "started")
    os.close(ours)


@pytest.mark.parametrize("huge_pages", [True, False])
@pytest.mark.usefixtures("way")
def test_process_does_without_huge_pages(tmp_path: Path, huge_pages: bool) -> None:
    """Who is to take little memory gets small pages (proc_pid_status(5), THP_enabled); this process keeps its own."""
    told = tmp_path / "told"
    with told.open("wb") as stderr:
        process = SandboxedProcess(
            [*sandbox.sandbox(Path("/")), "sh", "-c", "grep THP_enabled /proc/self/status >&2"],
            pass_fds=[],
            stderr=stderr.fileno(),
            on_exit=lambda _: None,
            name="x",
            huge_pages=huge_pages,
        ).start()
        process.join()
    assert ["THP_enabled:", str(int(huge_pages))] == told.read_text().split()
    assert "THP_enabled:\t1" in Path("/proc/self/status").read_text(encoding="utf-8")


@pytest.mark.parametrize("before", [heed, block])
def test_whichever_watcher_is_killed_the_other_ends_all(before: Callable[[], None]) -> None:
    """Without namespaces two processes watch: with either of them gone, nothing of what was started is left.

    Neither is it where whoever has started us blocks the signal that tells them.
    """
    for which in range(2):
        ours, theirs = os.pipe()
        command = [
            sys.executable,
            "-I",
            "-S",
            supervise.__file__,
            "--",
            "sh",
            "-c",
            "setsid sleep 600 & echo up; wait",
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[theirs], preexec_fn=before) as outer:
            os.close(theirs)
            assert outer.stdout is not None
            assert outer.stdout.readline() == b"up\n"
            inner = int(Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text(encoding="utf-8"))
            os.kill((outer.pid, inner)[which], signal.SIGKILL)
            assert ([ours], [], []) == select.select([ours], [], [], 20)
            assert os.read(ours, 1) == b""
        os.close(ours)


def test_program_that_is_not_there_is_named() -> None:
    """Without namespaces, too, a program that cannot be run is said to be one."""
    command = [sys.executable, "-I", "-S", supervise.__file__, "--", "/nowhere/program"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (127, "/nowhere/program cannot be run: No such file or directory\n")
