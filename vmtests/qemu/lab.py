"""Images and machines for tests, programs and the command line: everything below, put together.

with Lab(results) as lab:
    image = lab.image("reference", ["debug"])
    with lab.machine(image) as vm:
        vm.wait_ready()
        print(vm.run("uname -r").stdout)
"""

import contextlib
import functools
import hashlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock

from vmtests import contract as contracts
from vmtests.boot.stages import Stage
from vmtests.contract import Contract
from vmtests.errors import InputError
from vmtests.guest import credentials
from vmtests.host import accel, firmware, tools
from vmtests.host.accel import Accelerator
from vmtests.host.admission import Admission
from vmtests.host.firmware import Firmware
from vmtests.host.scratch import scratch
from vmtests.host.tools import Toolbox
from vmtests.image import cache, nix
from vmtests.image.inspect import inspect
from vmtests.image.reference import Modules, recipe
from vmtests.image.source import adopt
from vmtests.machine.argv import Hardware
from vmtests.machine.disk import backing
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
    input leaves nothing behind. `accelerator` is `auto`, `kvm` or `tcg`. Laboratories that name the same `run` share
    what they make for it: images that are unpacked, and booted machines. Raises HostError when the host cannot run a
    machine.
    """

    forks = True

    def __init__(
        self,
        results: Path | Callable[[], Path],
        *,
        accelerator: str = "auto",
        contract: Contract | None = None,
        run: str = "",
    ) -> None:
        self._results = results
        self._own = contract
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

    @functools.cached_property
    def results(self) -> Path:
        """The directory for results."""
        return (self._results if isinstance(self._results, Path) else self._results()).absolute()

    @functools.cached_property
    def toolbox(self) -> Toolbox:
        """The tools."""
        return tools.find()

    @functools.cached_property
    def accelerator(self) -> Accelerator:
        """The accelerator, found out by running a virtual CPU."""
        return accel.probe(self.toolbox, accel.Request(self._request))

    @functools.cached_property
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
            shown, own, archive = f"reference{'+' if str(parsed) else ''}{parsed}", parsed, None
        else:
            installable = nix.parse(name)
            if parsed.bloat:
                way = "a configuration imports nixosModules.bloat" if installable else "only debug can be handed to it"
                raise InputError(f"the module bloat is built into the reference image; {name} is another", hint=way)
            shown, own = installable or Path(name).name, None
            path, archive = self._adopted(name, installable)
        # Somebody's own image is held to our contract only where it has our layout.
        held = self.contract if own is not None else self._own
        inspection = inspect(path, held, self.toolbox)
        return Image(
            name=shown,
            path=path,
            modules=own,
            inspection=inspection,
            archive=archive,
            debug=own is None and parsed.debug,
        )

    def _adopted(self, name: str, installable: str | None) -> tuple[Path, Path | None]:
        """Return somebody's own disk, built or unpacked once for all laboratories of the run, and its archive."""
        with FileLock(self.scratch / "adopted.lock"):
            note = self.scratch / f"{hashlib.sha256(name.encode()).hexdigest()[:20]}.path"
            if note.exists():
                path, _, archive = note.read_text().partition("\0")
                return Path(path), Path(archive) if archive else None
            given = Path(name) if installable is None else nix.build(installable, self.scratch)
            found = adopt(given, self.scratch, self.toolbox)
            note.write_text(f"{found.path}\0{found.archive or ''}")
            return found.path, found.archive

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
            self._kept(image, ordered, Stage.READY, cache=cache) as (place, lock, kept),
            self._go_on(image, ordered, kept, name, watch) as vm,
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
    ) -> Iterator[QemuVm]:
        """Give a machine that stands where `stage` begins, or has its verdict already.

        It is where an earlier call has kept it, or it is booted there and kept. Its clock goes on from then. Raises
        HostError.
        """
        ordered = self._order(image, hardware, debug=debug)
        with (
            self._kept(image, ordered, stage, cache=True) as (place, lock, kept),
            self._go_on(image, ordered, kept, name, watch) as vm,
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
        self, image: Image, hardware: Hardware, stage: Stage, *, cache: bool
    ) -> Iterator[tuple[Path, snapshots.Lock, Snapshot | None]]:
        """Give the place of a kept machine, its lock, which is held alone where there is none, and what is there."""
        # What a device holds may change at any time.
        lasts = image.path.is_file() and not image.path.is_relative_to(self.scratch)
        base = cache_dir() if cache and lasts else self.scratch
        place = snapshots.directory(base, image.path, hardware, self.toolbox, self.accelerator, stage)
        with snapshots.Lock(place) as lock:
            if (kept := snapshots.load(place)) is None:
                lock.alone()
                if (kept := snapshots.load(place, clear=True)) is not None:
                    lock.share()
            yield place, lock, kept

    def _go_on(
        self, image: Image, hardware: Hardware, kept: Snapshot | None, name: str, watch: Watch | None
    ) -> QemuVm:
        """Return a machine that is booted cold, or goes on from what was kept, in the logs of that boot."""
        snapshot = None if kept is None else kept.give_logs(self.results / name)
        return QemuVm(self, image, hardware, name, watch=watch, snapshot=snapshot)

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

    @functools.cached_property
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
