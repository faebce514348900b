"""Images and machines for tests, programs and the command line: everything below, put together.

with Lab(results) as lab:
    image = lab.image("reference", ["debug"])
    with lab.machine(image) as vm:
        vm.wait_ready()
        print(vm.run("uname -r").stdout)
"""

import contextlib
import functools
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from vmtests import contract as contracts
from vmtests import diagnosis, snapshots, tools
from vmtests.boot.budgets import Budgets
from vmtests.boot.explain import Knowledge
from vmtests.boot.follow import Follower, Past
from vmtests.boot.verdict import Verdict
from vmtests.contract import Contract
from vmtests.diagnosis import Diagnosis
from vmtests.errors import GuestError, InputError
from vmtests.guest import credentials
from vmtests.guest.serial import SerialShell
from vmtests.guest.ssh import HOST_KEYS_COMMAND, Key
from vmtests.image import cache, nix, symbols
from vmtests.image.adopt import adopt
from vmtests.image.cache import remove
from vmtests.image.inspect import inspect
from vmtests.image.reference import Modules, recipe
from vmtests.machine import accel, firmware
from vmtests.machine.accel import Accelerator
from vmtests.machine.argv import Hardware
from vmtests.machine.disk import backing
from vmtests.machine.examine import QemuDoctor
from vmtests.machine.firmware import Firmware
from vmtests.machine.qemu import QemuMachine
from vmtests.resources import cache_dir
from vmtests.scratch import scratch
from vmtests.sizes import GIB
from vmtests.snapshots import Snapshot
from vmtests.tools import Toolbox
from vmtests.vm import BootError as BootError
from vmtests.vm import Heartbeat as Heartbeat
from vmtests.vm import Image as Image
from vmtests.vm import Vm as Vm
from vmtests.vm import Watch

DISK_SIZE = 4 * GIB
"""Bytes of a machine's disk where nothing else is asked for: larger than most images, so that root grows."""

_POWEROFF_SECONDS = 120.0


