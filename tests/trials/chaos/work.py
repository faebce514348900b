"""Work that is brought to harm: commands of vmtests in a process of their own, each with an end of a pipe.

It is a person's command, with a small image in the place of the reference image; in QEMU's place is a script, or a
real QEMU whose guest never runs an instruction.
"""

import argparse
import faulthandler
import functools
import os
import secrets
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from tests import small_disk
from tests.machine.conftest import FAKE_QEMU, Recorder
from tests.trials.chaos import harms, moments
from tests.trials.chaos.warm import TOOLBOX
from vmtests import cli
from vmtests import contract as contracts
from vmtests.cli import doctor
from vmtests.host import firmware
from vmtests.host.accel import Accelerator, AcceleratorName
from vmtests.host.architecture import GUEST
from vmtests.host.host import Host
from vmtests.host.sandbox import _BARE, View, sandbox
from vmtests.host.tools import Toolbox
from vmtests.image import cache, spec
from vmtests.machine.hardware import Hardware
from vmtests.machine.qemu import QemuMachine
from vmtests.machine.template import Template
from vmtests.qemu.vm import QemuVm
from vmtests.testing.consoles import recording

MARK = "VMTESTS_CHAOS"
"""The variable by which the processes of a piece of work are known, wherever they end up."""

_TEST = "def test_boots(cold_vm):\n    assert cold_vm().verdict.ready\n"
_TCG = Accelerator(name=AcceleratorName.TCG, reason="chaos", cpu="max", scale=4)
_QMP_SECONDS = 1.5
_STUCK_SECONDS = 150.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be done, where, and what is to happen at which moment of it; `mark` is told by every process.

    `holder` is the process that holds the disk it is done on, if that is one of its own.
    """

    work: str
    place: Path
    mark: str
    harm: str = ""
    moment: str = ""
    watched: tuple[str, ...] = ()
    tool: str = ""
    qmp: str = ""
    endpoint: str = ""
    holder: int = 0
    token: str = ""

    @property
    def said(self) -> Path:
        """The file with all that is said, on a disk that nothing happens to."""
        return self.place.with_name(f"{self.place.name}.said")

    @property
    def came(self) -> Path:
        """The file that is there when the moment has come; in it, those of the watched ones that have."""
        return self.place.with_name(f"{self.place.name}.came")


def main(order: Order, pipe: Connection) -> None:
    """Do it, and exit as the command does."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if order.holder:
        small_disk.join(order.holder)
    with order.said.open("ab") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    faulthandler.dump_traceback_later(_STUCK_SECONDS, file=sys.stderr)
    cwd = order.place / "cwd" / str(os.getpid())
    cwd.mkdir()
    os.chdir(cwd)
    if order.token:
        os.environ["VMTESTS_GCE_TOKEN"] = order.token
    os.environ |= {MARK: order.mark, "VMTESTS_CACHE": str(order.place / "cache"), "FAKE_QMP": order.qmp}
    os.environ["FAKE_PLAYS"] = str(order.place.parent / "plays")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vmtests.host.sandbox._BARE", _BARE | {MARK, "FAKE_QMP", "FAKE_PLAYS"})
        _no_luck(patch)
        if order.tool:
            harms.strike_tool(patch, order.tool, order.harm)
        if order.moment:
            moments.arm(patch, order.moment, lambda: _happen(order, pipe))
        for moment in order.watched:
            moments.arm(patch, moment, functools.partial(_note, order, moment))
        status = WORK[order.work](order, patch)
    sys.exit(status)


def _happen(order: Order, pipe: Connection) -> None:
    order.came.touch()
    harms.HARMS[order.harm](order.place, pipe)


def _note(order: Order, moment: str) -> None:
    with order.came.open("a", encoding="utf-8") as came:
        came.write(f"{moment}\n")


def _no_luck(patch: pytest.MonkeyPatch) -> None:
    """Have the token that the recorded consoles say."""
    real = secrets.token_hex
    patch.setattr(secrets, "token_hex", lambda size=32: "0123456789abcdef" if size == 8 else real(size))


def prepare(directory: Path) -> None:
    """Make what the work is done on, once: a small store, and consoles. The disk is `build`'s."""
    store = directory / "store/00000000000000000000000000000000-system"
    store.mkdir(parents=True)
    for number in range(20):
        (store / str(number)).write_bytes(bytes([number]) * 50_000)
    (directory / "loader").write_bytes(b"MZ" + bytes(1000))
    described = spec.ImageSpec(
        version=1,
        name="chaos",
        esp={contracts.default().boot.loader: directory / "loader"},
        store=spec.StoreSpec(directory=store.parent, paths=(f"/nix/store/{store.name}",)),
    )
    (directory / "image.json").write_bytes(spec.to_json(described))
    console = recording("reference-ready").console
    begin = console.index(b"Booting initrd of") + 400
    for kind, parts in {"cold": (console[:begin], console[begin:]), "incoming": (console[begin:],)}.items():
        (directory / "plays" / kind).mkdir(parents=True)
        for number, part in enumerate(parts):
            (directory / "plays" / kind / str(number)).write_bytes(part)
    (directory / "plays/whole/cold").mkdir(parents=True)
    (directory / "plays/whole/cold/0").write_bytes(console)


def build(order: Order, _: pytest.MonkeyPatch, *further: str) -> int:
    """Build an image and its archive."""
    out = order.place / "out"
    described = str(order.place.parent / "image.json")
    arguments = ("--spec", described, "--out", str(out / "disk.raw"), "--archive", str(out / "image.tar.gz"))
    return cli.main(["build", *arguments, *further])


