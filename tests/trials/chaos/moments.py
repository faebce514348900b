"""The steps of each piece of work at which something may happen."""

import functools
import importlib
import itertools
from collections.abc import Callable
from typing import Any

import pytest

MOMENTS = {
    "build": (
        "vmtests.image.assemble:survey",
        "vmtests.image.rootfiles:fill",
        "vmtests.image.erofswrite:write",
        "vmtests.image.erofswrite:_Writer.finish",
        "vmtests.image.assemble:_partition",
        "vmtests.image.repart:write_definitions",
        "vmtests.host.tools:Toolbox.run",
        "vmtests.image.assemble:publish",
        "vmtests.image.archive:write",
        "vmtests.image.archive:_content",
        "vmtests.image.archive:publish",
    ),
    "compressed": (
        "vmtests.image.mkerofs:write",
        "vmtests.image.mkerofs:_watch",
        "vmtests.image.mkerofs:_verified_size",
    ),
    "cached": (
        "vmtests.image.cache:_build",
        "vmtests.image.assemble:assemble",
        "vmtests.image.erofswrite:_Writer.finish",
        "vmtests.image.cache:_prune",
    ),
    "boot": (
        "vmtests.qemu.lab:Key.generate",
        "vmtests.machine.drives:make",
        "vmtests.machine.qemu:start_tpm",
        "vmtests.machine.qemu:machine_view",
        "vmtests.machine.qemu:QemuMachine.load",
        "vmtests.machine.qemu:QemuMachine.execute#1",
        "vmtests.qemu.vm:QemuVm.wait_verdict",
        "vmtests.machine.qemu:QemuMachine.close",
        "vmtests.report.page:write",
    ),
    "rewind": (
        "vmtests.qemu.snapshots:Lock.alone_now",
        "vmtests.machine.qemu:QemuMachine.snapshot",
        "vmtests.machine.qemu:copy_sparse",
        "vmtests.machine.drives:keep",
        "vmtests.qemu.snapshots:take_logs",
        "vmtests.qemu.snapshots:state_digest",
        "vmtests.qemu.snapshots:save",
        "vmtests.qemu.snapshots:prune",
    ),
    "resume": (
        "vmtests.qemu.snapshots:load",
        "vmtests.qemu.snapshots:Snapshot.give_logs",
        "vmtests.machine.drives:take",
        "vmtests.machine.qemu:QemuMachine._resume",
        "vmtests.qemu.vm:QemuVm.wait_verdict",
    ),
    "test": (
        "vmtests.plugin.machines:Machines.image",
        "vmtests.machine.drives:make",
        "vmtests.machine.qemu:QemuMachine.load",
        "vmtests.qemu.vm:QemuVm.wait_verdict",
        "vmtests.machine.qemu:QemuMachine.close",
        "vmtests.report.page:write",
    ),
    "machine": (
        "vmtests.machine.qemu:QemuMachine.load",
        "vmtests.machine.qemu:QemuMachine.snapshot",
        "vmtests.machine.drives:keep",
        "vmtests.machine.qemu:QemuMachine.power_cut",
        "vmtests.machine.qemu:QemuMachine._resume",
        "vmtests.machine.qemu:QemuMachine.screenshot",
    ),
    "upload": (
        "vmtests.gce.ledger:Ledger.new",
        "vmtests.gce.lab:upload",
        "vmtests.gce.lab:make_image",
        "vmtests.gce.lab:insert",
        "vmtests.vm.vm:Vm.wait_verdict",
        "vmtests.gce.session:remove#2",
    ),
}
"""`module:name`, as the work looks it up, and behind `#` which call of it: what happens comes before it."""


def arm(patch: pytest.MonkeyPatch, moment: str, happen: Callable[[], None]) -> None:
    """Have `happen` called at a moment, once."""
    target, _, number = moment.partition("#")
    module, _, name = target.partition(":")
    owner: Any = importlib.import_module(module)
    *outer, last = name.split(".")
    for part in outer:
        owner = getattr(owner, part)
    real = vars(owner)[last]
    function = real.__func__ if isinstance(real, classmethod | staticmethod) else real
    calls = itertools.count(1)
    wanted = int(number or "1")

    @functools.wraps(function)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        if next(calls) == wanted:
            happen()
        return function(*arguments, **options)

    kind = type(real) if isinstance(real, classmethod | staticmethod) else None
    patch.setattr(owner, last, wrapped if kind is None else kind(wrapped))
