"""A sandboxed process that lives as long as its own thread, and ends with this one at the latest."""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

from vmtests.errors import HostError, of_host
from vmtests.host.sandbox import Sandboxed, bare_env

_PR_SET_THP_DISABLE = 41  # linux/prctl.h
_libc = ctypes.CDLL(None)
_KEYCTL, _JOIN_SESSION_KEYRING = 250, 1  # x86-64; linux/keyctl.h
_IOPRIO_SET, _IOPRIO_WHO_PROCESS, _IOPRIO_CLASS_IDLE = 251, 1, 3 << 13  # x86-64; linux/ioprio.h
_NICEST = 19


def give_way() -> None:
    """Have this process, and those that it starts, use processors and disks when nobody else wants them.

    It is nice(2)'s last value and ionice(1)'s class `idle`, which some I/O schedulers do not know.
    """
    os.nice(_NICEST)
    _libc.syscall(_IOPRIO_SET, _IOPRIO_WHO_PROCESS, 0, _IOPRIO_CLASS_IDLE)


@contextlib.contextmanager
def _small_pages() -> Iterator[None]:
    """Have processes that are started meanwhile, and those that they start, do without transparent huge pages.

    It is the setting of this process that they inherit (PR_SET_THP_DISABLE, prctl(2)). If threads overlap, one of them
    gets the other's, which changes what its process takes and nothing else.
    """
    _libc.prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0)
    try:
        yield
    finally:
        _libc.prctl(_PR_SET_THP_DISABLE, 0, 0, 0, 0)


class SandboxedProcess:
    """A process of a bubblewrap command line (`Toolbox.argv`), which `start` starts.

    The kernel kills it when the thread that started it ends (PR_SET_PDEATHSIG, prctl(2)), so it has a thread
    that does nothing but start it and wait. `on_exit` is called in that thread with the exit status, after
    the last process of the sandbox is gone: what it had open is closed, and locks on its files are free. Without
    `huge_pages` it takes the memory that it writes to and no more.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        pass_fds: Sequence[int],
        stderr: int,
        on_exit: Callable[[int], None],
        name: str,
        huge_pages: bool = True,
    ) -> None:
        self._argv = argv
        self._pass_fds = tuple(pass_fds)
        self._stderr = stderr
        self._on_exit = on_exit
        self._huge_pages = huge_pages
        self._started = threading.Event()
        self._failure: Exception | None = None
        self._lock = threading.Lock()
        self._popen: subprocess.Popen[bytes] | None = None
        self._init: int | None = None
        self._init_pid = 0
        self._unwanted = False
        self.ran = False
        """Whether it was started: `on_exit` is called, or will be."""
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)

    def start(self) -> Self:
        """Start it, once; raises HostError. Whoever is interrupted meanwhile has nothing that runs."""
        try:
            self._thread.start()
            self._started.wait()
        except BaseException:
            self.kill()
            if self.ran:
                self._started.wait()  # what it inherits is closed next
            raise
        if self._failure is not None:
            self._thread.join()
            if not isinstance(self._failure, OSError):
                raise of_host(self._failure) or self._failure
            raise HostError(
                f"{self._argv[0]} cannot be run: {self._failure.strerror}",
                hint="vmtests doctor says what is missing",
            ) from self._failure
        return self

    def kill(self) -> None:
        """End it at once, with SIGKILL; returns without waiting. One that is just being started ends then."""
        with self._lock:
            self._unwanted = True
            if self._init is not None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._init, signal.SIGKILL)
            elif self._popen is not None:
                self._popen.kill()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program itself, not to the sandbox around it."""
        with self._lock:
            if self._init is None:
                return
            # It may end at any of these moments; its number is nobody else's while its parent has not waited for it.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                for child in self._children():
                    os.kill(int(child), number)

    @property
    def late(self) -> float:
        """Seconds that the program waited for a processor of the host: of its threads, the one that waited most.

        The second number of `/proc/PID/task/TID/schedstat` (Documentation/scheduler/sched-stats.rst of Linux), in
        nanoseconds; 0 where the kernel does not tell it, and when the program has ended.
        """
        with self._lock:
            if self._init is None:
                return 0.0
            waited = 0
            with contextlib.suppress(OSError):
                for child in self._children():
                    for thread in Path(f"/proc/{child}/task").iterdir():
                        with contextlib.suppress(OSError):
                            waited = max(waited, int((thread / "schedstat").read_text().split()[1]))
            return waited / 1e9

    def _children(self) -> list[str]:
        """Return the process numbers of the program behind the sandbox's init (proc_pid_task(5), `children`)."""
        return Path(f"/proc/{self._init_pid}/task/{self._init_pid}/children").read_text(encoding="utf-8").split()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end and for `on_exit`; `timeout` is in seconds. Return whether it came."""
        with contextlib.suppress(RuntimeError):  # its thread has not begun, and will start nothing
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _live(self) -> None:
        with self._lock:
            if self._unwanted:
                return
            self.ran = True
        read_end, write_end = os.pipe()
        with os.fdopen(read_end, "rb", buffering=0) as status:
            try:
                with os.fdopen(write_end, "wb"):
                    popen = self._start(write_end, read_end)
                self._attach(popen, status.readline())
            except Exception as error:  # noqa: BLE001 - who waits for it raises it
                self._failure, self.ran = error, False
                return
            finally:
                self._started.set()
            returncode = popen.wait()
            # The status pipe stays open until here: bubblewrap writes to it when its child ends.
        with self._lock:
            self._popen = None
            if self._init is not None:
                os.close(self._init)
                self._init = None
        self._on_exit(returncode)

    def _start(self, status_fd: int, read_end: int) -> subprocess.Popen[bytes]:
        split = self._argv.index("--")
        # If we end, bubblewrap must not end alone, of a pipe that nobody reads: it keeps the other end open itself.
        pipe = ("--json-status-fd", str(status_fd), "--sync-fd", str(read_end))
        # In the caller's are tickets and passwords (session-keyring(7)); it is the thread's, and its child's.
        _libc.syscall(_KEYCTL, _JOIN_SESSION_KEYRING, None)
        with contextlib.nullcontext() if self._huge_pages else _small_pages():
            return Sandboxed[bytes](
                [*self._argv[:split], *pipe, *self._argv[split:]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                pass_fds=(*self._pass_fds, status_fd, read_end),
                env=bare_env(),
            )

    def _attach(self, popen: subprocess.Popen[bytes], line: bytes) -> None:
        """Take hold of the sandbox's init: when it is killed, bubblewrap outlives all the others."""
        with self._lock:
            self._popen = popen
            with contextlib.suppress(ValueError, KeyError, ProcessLookupError):
                self._init_pid = json.loads(line)["child-pid"]
                self._init = os.pidfd_open(self._init_pid)
            unwanted = self._unwanted
        if unwanted:
            self.kill()
