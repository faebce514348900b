"""Images and machines on Compute Engine; images are built, and inspected, on this host.

with GceLab(results, Settings.find()) as lab:
    image = lab.image("disk.raw")
    with lab.machine(image) as vm:
        vm.wait_ready()
"""

import contextlib
import functools
import hashlib
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path

from vmtests import progress
from vmtests.boot.explain import Knowledge
from vmtests.boot.follow import Watch
from vmtests.contract import Contract
from vmtests.errors import InputError
from vmtests.gce import cost, guest, preflight, series
from vmtests.gce.cloud import Pace
from vmtests.gce.instance import Instance, Order, insert
from vmtests.gce.preflight import Preflight
from vmtests.gce.seats import Seats
from vmtests.gce.serialport import PollPace
from vmtests.gce.session import Session
from vmtests.gce.settings import Settings
from vmtests.gce.share import Share
from vmtests.gce.things import LIFETIME, Kind, Thing
from vmtests.gce.upload import make_image, upload
from vmtests.gce.vm import GceVm
from vmtests.guest.keys import Key
from vmtests.host.host import Host
from vmtests.host.lazy import lazy
from vmtests.image.image import Image
from vmtests.image.source import Format
from vmtests.machine.hardware import Hardware
from vmtests.sizes import GIB, format_size
from vmtests.vm.laboratory import Base

_TAKEN = frozenset(
    {"memory_mib", "cpus", "disk_size", "secure_boot", "tpm", "net", "hostname", "domain", "address", "identity"}
)
"""What hardware may say of an instance; that it takes some of it by itself is no harm."""

DEFAULT_MACHINE = "e2-small"
DISK_SIZE = 10 * GIB
"""Bytes of an instance's disk where nothing else is asked for: the least that Compute Engine makes.

An image that leaves less than a GiB of it gets a GiB more than it has, so that root grows.
"""

SUITE_LIFETIME = 3 * 3600.0
"""Seconds after which what the whole suite needs may be removed."""

_CLOUD_SCALE, _EMULATED_SCALE = 2.0, 4.0


class GceStart:
    """A machine that was powered on (`GceLab.start`)."""

    def __init__(self, vm: GceVm) -> None:
        self.vm = vm

    def wait(self) -> None:
        """Wait until it is ready; raises BootError."""
        self.vm.wait_ready()


