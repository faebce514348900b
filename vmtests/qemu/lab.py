"""Images and machines for tests, programs and the command line: everything below, put together.

with Lab(results) as lab:
    image = lab.image("reference", ["debug"])
    with lab.machine(image) as vm:
        vm.wait_ready()
        print(vm.run("uname -r").stdout)
"""

import contextlib
import hashlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock
from rich.text import Text

from vmtests import contract as contracts
from vmtests import progress
from vmtests.boot.stages import Stage
from vmtests.contract import Contract
from vmtests.errors import InputError
from vmtests.guest import credentials
from vmtests.host import accel, firmware, tools
from vmtests.host.accel import Accelerator, AcceleratorName
from vmtests.host.admission import Admission
from vmtests.host.firmware import Firmware
from vmtests.host.scratch import remove, scratch
from vmtests.host.tools import Toolbox
from vmtests.image import cache, nix
from vmtests.image.adopt import adopt
from vmtests.image.inspect import inspect
from vmtests.image.reference import Modules, recipe
from vmtests.lazy import lazy
from vmtests.machine.argv import Hardware
from vmtests.machine.disk import backing
from vmtests.machine.life import ResumeError
from vmtests.machine.qemu import QemuMachine
from vmtests.machine.standby import Standby
from vmtests.machine.template import Template
from vmtests.qemu import snapshots
from vmtests.qemu.snapshots import Snapshot
from vmtests.qemu.vm import QemuVm
from vmtests.resources import cache_dir
from vmtests.sizes import GIB
from vmtests.vm import Image, Watch

REWINDS = tuple(stage for stage in Stage if stage is not Stage.FIRMWARE)
"""The stages at whose beginning a machine can be kept (`Lab.rewind`)."""

DISK_SIZE = 4 * GIB
"""Bytes of a machine's disk where nothing else is asked for: larger than most images, so that root grows."""


class QemuStart:
    """A machine that was powered on, or goes on from where an earlier run had booted it (`Lab.start`)."""

    def __init__(self, vm: QemuVm, place: Path, lock: snapshots.Lock, *, kept: Snapshot | None = None) -> None:
        self.vm = vm
        self._place = place
        self._lock = lock
        self._kept = kept

    def wait(self) -> Snapshot:
        """Wait until it is ready and return the snapshot of it, before anybody has touched it.

        Raises BootError, HostError.
        """
        if self._kept is None:
            self.vm.wait_ready()
            self._kept = self.vm.snapshot(self._place)
            snapshots.prune(self._place)
            self._lock.share()
        return self._kept


