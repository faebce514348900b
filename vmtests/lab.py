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
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from rich.text import Text

from vmtests import contract as contracts
from vmtests import diagnosis, progress, snapshots, tools
from vmtests.boot.budgets import Budgets
from vmtests.boot.console import Line
from vmtests.boot.explain import Knowledge
from vmtests.boot.follow import Follower, Past
from vmtests.boot.timeline import Timeline
from vmtests.boot.verdict import Verdict
from vmtests.contract import Contract
from vmtests.diagnosis import Diagnosis
from vmtests.errors import GuestError, InputError, VmtestsError
from vmtests.guest import credentials
from vmtests.guest.facts import Facts, Mounts, Units
from vmtests.guest.result import OUTPUT_LIMIT, Result
from vmtests.guest.serial import SerialShell
from vmtests.guest.ssh import HOST_KEYS_COMMAND, Key, Ssh
from vmtests.image import cache, nix, symbols
from vmtests.image.adopt import adopt
from vmtests.image.cache import remove
from vmtests.image.inspect import Inspection, inspect
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

DISK_SIZE = 4 * GIB
"""Bytes of a machine's disk where nothing else is asked for: larger than most images, so that root grows."""

Watch = Callable[[Follower], None]

_POWEROFF_SECONDS = 120.0
_LAST_LINES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image to boot: a raw or qcow2 disk that nobody writes to, and what static inspection says of it."""

    name: str
    path: Path
    modules: Modules | None
    inspection: Inspection
    debug: bool = False
    """Whether the module `debug`, which the image does not have, is handed to its guest."""


class BootError(VmtestsError):
    """A boot that did not get ready; `verdict` says why, and `lines` are the last of its stage."""

    exit_code = 1

    def __init__(
        self, verdict: Verdict, results: Path, inspection: Inspection | None = None, console: Sequence[Line] = ()
    ) -> None:
        breaches = [
            f"; the image: {breach}"
            for breach in (() if inspection is None else inspection.breaches[:3])
            if str(breach) not in verdict.sentence
        ]
        super().__init__(
            f"boot failed in {verdict.stage}: {verdict.sentence}{''.join(breaches)}",
            hint=f"{verdict.hint}; the console is {results / 'console.log'}",
        )
        self.verdict = verdict
        self.lines = tuple(line for line in console if line.stage is verdict.stage)[-_LAST_LINES:]
        if verdict.owner is not None:
            self.owner = verdict.owner

    @property
    def report(self) -> str:
        """The sentence, the hint, and the last lines of the stage in which the boot failed."""
        last = [f"  {line.t:7.2f} {line.text}" for line in self.lines]
        return "\n".join([str(self), *([f"the last lines of stage {self.verdict.stage}:"] if last else []), *last])


class Machine(Protocol):
    """A booted machine, wherever it runs."""

    def run(self, command: str, /, timeout: float = ..., *, stdin: bytes | None = ...) -> Result:
        """Run a shell command as root and return what it wrote; raises GuestError when it does not end."""
        ...

    @property
    def mounts(self) -> Mounts:
        """The mounts of the guest, as they are now."""
        ...

    @property
    def units(self) -> Units:
        """The units of the guest's systemd, as they are now."""
        ...

    def reboot(self) -> Verdict:
        """Reboot cleanly and wait until the guest is ready again."""
        ...

    def power_cut(self) -> None:
        """Take the power away at once."""
        ...

    def power_on(self) -> Verdict:
        """Give it back and wait until the guest is ready."""
        ...

    @property
    def console(self) -> tuple[Line, ...]:
        """The last lines of the console."""
        ...

    def screenshot(self) -> Path:
        """Write the screen to a file and return its path."""
        ...


