"""A `vmtests emulator` of its own process, and what it leaves when it is killed."""

import contextlib
import json
import os
import select
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vmtests.gce import tokens

_START_SECONDS = 300.0  # the tools may have to be unpacked
_END_SECONDS = 30.0
_GONE_SECONDS = 10.0
_LOOK = 0.05


class Emulated:
    """The command `vmtests emulator`; a context manager. What it says on standard error goes to `log`."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self._log = log
        self._arguments = arguments

    def __enter__(self) -> Self:
        vmtests = Path(sys.executable).with_name("vmtests")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [vmtests, "emulator", *self._arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
            )
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], _START_SECONDS)
        self.endpoint = self._process.stdout.readline().decode().strip() if ready else ""
        if not self.endpoint:
            self.__exit__(None, None, None)
            raise SystemExit(f"the emulator does not start:\n{self._log.read_text()}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    @property
    def environment(self) -> dict[str, str]:
        """What the emulator tells a person to set for gcloud."""
        while "CLOUDSDK_CORE_PROJECT" not in (said := self._log.read_text()):
            time.sleep(_LOOK)
        lines = [line for line in said.splitlines() if line.startswith("export ")]
        return dict(word.split("=", 1) for line in lines for word in shlex.split(line)[1:])

    @property
    def peak_mib(self) -> float:
        """The most memory that the process has had, in MiB (proc_pid_status(5), VmHWM)."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Return the JSON of an answer; raises OSError when it is an error."""
        data = None if body is None else json.dumps(body).encode()
        headers = tokens.headers(self.endpoint)
        request = urllib.request.Request(f"{self.endpoint}{path}", data=data, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    @property
    def files(self) -> list[Path]:
        """The directory in the cache that goes with the process, and its lock."""
        descriptors = Path(f"/proc/{self._process.pid}/fd")
        opened = [one.readlink() for one in descriptors.iterdir()]
        locks = [path for path in opened if path.suffix == ".lock" and path.parent.name == "emulator"]
        return [path for lock in locks for path in (lock, lock.with_suffix(""))]

    def kill(self) -> list[str]:
        """Kill it with SIGKILL, and return what is left of its processes and network namespaces afterwards."""
        family = _family(self._process.pid)
        ours = {_net(os.getpid())}
        nets = {net for pid in family if (net := _net(pid))} - ours
        machines = [pid for pid in family if "qemu-system" in _command(pid)]
        if not machines or not nets:
            return [f"no machine or no namespace was there to be left: {machines}, {nets}"]
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        end = time.monotonic() + _GONE_SECONDS
        while left := [f"process {pid}: {_command(pid)[:80]}" for pid in family if _command(pid)]:
            if time.monotonic() > end:
                break
            time.sleep(_LOOK)
        everybody = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
        return left + [f"{net} holds process {pid}" for pid in everybody if (net := _net(pid)) in nets]


def _family(root: int) -> list[int]:
    """Return the processes that a process has started, at any remove."""
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        # A thread, and a process with its last one, may end while they are read.
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(OSError):
                    children = [int(word) for word in (task / "children").read_text().split()]
                    found += children
                    waiting += children
    return found


def _command(pid: int) -> str:
    """Return the command line of a process; of one that has ended nothing."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _net(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/net").readlink())
    except OSError:
        return ""