def compressed(order: Order, patch: pytest.MonkeyPatch) -> int:
    """Build one whose store is compressed, which takes tar(1) and mkfs.erofs(1)."""
    return build(order, patch, "--compress", "lz4")


def cached(order: Order, patch: pytest.MonkeyPatch) -> int:
    """Have the image of the cache, in which a small one stands for the reference image."""
    described = spec.load(order.place.parent / "image.json")
    # What a kernel's symbols are looked for beside.
    with_kernel = {**described.esp, contracts.default().boot.kernel: next(iter(described.esp.values()))}
    small = spec.ImageSpec(version=1, name="chaos", esp=with_kernel, store=described.store)
    patch.setattr(cache, "_describe", lambda *_: small)
    return cli.main(["build"])


class _FakeToolbox(Toolbox):
    """The tools of this host, but for QEMU, which is a script."""

    def argv(self, name: str, *args: str | os.PathLike[str], view: View | None = None) -> list[str]:
        """Return the script's command line where QEMU is asked for."""
        if name != GUEST.qemu:
            return super().argv(name, *args, view=view)
        return [*sandbox(Path("/")), sys.executable, str(FAKE_QEMU), name, *(os.fspath(arg) for arg in args)]


def _fake_qemu(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Host, "toolbox", _FakeToolbox(TOOLBOX.tools, TOOLBOX.tree))
    patch.setattr(Host, "accelerator", _TCG)
    # There is no guest that could be asked.
    patch.setattr(QemuVm, "keep", lambda _: None)
    patch.setattr(QemuVm, "diagnose", lambda _, __: None)


def _impatient(patch: pytest.MonkeyPatch) -> None:
    from vmtests.machine import qmp

    patch.setattr(qmp, "CONNECT_SECONDS", _QMP_SECONDS)
    real = qmp.Qmp._call

    def call(self: qmp.Qmp, asked: Any, timeout: float, what: str) -> Any:
        return real(self, asked, min(timeout, _QMP_SECONDS), what)

    patch.setattr(qmp.Qmp, "_call", call)


def boot(order: Order, patch: pytest.MonkeyPatch, *further: str) -> int:
    """Boot a disk, with a TPM."""
    _fake_qemu(patch)
    if order.qmp:
        _impatient(patch)
    if not further:
        os.environ["FAKE_PLAYS"] += "/whole"
    disk, results = str(order.place.parent / "disk.raw"), str(order.place / "results")
    return cli.main(["boot", disk, "--tpm", "--quiet", "--plain", "--results", results, *further])


def rewind(order: Order, patch: pytest.MonkeyPatch) -> int:
    """Boot it from where the initrd begins, which the first call keeps."""
    return boot(order, patch, "--rewind", "initrd")


def run_tests(order: Order, patch: pytest.MonkeyPatch) -> int:
    """Run a test that boots a machine."""
    _fake_qemu(patch)
    os.environ["FAKE_PLAYS"] += "/whole"
    (test := order.place / "cwd" / "test_it.py").write_text(_TEST)
    options = (
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:hypothesispytest",
        "-p",
        "no:xdist",
        "--rootdir",
        str(test.parent),
    )
    disk, results = order.place.parent / "disk.raw", order.place / "results"
    return int(pytest.main([*options, str(test), f"--vm-image={disk}", f"--vm-results={results}"]))


def machine(order: Order, patch: pytest.MonkeyPatch) -> int:
    """Start a real QEMU and its TPM, keep the machine, go on from it: all before the guest's first instruction."""

    def run(_: argparse.Namespace) -> int:
        with Host() as host:
            made: dict[str, Any] = {
                "toolbox": host.toolbox, "accelerator": _TCG, "firmware": firmware.find(host.toolbox.root(GUEST.qemu)),
                "hardware": Hardware(memory_mib=64, tpm=True), "image": order.place.parent / "disk.raw",
            }  # fmt: skip
            kept = host.scratch / "kept"
            with QemuMachine(**made, results=order.place / "results/a", scratch=host.scratch) as first:
                with first.snapshot(kept):
                    pass
                first.power_cut()
                first.start()
            going_on = {**made, "template": Template(kept), "scratch": host.scratch}
            with QemuMachine(**going_on, results=order.place / "results/b", listener=Recorder()) as second:
                second.screenshot()
        return 0

    real = QemuMachine.execute

    def still(self: QemuMachine, command: str, *arguments: Any, **options: Any) -> object:
        # The guest never begins.
        return None if command == "cont" else real(self, command, *arguments, **options)

    patch.setattr(QemuMachine, "execute", still)
    patch.setattr(doctor, "run", run)
    return cli.main(["doctor"])


def upload(order: Order, patch: pytest.MonkeyPatch) -> int:
    """Boot a disk on a Compute Engine."""
    del patch
    disk, results = str(order.place.parent / "disk.raw"), str(order.place / "results")
    where = (f"--gce-endpoint={order.endpoint}", "--gce-zone=us-central1-a")
    return cli.main(["gce", "run", disk, "--quiet", "--results", results, *where])


def collect(order: Order, patch: pytest.MonkeyPatch) -> int:
    """Remove what dead runs have left there."""
    del patch
    return cli.main(["gce", "gc", f"--gce-endpoint={order.endpoint}"])


WORK: dict[str, Callable[[Order, pytest.MonkeyPatch], int]] = {
    "build": build,
    "compressed": compressed,
    "cached": cached,
    "boot": boot,
    "rewind": rewind,
    "test": run_tests,
    "machine": machine,
    "upload": upload,
    "collect": collect,
}