class GceLab(Base):
    """A laboratory on Compute Engine; a context manager, which removes everything that was made.

    `machine` is the machine type. Instances delete themselves after `lifetime` seconds. `pace` and `poll_pace` are
    how often the API is asked; `run` and `timeout` are as for `Lab`. Raises CloudError.
    """

    forks = False

    def __init__(
        self,
        results: Path | Callable[[], Path],
        settings: Settings,
        *,
        machine: str = DEFAULT_MACHINE,
        contract: Contract | None = None,
        lifetime: float = LIFETIME,
        pace: Pace | None = None,
        poll_pace: PollPace | None = None,
        run: str = "",
        timeout: float | None = None,
    ) -> None:
        super().__init__(results, Host(run=run), contract, timeout)
        emulated = settings.emulated
        self.settings = settings
        self.machine_type = machine
        self.pace = pace or (Pace(poll=0.2) if emulated else Pace())
        self.poll_pace = poll_pace or (PollPace(busy=0.2, quiet=0.5) if emulated else PollPace())
        self.scale = _EMULATED_SCALE if emulated else _CLOUD_SCALE
        self._lifetime = lifetime
        self._images: dict[Path, str] = {}
        self._lock = threading.RLock()
        self._zones = settings.zones
        self._told = self._cost_told = False

    @lazy
    def session(self) -> Session:
        """What is made, begun with the first thing."""
        return self._stack.enter_context(Session(self.settings, lifetime=self._lifetime, pace=self.pace))

    def image(self, name: str | Path = "reference", modules: Sequence[str] = ()) -> Image:
        """Return an image as `Lab.image` does; it goes to Compute Engine with its first machine.

        Raises InputError for what Compute Engine cannot be given, too.
        """
        image = self.images.find(name, modules)
        if (size := image.inspection.size) % GIB:
            raise InputError(
                f"{image.path} has {format_size(size)}; Compute Engine takes a whole number of GiB",
                hint="truncate -s on a copy, or vmtests build makes one; the last partition grows at boot",
            )
        if image.debug:
            raise InputError(
                f"on Compute Engine the module debug cannot be handed to {image.name}",
                hint="build it into the image",
            )
        return image

    def cost(self, image: Image, hardware: Hardware | None = None) -> str:
        """Say what the run costs at most; it is told with the first machine."""
        disk = self._disk_size(image, hardware or Hardware())
        size = image.inspection.size
        return cost.sentence(
            self.machine_type,
            disk=disk,
            disk_type=self.settings.disk_type or series.disk_type(self.machine_type),
            archive=size,
            seconds=self._lifetime,
            machines=self.settings.limit,
        )

    @contextlib.contextmanager
    def start(
        self,
        image: Image,
        hardware: Hardware | None = None,
        *,
        name: str = "",
        watch: Watch | None = None,
        cache: bool = True,
    ) -> Iterator[GceStart]:
        """Give a machine on its way to ready; nothing can be kept of it, whatever `cache` says."""
        del cache
        with self.machine(image, hardware, name=name, watch=watch) as vm:
            yield GceStart(vm)

    def fork(self, image: Image, snapshot: None, *, name: str, watch: Watch | None = None) -> GceVm:
        """Return a new instance, whose first command waits until it is ready: Compute Engine forks none."""
        del snapshot
        if not self._told:
            self._told = True
            progress.stderr().print("Compute Engine forks no machine: each fresh one is a new instance, which boots")
        return self.machine(image, name=name, watch=watch)

    def machine(
        self, image: Image, hardware: Hardware | None = None, *, name: str = "", watch: Watch | None = None
    ) -> GceVm:
        """Return a machine, to be entered; its results go below `name`. Raises InputError for other hardware."""
        hardware = self._checked(hardware or Hardware())
        results = self._results_of(name)
        settings, found = self.settings, self._preflight
        key = Key.generate(self.host.private())
        token = f"vmtests-ready-{secrets.token_hex(8)}"
        order = Order(
            image="",
            machine=self.machine_type,
            disk_size=self._disk_size(image, hardware),
            lifetime=self._lifetime,
            metadata=guest.metadata(key.public, token, os_login=settings.os_login),
            secure_boot=hardware.secure_boot,
            tpm=hardware.tpm,
            disk_type=settings.disk_type,
            network=settings.network,
            subnetwork=settings.subnetwork,
            internal=settings.internal,
            spot=settings.spot,
        )
        # Before anything is made.
        preflight.obey(found, order)
        if not self._cost_told:
            self._cost_told = True
            progress.stderr().print(f"this run: {self.cost(image, hardware)}")
        order = replace(order, image=self._cloud_image(image))
        return GceVm(
            image,
            results,
            order,
            key=key,
            token=token,
            knowledge=Knowledge(image.contract, image.inspection),
            session=self.session,
            insert=functools.partial(self._insert, name or "vm"),
            seat=self._seats.take,
            scale=self.scale,
            poll_pace=self.poll_pace,
            watch=watch,
            timeout=self._timeout,
        )

    @lazy
    def _seats(self) -> Seats:
        return Seats(self.host.scratch, self.settings.limit)

    @lazy
    def _preflight(self) -> Preflight:
        found = preflight.look(self.session.cloud, self.machine_type, self._zones)
        self._zones = found.zones
        return found

    def _insert(self, purpose: str, order: Order) -> Instance:
        """Make an instance, first where the last one could be made."""
        # What is cut off at the end of a long name must not make two the same.
        name = self.session.brand.name(f"{next(self._numbers)}-{purpose}")
        made = insert(self.session, order, name, self._zones)
        zone = made.thing.place
        self._zones = (zone, *(other for other in self._zones if other != zone))
        return made

    def _checked(self, hardware: Hardware) -> Hardware:
        usual = Hardware()
        if any(
            getattr(hardware, item.name) != getattr(usual, item.name)
            for item in fields(usual)
            if item.name not in _TAKEN
        ):
            raise InputError(
                "Compute Engine takes no kernel, no credentials, no faults, and no kind of disk, firmware or bus",
                hint="the machine type says what the disk is: --gce-machine=c3-standard-4 has NVMe",
            )
        return hardware

    def keep(self, image: Image) -> str:
        """Have the image made on Compute Engine to stay there until it expires, and return its link."""
        link = self._cloud_image(image)
        self.session.keep(Thing(kind=Kind.IMAGE, name=link.rpartition("/")[2], project=self.settings.project))
        return link

    def _disk_size(self, image: Image, hardware: Hardware) -> int:
        return hardware.disk_size or max(DISK_SIZE, image.inspection.size + GIB)

    def _cloud_image(self, image: Image) -> str:
        """Return the link to the image on Compute Engine, which is made of it once for all laboratories of the run."""
        with self._lock:
            if (link := self._images.get(image.path)) is None:
                share = Share(self.host.scratch / f"{hashlib.sha256(bytes(image.path)).hexdigest()[:20]}.image")
                made = self.session.share(share, lambda: self._make_image(image))
                link = self._images[image.path] = f"projects/{made.project}/global/images/{made.name}"
            return link

    def _make_image(self, image: Image) -> Thing:
        # Two files of one name are two images.
        purpose = f"{hashlib.sha256(bytes(image.path.absolute())).hexdigest()[:6]}-{image.name}"
        if image.archive is not None:
            stored = upload(self.session, image.archive, purpose)
        else:
            stored = upload(self.session, self._raw(image), purpose, disk=True)
        made = make_image(self.session, stored, purpose, image.inspection.size)
        # It has been read.
        self.session.remove(stored)
        return made

    def _raw(self, image: Image) -> Path:
        if image.inspection.format is not Format.QCOW2:
            return image.path
        raw = self.host.scratch / f"{secrets.token_hex(4)}.raw"
        with progress.step(f"converting {image.path.name}"):
            argv = ("convert", "-f", "qcow2", "-O", "raw", image.path.absolute(), raw)
            self.host.toolbox.run("qemu-img", *argv)
        return raw
