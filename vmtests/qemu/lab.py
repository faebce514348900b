"""Images and machines for tests, programs and the command line: everything below, put together.

with Lab(results) as lab:
    image = lab.image("reference", ["debug"])
    with lab.machine(image) as vm:
        vm.wait_ready()
        print(vm.run("uname -r").stdout)
"""

import contextlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rich.text import Text

from vmtests import progress
from vmtests.boot.explain import Knowledge
from vmtests.boot.follow import Watch
from vmtests.boot.stages import Stage
from vmtests.contract import Contract
from vmtests.errors import InputError
from vmtests.guest import credentials
from vmtests.guest.keys import Key
from vmtests.guest.login import Login
from vmtests.guest.seed import Seed, seeded
from vmtests.host.host import Host
from vmtests.host.scratch import remove
from vmtests.image.image import Image
from vmtests.image.qemudisk import check_near
from vmtests.image.reference import recipe
from vmtests.machine.disk import backing
from vmtests.machine.hardware import DiskBus, FirmwareKind, Hardware
from vmtests.machine.life import ResumeError
from vmtests.qemu import snapshots
from vmtests.qemu.pool import Pool
from vmtests.qemu.snapshots import Snapshot
from vmtests.qemu.vm import QemuVm
from vmtests.resources import cache_dir
from vmtests.sizes import GIB
from vmtests.vm.laboratory import Base

REWINDS = tuple(stage for stage in Stage if stage is not Stage.FIRMWARE)
"""The stages at whose beginning a machine can be kept (`Lab.rewind`)."""

DISK_SIZE = 4 * GIB
"""Bytes of a machine's disk where nothing else is asked for; a larger image gets a GiB more than it has, to grow."""

_NAMED = {"/dev/vd": DiskBus.VIRTIO_BLK, "/dev/nvme": DiskBus.NVME}
"""Buses by what the guest calls its disks (Documentation/admin-guide/devices.txt of Linux)."""


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


