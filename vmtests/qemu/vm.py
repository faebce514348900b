"""A machine under QEMU that is followed, judged and asked."""

import contextlib
import secrets
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rich.text import Text

from vmtests import progress
from vmtests.boot.budgets import Budgets
from vmtests.boot.explain import Knowledge
from vmtests.boot.follow import Follower
from vmtests.boot.past import Past
from vmtests.boot.stages import Stage
from vmtests.boot.verdict import Cause, Verdict
from vmtests.errors import GuestError
from vmtests.guest import credentials
from vmtests.guest.result import OUTPUT_LIMIT, Result
from vmtests.guest.serial import SerialShell
from vmtests.guest.ssh import HOST_KEYS_COMMAND, Key
from vmtests.host.admission import OVERHEAD
from vmtests.host.scratch import remove
from vmtests.image import symbols
from vmtests.machine.argv import Hardware
from vmtests.machine.qemu import QemuMachine
from vmtests.qemu import diagnosis, snapshots
from vmtests.qemu.diagnosis import Diagnosis
from vmtests.qemu.examine import QemuDoctor
from vmtests.qemu.snapshots import Snapshot
from vmtests.sizes import MIB
from vmtests.vm import Image, Vm, Watch

if TYPE_CHECKING:
    from vmtests.qemu.lab import Lab

_POWEROFF_SECONDS = 120.0
# The cursor on a screen that nobody looks at blinks five times a second (Linux, drivers/video/fbdev/core/fbcon.c): of
# all that an idle guest wakes up for, a third.
_STILL_CURSOR = "f=/sys/class/graphics/fbcon/cursor_blink; ! [ -w $f ] || echo 0 >$f"


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
        self._first = snapshot is None
        self._tried_again = False
        self._watch = watch
        self._diagnosis: Diagnosis | None = None
        self._started = time.time()

    @property
    def scale(self) -> float:
        """That of the accelerator."""
        return self._lab.accelerator.scale

    def __enter__(self) -> Self:
        try:
            memory = OVERHEAD + (self.hardware.memory_mib * MIB if self._snapshot is None else 0)
            self._stack.enter_context(self._lab.admission.room(memory))
            self.qemu = self._make()
            doctor = QemuDoctor(
                self.qemu,
                self.results / "diagnosis",
                scale=self.scale,
                symbols=lambda: symbols.find(self.image.path, self._lab.toolbox),
            )
            self.follower = self._stack.enter_context(
                Follower(
                    self.results,
                    budgets=Budgets(scale=self.scale),
                    power_on=time.monotonic(),
                    ready_token=self._token,
                    knowledge=Knowledge(self._lab.contract, self.image.inspection),
                    past=None if self._snapshot is None else self._snapshot.record.past,
                    doctor=doctor,
                    late=lambda: self.qemu.late,
                    watch=self._watch,
                )
            )
            self.qemu.move(self.results, self.follower)
            self._stack.enter_context(self.qemu)
            if self._snapshot is not None and self._snapshot.record.past.verdict is not None:
                self._go_on(self._snapshot)
        except BaseException:
            self._stack.close()
            raise
        return self

    def _make(self) -> QemuMachine:
        if (snapshot := self._snapshot) is None:
            return self._lab.qemu(self.hardware, self.image, results=self.results)
        return self._lab.expected_fork(snapshot) or self._lab.qemu(
            self.hardware, self.image, results=self.results, template=snapshot.template
        )

    def _go_on(self, snapshot: Snapshot) -> None:
        """Tell a fork what time it is; the generation id that QEMU gave it has renewed its random numbers."""
        serial = self._stack.enter_context(contextlib.closing(self.qemu.serial()))
        shell = SerialShell(serial, answer_timeout=30.0 * self.scale)
        shell.take_over(snapshot.record.prepared)
        shell.wake()
        self._shell = shell
        self._host_keys = snapshot.record.host_keys

    def snapshot(self, directory: Path) -> Snapshot:
        """Keep the machine, as it is now, in `directory`, which is made; it goes on afterwards.

        Raises BootError when the guest does not get ready, HostError when the snapshot cannot be written.
        """
        verdict = self.wait_ready()
        host_keys = self.host_keys
        self.shell.run(_STILL_CURSOR)
        return self._keep(directory, verdict, host_keys, self.shell.prepare())

    def snapshot_of_stage(self, directory: Path, stage: Stage) -> Snapshot | None:
        """Keep the machine in `directory` when `stage` begins; None when the boot has its verdict before.

        Who goes on from it is in the middle of a boot. Raises HostError when the snapshot cannot be written.
        """
        return self._keep(directory, None, ()) if self.follower.wait_stage(stage) else None

    def _keep(
        self, directory: Path, verdict: Verdict | None, host_keys: tuple[str, ...], prepared: str = ""
    ) -> Snapshot:
        try:
            with self.qemu.snapshot(directory) as template:
                # While it stands still: what it prints later is printed by who goes on from here, too.
                past = Past.of(verdict, self.timeline, self.console)
                snapshots.take_logs(self.results, template)
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
                    prepared=prepared,
                    past=past,
                    state=snapshots.state_digest(template),
                ),
            )
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

    def wait_verdict(self) -> Verdict:
        """As of any machine; one whose timer stood still, which says little about its image, is powered on once more.

        If that was its first boot, the next one begins with an untouched disk.
        """
        verdict = super().wait_verdict()
        if verdict.cause is not Cause.TIMER_STALLED or self._tried_again:
            return verdict
        self._tried_again = True
        told = f"{self.results.name}: {verdict.sentence}; its power is cut and given back"
        progress.stderr().print(Text(told))
        self.power_cut()
        if self._first:
            self.qemu.renew()
        self.begin_power_on()
        return super().wait_verdict()

    # In the guest.

    def run(
        self,
        command: str,
        /,
        timeout: float = 120.0,
        *,
        stdin: bytes | None = None,
        limit: int = OUTPUT_LIMIT,
    ) -> Result:
        """As of any machine. With a fork's first answer, and not before, the next fork's machine is begun."""
        try:
            return super().run(command, timeout, stdin=stdin, limit=limit)
        finally:
            if self._by_serial and self._snapshot is not None:
                self._lab.expect_fork(self.image, self._snapshot)

    @property
    def shell(self) -> SerialShell:
        """A root shell on the serial console, logged in at the first use of each boot."""
        if self._shell is None:
            serial = self._stack.enter_context(contextlib.closing(self.qemu.serial()))
            shell = SerialShell(serial, answer_timeout=30.0 * self.scale)
            shell.login(timeout=60.0 * self.scale)
            self._shell = shell
        return self._shell

    @contextlib.contextmanager
    def line(self) -> Iterator[socket.socket]:
        """Give the serial console, on which a shell that commands were run in is the person's now."""
        if self._shell is not None:
            self._shell.release()
        self._hang_up()
        with contextlib.closing(self.qemu.serial()) as line:
            yield line

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

    def begin_power_on(self) -> None:
        """Power on again, on the same disk, for who has other things to do before `wait_ready`."""
        self._leave_first_boot()
        self.qemu.start()

    def begin_reboot(self) -> None:
        """Tell the guest to reboot cleanly, for who has other things to do before `wait_ready`."""
        self._leave_first_boot()
        super().begin_reboot()

    def _leave_first_boot(self) -> None:
        """Have room for all the memory of a fork, which a new boot writes over."""
        self._first = False
        if self._snapshot is not None:
            self._stack.enter_context(self._lab.admission.room(self.hardware.memory_mib * MIB))
            self._snapshot = None
