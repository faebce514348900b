"""A machine's state, without its memory, on its way out or in (QEMU's docs/devel/migration)."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

from vmtests.errors import HostError, from_os
from vmtests.host.place import free

_LOOK = 0.002  # seconds between two looks at what takes some hundredths of a second
_ROOM = 1 << 20  # bytes, more than the devices' state

Execute = Callable[..., object]


def send(execute: Execute, state: Path, ended: threading.Event) -> None:
    """Write the state to a file; raises HostError where it cannot be."""
    _ignore_memory(execute)
    execute("migrate", {"uri": f"file:{state}"})
    try:
        _wait(execute, ended)
    except HostError as error:
        # QEMU calls it an input/output error.
        if (room := free(state.parent)) is not None and room < _ROOM:
            full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(state.parent))
            raise from_os("the machine's state cannot be kept", full) from error
        raise


def receive(execute: Execute, state: Path, ended: threading.Event) -> None:
    """Take the state of another machine from a file; raises HostError where it cannot be."""
    _ignore_memory(execute)
    execute("migrate-incoming", {"uri": f"file:{state}"})
    _wait(execute, ended)


def _ignore_memory(execute: Execute) -> None:
    capability = {"capability": "x-ignore-shared", "state": True}
    execute("migrate-set-capabilities", {"capabilities": [capability]})


def _wait(execute: Execute, ended: threading.Event) -> None:
    """Wait until the state of the devices is out, or in."""
    pause = threading.Event()
    while True:
        answer = execute("query-migrate")
        status = answer.get("status") if isinstance(answer, dict) else None
        if status == "completed":
            return
        if status in {"failed", "cancelled"} or ended.is_set():
            reason = answer.get("error-desc", status) if isinstance(answer, dict) else status
            raise HostError(f"the machine's state cannot be kept or taken: {reason}")
        pause.wait(_LOOK)
