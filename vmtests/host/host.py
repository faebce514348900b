"""This host, as machines need it: its tools, accelerator, firmware, memory, and places for files."""

import contextlib
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from vmtests.errors import InputError
from vmtests.host import accel, firmware, tools
from vmtests.host.accel import Accelerator, AcceleratorName
from vmtests.host.admission import Admission
from vmtests.host.architecture import GUEST
from vmtests.host.firmware import Firmware
from vmtests.host.lazy import lazy
from vmtests.host.scratch import owned, scratch
from vmtests.host.tools import Toolbox
from vmtests.resources import cache_dir


class Host:
    """What this host gives to machines, each part found out when it is needed first; a context manager.

    `accelerator` is `auto`, `kvm` or `tcg`, tried with `cpus` processors. Processes that name the same `run` share its
    scratch directory. Raises HostError when the host lacks something.
    """

    def __init__(self, *, accelerator: str = "auto", run: str = "", cpus: int = 2) -> None:
        self._cpus = cpus
        self._request = accelerator
        self._run = run
        self._stack = contextlib.ExitStack()
        self._left = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self._left = True
        self.__dict__.pop("scratch", None)

    @lazy
    def toolbox(self) -> Toolbox:
        """The tools."""
        return tools.find()

    @lazy
    def accelerator(self) -> Accelerator:
        """The accelerator, found out by running a virtual CPU."""
        return accel.choose(self.toolbox, accel.Request(self._request), self._cpus)

    def give_up_kvm(self, reason: str) -> bool:
        """Go on without KVM, which failed for `reason`; False where it was asked for, or is not used."""
        if accel.Request(self._request) is not accel.Request.AUTO or self.accelerator.name is AcceleratorName.TCG:
            return False
        self.__dict__["accelerator"] = accel.without_kvm(self.toolbox, reason, self._cpus)
        return True

    @lazy
    def admission(self) -> Admission:
        """Who lets machines in while there is memory for them."""
        return Admission(cache_dir() / "machines")

    @lazy
    def scratch(self) -> Path:
        """A directory in the cache that ends with this, or with the last process of its run."""
        if self._left:
            raise InputError("the laboratory is closed", hint="its machines are made, and end, in its `with` block")
        return self._stack.enter_context(scratch(cache_dir(), self._run))

    def private(self) -> Path:
        """Return a new directory below `scratch` for secrets, which nobody else may enter."""
        return Path(tempfile.mkdtemp(prefix="private-", dir=self.scratch))

    def keep(self, directory: Path) -> None:
        """Have nobody remove a directory of the cache as long as this lives."""
        self._stack.enter_context(owned(directory))

    def firmware(self, *, secure_boot: bool = False) -> Firmware:
        """Return the firmware that goes with QEMU."""
        return firmware.find(self.toolbox.root(GUEST.qemu), secure_boot=secure_boot)