class Vm:
    """A machine under QEMU that is followed, and that commands are run in; a context manager, powered on."""

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
        self.image = image
        self.results = lab.results / name if name else lab.results
        self.results.mkdir(parents=True, exist_ok=True)
        self._stack = contextlib.ExitStack()
        self._lab = lab
        self._snapshot = snapshot
        if snapshot is not None:
            self.key, self._token = snapshot.key.copy(self.results), snapshot.record.token
            self.hardware = snapshot.record.hardware
        else:
            self.key = Key.generate(self.results)
            self._token = f"vmtests-ready-{secrets.token_hex(8)}"
            self.hardware = replace(
                hardware,
                credentials={
                    **credentials.all_of(self.key.public, lab.contract, self._token),
                    **hardware.credentials,
                },
            )
        self._ssh: Ssh | None = None
        self._shell: SerialShell | None = None
        self._by_serial = by_serial
        self._host_keys: tuple[str, ...] = ()
        self._watch = watch
        self._diagnosis: Diagnosis | None = None
        self._started = time.time()

    def __enter__(self) -> Self:
        try:
            self.follower = self._stack.enter_context(
                Follower(
                    self.results,
                    budgets=Budgets(scale=self._lab.accelerator.scale),
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
            self.follower.late = lambda: self.qemu.late
            if self._snapshot is not None:
                self._go_on(self._snapshot)
            self.follower.doctor = QemuDoctor(
                self.qemu,
                self.results / "diagnosis",
                scale=self._lab.accelerator.scale,
                symbols=lambda: symbols.find(self.image.path, self._lab.toolbox),
            )
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _go_on(self, snapshot: Snapshot) -> None:
        """Tell a fork what time it is; the generation id that QEMU gave it has renewed its random numbers."""
        serial = self._stack.enter_context(contextlib.closing(self.qemu.serial()))
        shell = SerialShell(serial, answer_timeout=30.0 * self._lab.accelerator.scale)
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

    # Following.

    def wait_verdict(self) -> Verdict:
        """Wait for the verdict on this boot."""
        return self.follower.wait_verdict()

    def wait_ready(self) -> Verdict:
        """Wait until the guest is ready; raises BootError with the verdict when it does not get there.

        What the machine can still tell is in `diagnosis/` by then.
        """
        verdict = self.wait_verdict()
        if not verdict.ready:
            self.diagnose(verdict)
            raise BootError(verdict, self.results, self.image.inspection, self.console)
        return verdict

    def diagnose(self, verdict: Verdict) -> Diagnosis:
        """Gather in `diagnosis/` what a machine whose boot failed can still tell; its disk is read by `close`."""
        self._hang_up()
        lines, scale = self.console, self._lab.accelerator.scale
        self._diagnosis = diagnosis.gather(self.qemu, verdict, lines, self.results / "diagnosis", scale=scale)
        return self._diagnosis

    @property
    def verdict(self) -> Verdict | None:
        """The verdict on this boot; None until it is known."""
        return self.follower.verdict

    @property
    def timeline(self) -> Timeline:
        """When this boot entered each stage."""
        return self.follower.timeline

    @property
    def console(self) -> tuple[Line, ...]:
        """The last lines of the console, over all boots of this machine."""
        return self.follower.lines

    def screenshot(self) -> Path:
        """Write the screen to a PNG file and return its path."""
        return self.qemu.screenshot()

    # In the guest.

    @property
    def shell(self) -> SerialShell:
        """A root shell on the serial console, logged in at the first use of each boot."""
        if self._shell is None:
            serial = self._stack.enter_context(contextlib.closing(self.qemu.serial()))
            shell = SerialShell(serial, answer_timeout=30.0 * self._lab.accelerator.scale)
            shell.login(timeout=60.0 * self._lab.accelerator.scale)
            self._shell = shell
        return self._shell

    @property
    def host_keys(self) -> tuple[str, ...]:
        """The public host keys of the guest's sshd, read on the serial console at the first use of each boot."""
        if not self._host_keys:
            self._host_keys = tuple(self.shell.run(HOST_KEYS_COMMAND).check().lines)
        return self._host_keys

    @property
    def ssh(self) -> Ssh:
        """A connection to the guest's sshd, opened at the first use of each boot.

        The host's key is read on the serial console first, so that no other guest can answer.
        """
        if self._ssh is None:
            ssh = Ssh("127.0.0.1", self.qemu.ssh_port, self.key, self.host_keys)
            ssh.connect(60.0 * self._lab.accelerator.scale)
            self._ssh = ssh
        return self._ssh

    def run(
        self,
        command: str,
        /,
        timeout: float = 120.0,
        *,
        stdin: bytes | None = None,
        limit: int = OUTPUT_LIMIT,
    ) -> Result:
        """Run a shell command as root over ssh; raises GuestError when the guest failed or does not answer.

        A fork is logged in on its serial line already: its commands go there until `ssh` is used, or it is restarted.
        """
        if (failure := self.follower.failure_after_ready) is not None:
            raise GuestError(failure.sentence, hint=failure.hint)
        if self._by_serial and self._ssh is None:
            return self.shell.run(command, timeout, stdin=stdin, limit=limit)
        return self.ssh.run(command, timeout, stdin=stdin, limit=limit)

    @property
    def facts(self) -> Facts:
        """What the guest knows about itself."""
        return Facts(self)

    @property
    def mounts(self) -> Mounts:
        """The guest's mounts, as they are now."""
        return self.facts.mounts()

    @property
    def units(self) -> Units:
        """The units of the guest's systemd, as they are now."""
        return self.facts.units()

    # Power.

    def reboot(self) -> Verdict:
        """Reboot cleanly from inside and wait until the guest is ready again; raises BootError."""
        ssh = self.ssh
        self.follower.new_boot("reboot")
        # The connection may go before the answer comes.
        with contextlib.suppress(GuestError):
            ssh.run("systemctl --no-block reboot", 30.0)
        self._hang_up()
        return self.wait_ready()

    def shut_down(self) -> None:
        """Power off cleanly from inside and wait until QEMU has ended."""
        ssh = self.ssh
        self.follower.expect_end()
        with contextlib.suppress(GuestError):
            ssh.run("systemctl --no-block poweroff", 30.0)
        self._hang_up()
        self.qemu.wait_exit(_POWEROFF_SECONDS * self._lab.accelerator.scale)

    def power_cut(self) -> None:
        """Kill QEMU at once: what the guest had not synced is lost."""
        self._hang_up()
        self.qemu.power_cut()

    def power_on(self) -> Verdict:
        """Power on again, on the same disk, and wait until the guest is ready; raises BootError."""
        self.qemu.start()
        return self.wait_ready()

    def _hang_up(self) -> None:
        if self._ssh is not None:
            self._ssh.close()
        self._ssh = self._shell = None
        self._by_serial = False
        self._host_keys = ()


class Heartbeat:
    """Shows on standard error, every ten seconds, where a boot is (`Follower.pulse`)."""

    def __init__(self) -> None:
        self._console = progress.stderr()
        self._shown = time.monotonic()

    def __call__(self, follower: Follower) -> None:
        """Show where the boot is, unless that was shown lately."""
        if (now := time.monotonic()) - self._shown < progress.QUIET_SECONDS:
            return
        self._shown = now
        self._console.print(Text(follower.pulse))


class Lab:
    """The tools, accelerator and firmware of this host, and a directory for results; a context manager.

    `results` may be a function that makes the directory: it is called when the first machine needs it, so that bad
    input leaves nothing behind. `accelerator` is `auto`, `kvm` or `tcg`. Raises HostError when the host cannot run a
    machine.
    """

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
        return Image(name=shown, path=path, modules=own, inspection=inspection, debug=own is None and parsed.debug)

    @contextlib.contextmanager
    def ready(
        self,
        image: Image,
        hardware: Hardware | None = None,
        *,
        name: str = "",
        watch: Watch | None = None,
        cache: bool = True,
    ) -> Iterator[tuple[Vm, Snapshot]]:
        """Give a machine that is ready, and the snapshot of it before anybody has touched it.

        With `cache` a machine that an earlier run has booted goes on where that boot had ended; otherwise, and when
        there is none, it is booted cold. Raises BootError, HostError.
        """
        ordered = self._order(image, hardware, debug=False)
        with contextlib.ExitStack() as stack:
            if not cache or image.path.is_relative_to(self.scratch):
                vm = stack.enter_context(Vm(self, image, ordered, name, watch=watch))
                vm.wait_ready()
                yield vm, vm.snapshot(self.scratch / f"snapshot-{secrets.token_hex(4)}")
                return
            place = snapshots.directory(image.path, ordered, self.toolbox, self.accelerator)
            lock = stack.enter_context(snapshots.Lock(place))
            kept = snapshots.load(place)
            if kept is None:
                lock.alone()
                if (kept := snapshots.load(place, clear=True)) is None:
                    vm = stack.enter_context(Vm(self, image, ordered, name, watch=watch))
                    vm.wait_ready()
                    kept = vm.snapshot(place)
                    snapshots.prune(place)
                    lock.share()
                    yield vm, kept
                    return
                lock.share()
            vm = Vm(self, image, ordered, name, watch=watch, snapshot=kept.give_logs(self.results / name))
            yield stack.enter_context(vm), kept

    def fork(self, image: Image, snapshot: Snapshot, *, name: str, watch: Watch | None = None) -> Vm:
        """Return a machine that goes on from `snapshot` of a machine with `image`, to be entered."""
        return Vm(self, image, snapshot.record.hardware, name, watch=watch, snapshot=snapshot, by_serial=True)

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
    ) -> Vm:
        """Return a machine with the image's disk, to be entered; its results go below `name`.

        `watch` is called in the thread that waits for the boot, whenever something has happened. With `debug` the
        guest is told by its command line and by credentials to show its early boot, and to open a root shell on
        its second serial port; the image is not changed.
        """
        return Vm(self, image, self._order(image, hardware, debug=debug), name, watch=watch)

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