class Lab(Base):
    """Images and machines on this host, and a directory for their results; a context manager.

    `results` may be a function that makes the directory: it is called when the first machine needs it, so that bad
    input leaves nothing behind. `accelerator` is `auto`, `kvm` or `tcg`, tried with `cpus` processors. Laboratories
    that name the same `run` share what they make for it: images that are unpacked, and booted machines. With `host`
    all three are that one's. `timeout` limits each boot as a whole, in seconds. `login` is who logs in where our
    credentials give no way in; `seed` is what a cloud would hand to the guest, to the same end. Raises HostError when
    the host cannot run a machine.
    """

    forks = True

    def __init__(
        self,
        results: Path | Callable[[], Path],
        *,
        accelerator: str = "auto",
        contract: Contract | None = None,
        run: str = "",
        host: Host | None = None,
        cpus: int = 2,
        timeout: float | None = None,
        login: Login | None = None,
        seed: Seed = Seed.AUTO,
    ) -> None:
        super().__init__(results, host or Host(accelerator=accelerator, run=run, cpus=cpus), contract, timeout)
        if seed not in list(Seed):
            raise InputError(f"seed=… takes {', '.join(Seed)}; not {seed!r}")
        self._seed = Seed(seed)
        self._login = login
        self.pool = self._stack.enter_context(contextlib.closing(Pool(self.host, lambda: self.results)))

    def image(self, name: str | Path = "reference", modules: Sequence[str] = (), *, direct: bool = False) -> Image:
        """Return an image by its name; see `Images.find`."""
        return self.images.find(name, modules, direct=direct)

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

        With `cache`, a machine that an earlier run has booted is resumed from its snapshot. Otherwise, and where there
        is none, it boots, and `QemuStart.wait` waits for that. Raises HostError.
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
        """Give a machine at the beginning of `stage`; one whose boot ends before has its verdict.

        It is resumed from the snapshot of an earlier call. Where there is none, or with `anew`, it is booted up to
        there and a snapshot is kept. Its clock goes on from the snapshot's time. Raises HostError.
        """
        ordered = self._order(image, hardware, debug=debug)
        with (
            self._kept(image, ordered, stage, cache=True, anew=anew) as (place, lock, found),
            self._go_on(image, ordered, place, lock, found, name, watch) as (vm, kept),
        ):
            if kept is None:
                self._keep_at(vm, stage, place)
                lock.share()
            yield vm

    @staticmethod
    def _keep_at(vm: QemuVm, stage: Stage, place: Path) -> None:
        if stage is not Stage.READY:
            vm.snapshot_of_stage(place, stage)
        elif vm.wait_verdict().ready:
            vm.snapshot(place)
        snapshots.prune(place)

    def place(self, image: Image, stage: Stage, hardware: Hardware | None = None, *, debug: bool = False) -> Path:
        """Return the directory in which `rewind` keeps a machine; its record is there when one is kept."""
        return self._place(image, self._order(image, hardware, debug=debug), stage, cache=True)

    def keep(self, vm: QemuVm, stage: Stage, hardware: Hardware | None = None, *, debug: bool = False) -> bool:
        """Keep a machine for `rewind` when `stage` begins, in the place of the one that is there.

        `hardware` and `debug` are what it was ordered with. False when the boot has its verdict before, or somebody
        else goes on from what is there. Raises HostError.
        """
        if not vm.follower.wait_stage(stage):
            return False
        place = self.place(vm.image, stage, hardware, debug=debug)
        with snapshots.Lock(place) as lock:
            if not lock.alone_now():
                return False
            remove(place)
            self._keep_at(vm, stage, place)
        return True

    @contextlib.contextmanager
    def go_on(self, image: Image, kept: Snapshot, *, name: str = "", watch: Watch | None = None) -> Iterator[QemuVm]:
        """Give a machine that goes on from `kept`, in the logs of that boot. Raises HostError."""
        with self._forked(image, kept.give_logs(self.results / name), name, watch, by_serial=False) as vm:
            yield vm

    def _place(self, image: Image, hardware: Hardware, stage: Stage, *, cache: bool) -> Path:
        # What a device holds may change at any time.
        lasts = image.path.is_file() and not image.path.is_relative_to(self.host.scratch)
        base = cache_dir() if cache and lasts else self.host.scratch
        return snapshots.directory(
            base,
            image.path,
            image.contract,
            hardware,
            self.host.toolbox,
            self.host.accelerator,
            stage,
            firmware=self.pool.firmware(hardware),
            handed=f"{self._seed} {'' if self._login is None else self._login.user}",
        )

    @contextlib.contextmanager
    def _kept(
        self, image: Image, hardware: Hardware, stage: Stage, *, cache: bool, anew: bool = False
    ) -> Iterator[tuple[Path, snapshots.Lock, Snapshot | None]]:
        """Give the directory of a snapshot, its lock, and the snapshot; without one the lock is held alone."""
        place = self._place(image, hardware, stage, cache=cache)
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
        """Give a machine resumed from `kept`, which continues its logs, and `kept`; or one that boots, and None.

        A snapshot that QEMU does not resume is removed, which is no error of the run; the lock is then held alone.
        """
        with contextlib.ExitStack() as stack:
            vm = None
            if kept is not None:
                try:
                    given = kept.give_logs(self._results_of(name))
                    vm = stack.enter_context(self._forked(image, given, name, watch, by_serial=False))
                except ResumeError as error:
                    told = f"a kept machine does not go on and is booted again: {error.message}"
                    progress.stderr().print(Text(told))
                    lock.alone()
                    remove(place)
                    snapshots.forget_logs(self.results / name)
                    kept = None
            yield vm or stack.enter_context(self._cold(image, hardware, name, watch)), kept

    def fork(self, image: Image, snapshot: Snapshot, *, name: str, watch: Watch | None = None) -> QemuVm:
        """Return a machine that goes on from `snapshot` of a machine with `image`, to be entered."""
        return self._forked(image, snapshot, name, watch, by_serial=True)

    def _fork_of(self, vm: QemuVm, name: str, /) -> QemuVm:
        """Return a machine that goes on from where `vm` is now."""
        number = next(self._numbers)
        snapshot = vm.snapshot(self.host.scratch / f"{secrets.token_hex(4)}.fork")
        return self.fork(vm.image, snapshot, name=name or f"{vm.results.name}-fork-{number}")

    def _cold(self, image: Image, hardware: Hardware, name: str, watch: Watch | None) -> QemuVm:
        """Put a machine together that boots, with all that its guest is handed."""
        results = self._results_of(name)
        key, token = Key.generate(self.host.private()), f"vmtests-ready-{secrets.token_hex(8)}"
        handed = {**credentials.all_of(key.public, image.contract, token), **hardware.credentials}
        given = seeded(self._seed, image.inspection.listens, key.public, self._login, hardware.hostname)
        return QemuVm(
            image,
            results,
            replace(
                hardware,
                credentials=handed,
                seed=hardware.seed or given.disk,
                fw_cfg={**given.fw_cfg, **hardware.fw_cfg},
            ),
            key=key,
            token=token,
            knowledge=Knowledge(image.contract, image.inspection),
            pool=self.pool,
            forks=self._fork_of,
            watch=watch,
            timeout=self._timeout,
            login=self._login,
        )

    def _forked(self, image: Image, kept: Snapshot, name: str, watch: Watch | None, *, by_serial: bool) -> QemuVm:
        """Put a machine together that goes on from one that was kept."""
        results = self._results_of(name)
        return QemuVm(
            image,
            results,
            kept.record.hardware,
            key=kept.key.copy(self.host.private()),
            token=kept.record.token,
            knowledge=Knowledge(image.contract, image.inspection),
            pool=self.pool,
            forks=self._fork_of,
            watch=watch,
            timeout=self._timeout,
            login=self._login,
            snapshot=kept,
            by_serial=by_serial,
        )

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
        return self._cold(image, self._order(image, hardware, debug=debug), name, watch)

    def _order(self, image: Image, hardware: Hardware | None, *, debug: bool) -> Hardware:
        """Return the hardware with all that was not said."""
        hardware = hardware or Hardware()
        if not isinstance(image, Image) or not isinstance(hardware, Hardware):
            raise InputError("a machine is made of an Image and of Hardware", hint="lab.image(NAME) gives an Image")
        if debug or image.debug:
            words = [*recipe()["module"]["debug"]["params"], "panic=0", hardware.cmdline_extra]
            handed = {**credentials.debug_shell(), **hardware.credentials}
            hardware = replace(hardware, cmdline_extra=" ".join(words).strip(), credentials=handed)
        hardware = fitting(hardware, image)
        for path in filter(None, (disk.image for disk in hardware.disks)):
            check_near(path, self.host.toolbox)
        if hardware.disk_size is None and hardware.disk_bus is not DiskBus.CDROM:
            hardware = replace(hardware, disk_size=max(DISK_SIZE, backing(image.path).size + GIB))
        return hardware