class Lab:
    """The tools, accelerator and firmware of this host, and a directory for results; a context manager.

    `results` may be a function that makes the directory: it is called when the first machine needs it, so that bad
    input leaves nothing behind. `accelerator` is `auto`, `kvm` or `tcg`, tried with `cpus` processors. Laboratories
    that name the same `run` share what they make for it: images that are unpacked, and booted machines. `timeout`
    limits each boot as a whole, in seconds. Raises HostError when the host cannot run a machine.
    """

    forks = True

    def __init__(
        self,
        results: Path | Callable[[], Path],
        *,
        accelerator: str = "auto",
        contract: Contract | None = None,
        run: str = "",
        cpus: int = 2,
        timeout: float | None = None,
    ) -> None:
        self._cpus = cpus
        self.timeout = timeout
        self._results = results
        self.contract = contract or contracts.default()
        self._request = accelerator
        self._run = run
        self._stack = contextlib.ExitStack()
        self._standbys: dict[Path, Standby] = {}
        self._stack.callback(self.end_standbys)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @lazy
    def results(self) -> Path:
        """The directory for results."""
        return (self._results if isinstance(self._results, Path) else self._results()).absolute()

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
        self.end_standbys()
        self.__dict__["accelerator"] = accel.without_kvm(self.toolbox, reason, self._cpus)
        return True

    @lazy
    def admission(self) -> Admission:
        """Who lets machines in while there is memory for them."""
        return Admission(cache_dir() / "machines")

    def firmware(self, *, secure_boot: bool = False) -> Firmware:
        """Return the firmware that goes with QEMU."""
        return firmware.find(self.toolbox.root("qemu-system-x86_64"), secure_boot=secure_boot)

    def image(self, name: str = "reference", modules: Sequence[str] = ()) -> Image:
        """Return an image by name: `reference`, built unless it is in the cache; `nix[:FLAKE#ATTR]`; or a disk's path.

        The module `debug` is handed to the guest of an image that is built already. Raises InputError for what is
        no image, HostError when it cannot be built.
        """
        parsed = Modules.parse(modules)
        if name == "reference":
            path = cache.reference_image(self.contract, parsed, self.toolbox)
            shown, own = f"reference{'+' if str(parsed) else ''}{parsed}", parsed
        else:
            installable = nix.parse(name)
            if parsed.bloat:
                way = "a configuration imports nixosModules.bloat" if installable else "only debug can be handed to it"
                raise InputError(f"the module bloat is built into the reference image; {name} is another", hint=way)
            shown, own = installable or Path(name).name, None
            path = self._adopted(name, installable)
        inspection = inspect(path, self.contract, self.toolbox)
        return Image(
            name=shown,
            path=path,
            modules=own,
            inspection=inspection,
            archive=Path(name) if own is None and installable is None and path != Path(name) else None,
            debug=own is None and parsed.debug,
        )

    def _adopted(self, name: str, installable: str | None) -> Path:
        """Return somebody's own disk, built or unpacked once for all laboratories of the run."""
        with FileLock(self.scratch / "adopted.lock"):
            note = self.scratch / f"{hashlib.sha256(name.encode()).hexdigest()[:20]}.path"
            if note.exists():
                return Path(note.read_text())
            archive = Path(name) if installable is None else nix.build(installable, self.scratch)
            path = adopt(archive, self.scratch, self.toolbox)
            note.write_text(str(path))
            return path

    @contextlib.contextmanager
    def start(
        self,
        image: Image,
        hardware: Hardware | None = None,
        *,
        name: str = "",
        watch: Watch | None = None,
        cache: bool = True,
    ) -> Iterator["QemuStart"]:
        """Give a machine that is powered on, on its way to ready.

        With `cache` a machine that an earlier run has booted goes on where that boot had ended; otherwise, and when
        there is none, it is booted cold, which `QemuStart.wait` waits for. Raises HostError.
        """
        ordered = self._order(image, hardware, debug=False)
        with (
            self._kept(image, ordered, Stage.READY, cache=cache) as (place, lock, found),
            self._go_on(image, ordered, place, lock, found, name, watch) as (vm, kept),
        ):
            yield QemuStart(vm, place, lock, kept=kept)

    @contextlib.contextmanager
    def rewind(
        self,
        image: Image,
        stage: Stage,
        hardware: Hardware | None = None,
        *,
        name: str = "",
        watch: Watch | None = None,
        debug: bool = False,
        anew: bool = False,
    ) -> Iterator[QemuVm]:
        """Give a machine that stands where `stage` begins, or has its verdict already.

        It is where an earlier call has kept it, or it is booted there and kept; with `anew` it is booted in any case.
        Its clock goes on from then. Raises HostError.
        """
        ordered = self._order(image, hardware, debug=debug)
        with (
            self._kept(image, ordered, stage, cache=True, anew=anew) as (place, lock, found),
            self._go_on(image, ordered, place, lock, found, name, watch) as (vm, kept),
        ):
            if kept is None:
                if stage is not Stage.READY:
                    vm.snapshot_of_stage(place, stage)
                elif vm.wait_verdict().ready:
                    vm.snapshot(place)
                snapshots.prune(place)
                lock.share()
            yield vm

    @contextlib.contextmanager
    def _kept(
        self, image: Image, hardware: Hardware, stage: Stage, *, cache: bool, anew: bool = False
    ) -> Iterator[tuple[Path, snapshots.Lock, Snapshot | None]]:
        """Give the place of a kept machine, its lock, which is held alone where there is none, and what is there."""
        base = cache_dir() if cache and not image.path.is_relative_to(self.scratch) else self.scratch
        place = snapshots.directory(base, image.path, hardware, self.toolbox, self.accelerator, stage)
        with snapshots.Lock(place) as lock:
            if anew:
                lock.alone()
                remove(place)
            if (kept := snapshots.load(place)) is None:
                lock.alone()
                if (kept := snapshots.load(place, clear=True)) is not None:
                    lock.share()
            yield place, lock, kept

    @contextlib.contextmanager
    def _go_on(
        self,
        image: Image,
        hardware: Hardware,
        place: Path,
        lock: snapshots.Lock,
        kept: Snapshot | None,
        name: str,
        watch: Watch | None,
    ) -> Iterator[tuple[QemuVm, Snapshot | None]]:
        """Give a machine that goes on from what was kept, in the logs of that boot, or is booted cold; and from what.

        What QEMU does not go on from is removed: it is no error of the run. The lock is then held alone.
        """
        with contextlib.ExitStack() as stack:
            vm = None
            if kept is not None:
                try:
                    snapshot = kept.give_logs(self.results / name)
                    vm = stack.enter_context(QemuVm(self, image, hardware, name, watch=watch, snapshot=snapshot))
                except ResumeError as error:
                    told = f"a kept machine does not go on and is booted again: {error.message}"
                    progress.stderr().print(Text(told))
                    lock.alone()
                    remove(place)
                    snapshots.forget_logs(self.results / name)
                    kept = None
            if vm is None:
                vm = stack.enter_context(QemuVm(self, image, hardware, name, watch=watch))
            yield vm, kept

    def fork(self, image: Image, snapshot: Snapshot, *, name: str, watch: Watch | None = None) -> QemuVm:
        """Return a machine that goes on from `snapshot` of a machine with `image`, to be entered."""
        return QemuVm(self, image, snapshot.record.hardware, name, watch=watch, snapshot=snapshot, by_serial=True)

    def qemu(
        self,
        hardware: Hardware,
        image: Image,
        *,
        results: Path,
        template: Template | None = None,
        name: str = "",
    ) -> QemuMachine:
        """Return what runs a machine of this laboratory, to be entered."""
        return QemuMachine(
            toolbox=self.toolbox,
            accelerator=self.accelerator,
            firmware=self.firmware(secure_boot=hardware.secure_boot),
            hardware=hardware,
            image=image.path,
            results=results,
            template=template,
            name=name,
        )

    def expect_fork(self, image: Image, snapshot: Snapshot) -> None:
        """Make the next fork's machine while somebody works with this one's; nothing of its guest runs before."""
        if snapshot.template.directory not in self._standbys:
            name = f".next-{secrets.token_hex(4)}"
            hardware, template = snapshot.record.hardware, snapshot.template
            machine = self.qemu(hardware, image, results=self.results, template=template, name=name)
            self._standbys[template.directory] = Standby(machine)

    def expected_fork(self, snapshot: Snapshot) -> QemuMachine | None:
        """Return the machine that was made for the next fork, if there is one."""
        standby = self._standbys.pop(snapshot.template.directory, None)
        return None if standby is None else standby.take()

    def end_standbys(self) -> None:
        """End the machines that wait for forks; the next fork takes longer again."""
        while self._standbys:
            _, standby = self._standbys.popitem()
            standby.close()

    @lazy
    def scratch(self) -> Path:
        """A directory in the cache that goes with the laboratory, or with the last of its run."""
        return self._stack.enter_context(scratch(cache_dir(), self._run))

    def machine(
        self,
        image: Image,
        hardware: Hardware | None = None,
        *,
        name: str = "",
        watch: Watch | None = None,
        debug: bool = False,
    ) -> QemuVm:
        """Return a machine with the image's disk, to be entered; its results go below `name`.

        `watch` is called in the thread that waits for the boot, whenever something has happened. With `debug` the
        guest is told by its command line and by credentials to show its early boot, and to open a root shell on
        its second serial port; the image is not changed.
        """
        return QemuVm(self, image, self._order(image, hardware, debug=debug), name, watch=watch)

    def _order(self, image: Image, hardware: Hardware | None, *, debug: bool) -> Hardware:
        """Return the hardware with all that was not said."""
        hardware = hardware or Hardware()
        if debug or image.debug:
            words = [*recipe()["module"]["debug"]["params"], "panic=0", hardware.cmdline_extra]
            handed = {**credentials.debug_shell(), **hardware.credentials}
            hardware = replace(hardware, cmdline_extra=" ".join(words).strip(), credentials=handed)
        if hardware.disk_size is None:
            hardware = replace(hardware, disk_size=max(DISK_SIZE, backing(image.path).size))
        return hardware