class QemuVm(Vm):
    """A machine under QEMU."""

    def __init__(
        self,
        lab: "Lab",
        image: Image,
        hardware: Hardware,
        name: str,
        *,
        watch: Watch | None = None,
        snapshot: Snapshot | None = None,
        by_serial: bool = False,
    ) -> None:
        results = lab.results / name if name else lab.results
        results.mkdir(parents=True, exist_ok=True)
        key = Key.generate(results) if snapshot is None else snapshot.key.copy(results)
        super().__init__(image, results, key)
        self._lab = lab
        self._snapshot = snapshot
        if snapshot is not None:
            self._token = snapshot.record.token
            self.hardware = snapshot.record.hardware
        else:
            self._token = f"vmtests-ready-{secrets.token_hex(8)}"
            self.hardware = replace(
                hardware,
                credentials={
                    **credentials.all_of(self.key.public, lab.contract, self._token),
                    **hardware.credentials,
                },
            )
        self._by_serial = by_serial
        self._watch = watch
        self._diagnosis: Diagnosis | None = None
        self._started = time.time()

    @property
    def scale(self) -> float:
        """That of the accelerator."""
        return self._lab.accelerator.scale

    def __enter__(self) -> Self:
        try:
            self.follower = self._stack.enter_context(
                Follower(
                    self.results,
                    budgets=Budgets(scale=self.scale),
                    power_on=time.monotonic(),
                    ready_token=self._token,
                    knowledge=Knowledge(self._lab.contract, self.image.inspection),
                    past=None if self._snapshot is None else self._snapshot.record.past,
                )
            )
            if (watch := self._watch) is not None:
                self.follower.on_progress = lambda *_: watch(self.follower)
            self.qemu = self._stack.enter_context(
                QemuMachine(
                    toolbox=self._lab.toolbox,
                    accelerator=self._lab.accelerator,
                    firmware=self._lab.firmware(secure_boot=self.hardware.secure_boot),
                    hardware=self.hardware,
                    image=self.image.path,
                    results=self.results,
                    listener=self.follower,
                    template=None if self._snapshot is None else self._snapshot.template,
                )
            )
            if self._snapshot is not None:
                self._go_on(self._snapshot)
            self.follower.doctor = QemuDoctor(
                self.qemu,
                self.results / "diagnosis",
                scale=self.scale,
                symbols=lambda: symbols.find(self.image.path, self._lab.toolbox),
            )
        except BaseException:
            self._stack.close()
            raise
        return self

    def _go_on(self, snapshot: Snapshot) -> None:
        """Tell a fork what time it is; the generation id that QEMU gave it has renewed its random numbers."""
        serial = self._stack.enter_context(contextlib.closing(self.qemu.serial()))
        shell = SerialShell(serial, answer_timeout=30.0 * self.scale)
        shell.take_over()
        shell.wake()
        self._shell = shell
        self._host_keys = snapshot.record.host_keys

    def snapshot(self, directory: Path) -> Snapshot:
        """Keep the machine, as it is now, in `directory`, which is made; it goes on afterwards.

        Raises GuestError when the guest is not ready, HostError when the snapshot cannot be written.
        """
        verdict = self.wait_ready()
        host_keys = self.host_keys
        self.shell.settle()
        try:
            template = self.qemu.snapshot(directory)
            self.key.copy(template.directory)
            kept = Snapshot(
                template=template,
                record=snapshots.Record(
                    version=snapshots.VERSION,
                    place=str(template.directory),
                    image=str(self.image.path),
                    hardware=self.hardware,
                    token=self._token,
                    public_key=self.key.public,
                    host_keys=host_keys,
                    past=Past.of(verdict, self.timeline, self.console),
                    state=snapshots.state_digest(template),
                ),
            )
            kept.take_logs(self.results)
            snapshots.save(kept)
        except BaseException:
            remove(directory)
            raise
        return kept

    def close(self) -> None:
        """End the machine; its results stay. A boot that was diagnosed is told by its disk too."""
        self._hang_up()
        try:
            if (known := self._diagnosis) is not None:
                self._diagnosis = None
                if self.qemu.alive:
                    self.qemu.power_cut()
                diagnosis.read_disk(self.qemu.disk, known, self._lab.toolbox, since=self._started)
        finally:
            self._stack.close()

    def diagnose(self, verdict: Verdict) -> Diagnosis:
        """Gather in `diagnosis/` what a machine whose boot failed can still tell; its disk is read by `close`."""
        self._hang_up()
        lines, scale = self.console, self.scale
        self._diagnosis = diagnosis.gather(self.qemu, verdict, lines, self.results / "diagnosis", scale=scale)
        return self._diagnosis

    @property
    def second_console(self) -> bytes:
        """What QEMU has logged of it."""
        return (self.results / "ttyS1.log").read_bytes()

    def screenshot(self) -> Path:
        """Write the screen to a PNG file and return its path."""
        return self.qemu.screenshot()

    # In the guest.

    @property
    def shell(self) -> SerialShell:
        """A root shell on the serial console, logged in at the first use of each boot."""
        if self._shell is None:
            serial = self._stack.enter_context(contextlib.closing(self.qemu.serial()))
            shell = SerialShell(serial, answer_timeout=30.0 * self.scale)
            shell.login(timeout=60.0 * self.scale)
            self._shell = shell
        return self._shell

    def _find_host_keys(self) -> tuple[str, ...]:
        return tuple(self.shell.run(HOST_KEYS_COMMAND).check().lines)

    @property
    def ssh_address(self) -> tuple[str, int]:
        """The port of this host that leads to the guest's sshd."""
        return "127.0.0.1", self.qemu.ssh_port

    # Power.

    def shut_down(self) -> None:
        """Power off cleanly from inside and wait until QEMU has ended."""
        ssh = self.ssh
        self.follower.expect_end()
        with contextlib.suppress(GuestError):
            ssh.run("systemctl --no-block poweroff", 30.0)
        self._hang_up()
        self.qemu.wait_exit(_POWEROFF_SECONDS * self.scale)

    def power_cut(self) -> None:
        """Kill QEMU at once: what the guest had not synced is lost."""
        self._hang_up()
        self.qemu.power_cut()

    def power_on(self) -> Verdict:
        """Power on again, on the same disk, and wait until the guest is ready; raises BootError."""
        self.qemu.start()
        return self.wait_ready()