def fitting(hardware: Hardware, image: Image) -> Hardware:
    """Return hardware with the firmware and the bus that the image is made for, where none is named.

    Its files are named from the root on. Raises InputError for one that is not there.
    """
    hardware.need_files()
    names = ("kernel", "initrd", "cdrom", "firmware_vars")
    files = {name: path.absolute() for name in names if (path := getattr(hardware, name)) is not None}
    disks = (disk if disk.image is None else replace(disk, image=disk.image.absolute()) for disk in hardware.disks)
    hardware = replace(hardware, **files, disks=tuple(disks))
    if hardware.firmware is None:
        bios = image.inspection.bios_only and hardware.kernel is None and not hardware.secure_boot
        hardware = replace(hardware, firmware=FirmwareKind.BIOS if bios else FirmwareKind.UEFI)
    if hardware.disk_bus is None:
        hardware = replace(hardware, disk_bus=_bus(image))
    if hardware.agent is None:
        hardware = replace(hardware, agent="qemu-guest-agent" in image.inspection.listens)
    return replace(hardware, sector_size=hardware.sector_size or image.inspection.sector_size)


def _bus(image: Image) -> DiskBus:
    if image.inspection.disc:
        return DiskBus.CDROM
    root = image.inspection.root
    return next((bus for name, bus in _NAMED.items() if root.startswith(name)), DiskBus.VIRTIO_SCSI)
