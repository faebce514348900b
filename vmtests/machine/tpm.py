"""The machine's TPM: swtpm, which QEMU asks over a socket."""

import contextlib
import socket
from pathlib import Path

from vmtests.host.process import SandboxedProcess
from vmtests.host.sandbox import View
from vmtests.host.tools import Toolbox
from vmtests.host.user import give, unprivileged


def start_tpm(toolbox: Toolbox, state: Path, log: Path) -> tuple[SandboxedProcess, socket.socket]:
    """Start swtpm on the directory `state`; return it, and QEMU's end of its control channel.

    What it says is added to `log`. Raises HostError, OSError.
    """
    user = unprivileged(toolbox.root("swtpm"), ())
    give(user, state)
    swtpm_end, qemu_end = socket.socketpair()
    with contextlib.ExitStack() as failed, swtpm_end, log.open("ab") as said:
        failed.callback(qemu_end.close)
        command = toolbox.argv(
            *("swtpm", "socket", "--tpm2", "--terminate", "--tpmstate", f"dir={state}"),
            *("--ctrl", f"type=unixio,clientfd={swtpm_end.fileno()}"),
            view=View(writable=(state,), user=user, network=False),
        )
        process = SandboxedProcess(
            command, pass_fds=[swtpm_end.fileno()], stderr=said.fileno(), on_exit=lambda _: None, name="swtpm"
        ).start()
        failed.pop_all()
    return process, qemu_end