class Lab:
    """The tools, accelerator and firmware of this host, and a directory for results; a context manager.

    `results` may be a function that makes the directory: it is called when the first machine needs it, so that bad
    input leaves nothing behind. `accelerator` is `auto`, `kvm` or `tcg`. Raises HostError when the host cannot run a
    machine.
    """

    forks = True

    def __init__(
        self, results: Path | Callable[[], Path], *, accelerator: str = "auto", contract: Contract | None = None
    ) -> None:
        self._results = results
        self.contract = contract or contracts.default()
        self._request = accelerator
        self._stack = contextlib.ExitStack()

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
            archive = path
            shown, own = f"reference{'+' if str(parsed) else ''}{parsed}", parsed
        else:
            installable = nix.parse(name)
            if parsed.bloat:
                way = "a configuration imports nixosModules.bloat" if installable else "only debug can be handed to it"
                raise InputError(f"the module bloat is built into the reference image; {name} is another", hint=way)
            archive = Path(name) if installable is None else nix.build(installable, self.scratch)
            shown, own = installable or archive.name, None
            path = adopt(archive, self.scratch, self.toolbox)
        inspection = inspect(path, self.contract, self.toolbox)
        return Image(
            name=shown,
            path=path,
            modules=own,
            inspection=inspection,
            archive=None if archive == path else archive,
            debug=own is None and parsed.debug,
        )

    @contextlib.contextmanager
    def ready(
        self,
        image: Image,
        hardware: Hardware | None = None,
        *,
        name: str = "",
        watch: Watch | None = None,
        cache: bool = True,
    ) -> Iterator[tuple[QemuVm, Snapshot]]:
        """Give a machine that is ready, and the snapshot of it before anybody has touched it.

        With `cache` a machine that an earlier run has booted goes on where that boot had ended; otherwise, and when
        there is none, it is booted cold. Raises BootError, HostError.
        """
        ordered = self._order(image, hardware, debug=False)
        with contextlib.ExitStack() as stack:
            if not cache or image.path.is_relative_to(self.scratch):
                vm = stack.enter_context(QemuVm(self, image, ordered, name, watch=watch))
                vm.wait_ready()
                yield vm, vm.snapshot(self.scratch / f"snapshot-{secrets.token_hex(4)}")
                return
            place = snapshots.directory(image.path, ordered, self.toolbox, self.accelerator)
            lock = stack.enter_context(snapshots.Lock(place))
            kept = snapshots.load(place)
            if kept is None:
                lock.alone()
                if (kept := snapshots.load(place, clear=True)) is None:
                    vm = stack.enter_context(QemuVm(self, image, ordered, name, watch=watch))
                    vm.wait_ready()
                    kept = vm.snapshot(place)
                    snapshots.prune(place)
                    lock.share()
                    yield vm, kept
                    return
                lock.share()
            vm = QemuVm(self, image, ordered, name, watch=watch, snapshot=kept.give_logs(self.results / name))
            yield stack.enter_context(vm), kept

    def fork(self, image: Image, snapshot: Snapshot, *, name: str, watch: Watch | None = None) -> QemuVm:
        """Return a machine that goes on from `snapshot` of a machine with `image`, to be entered."""
        return QemuVm(self, image, snapshot.record.hardware, name, watch=watch, snapshot=snapshot, by_serial=True)

    @functools.cached_property
    def scratch(self) -> Path:
        """A directory in the cache that goes with the laboratory."""
        return self._stack.enter_context(scratch(cache_dir()))

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
