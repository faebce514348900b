"""A machine under QEMU that is followed, judged and asked."""

import contextlib
import json
import time
from pathlib import Path
from typing import Protocol, Self

from rich.text import Text

from vmtests import progress
from vmtests.boot import journal
from vmtests.boot.budgets import Budgets
from vmtests.boot.explain import Knowledge
from vmtests.boot.follow import Follower, Watch
from vmtests.boot.past import Past
from vmtests.boot.stages import Stage
from vmtests.boot.verdict import Cause, Verdict
from vmtests.errors import GuestError
from vmtests.guest.guest import Guest
from vmtests.guest.keys import Key
from vmtests.guest.login import Login
from vmtests.guest.result import OUTPUT_LIMIT, Result
from vmtests.guest.serial import SerialShell
from vmtests.host.results import held
from vmtests.host.scratch import remove
from vmtests.image import symbols
from vmtests.image.image import Image
from vmtests.machine.hardware import Hardware
from vmtests.qemu import diagnosis, snapshots
from vmtests.qemu.diagnosis import Diagnosis
from vmtests.qemu.examine import QemuDoctor
from vmtests.qemu.pool import Pool
from vmtests.qemu.reach import QemuReach
from vmtests.qemu.snapshots import Snapshot
from vmtests.vm.vm import BootError, Vm

# The cursor on a screen that nobody looks at blinks five times a second (Linux, drivers/video/fbdev/core/fbcon.c): of
# all that an idle guest wakes up for, a third.
_STILL_CURSOR = "f=/sys/class/graphics/fbcon/cursor_blink; ! [ -w $f ] || echo 0 >$f"


class Forks(Protocol):
    """Makes the machines that go on from another one."""

    def __call__(self, vm: "QemuVm", name: str, /) -> "QemuVm":
        """Return a machine, to be entered, that goes on from where `vm` is now."""


class QemuVm(Vm):
    """A machine under QEMU.

    `key` is what its guest lets in, `token` what the guest says when it is ready, `knowledge` what is known of its
    image before it boots. `pool` makes the machine, `forks` those that go on from it. With `snapshot` it goes on from
    there itself; its commands are then run on the serial line if `by_serial`. `login` is who logs in, if not root with
    that key.
    """

    def __init__(
        self,
        image: Image,
        results: Path,
        hardware: Hardware,
        *,
        key: Key,
        token: str,
        knowledge: Knowledge,
        pool: Pool,
        forks: Forks,
        watch: Watch | None = None,
        snapshot: Snapshot | None = None,
        by_serial: bool = False,
        timeout: float | None = None,
        login: Login | None = None,
    ) -> None:
        super().__init__(image, results)
        self._timeout = timeout
        self._login = login
        self.hardware = hardware
        self._own_key = key
        self._token = token
        self._knowledge = knowledge
        self._pool = pool
        self._forks = forks
        self._watch = watch
        self._snapshot = snapshot
        self._by_serial = by_serial
        self._first = snapshot is None
        self._tried_again = False
        self._diagnosis: Diagnosis | None = None

    @property
    def scale(self) -> float:
        """That of the accelerator."""
        return self._pool.host.accelerator.scale

    def __enter__(self) -> Self:
        try:
            self._put_together()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _put_together(self) -> None:
        self._stack.callback(self._own_key.forget)
        self._stack.enter_context(held(self.results))
        snapshot = self._snapshot
        past = None if snapshot is None else snapshot.record.past
        accelerator = self._pool.host.accelerator.name
        self.say_what_is_booted(f"{accelerator}, {self.hardware.cpus} CPUs, {self.hardware.memory_mib} MiB")
        if snapshot is None:
            with contextlib.suppress(OSError):
                self.results.mkdir(parents=True, exist_ok=True)
                told = json.dumps(self.image.inspection.to_json())
                (self.results / "inspection.json").write_text(told)
        self._stack.enter_context(self._pool.room(self.hardware, forked=snapshot is not None))
        if snapshot is None:
            self.qemu = self._pool.cold(self.hardware, self.image.path, self.results)
        else:
            self.qemu = self._pool.fork(self.hardware, snapshot.template, self.results)
        self.doctor = QemuDoctor(
            self.qemu,
            self.results / "diagnosis",
            scale=self.scale,
            symbols=lambda: symbols.find(self.image.path, self._pool.host.toolbox),
            serial=self.image.inspection.talks_on("ttyS"),
        )
        self.follower = self._stack.enter_context(
            Follower(
                self.results,
                budgets=Budgets(scale=self.scale, whole=self._timeout),
                power_on=time.monotonic(),
                ready_token=self._token,
                knowledge=self._knowledge,
                past=past,
                doctor=self.doctor,
                late=lambda: self.qemu.late,
                watch=self._watch,
                on_failure=lambda: self.guest.interrupt(),
            )
        )
        self._started = time.time() if past is None else past.power_on(time.time())
        reach = QemuReach(self.qemu, scale=self.scale, agent=bool(self.hardware.agent))
        entered = snapshot is None or snapshot.record.prepared is not None
        self.guest = Guest(
            reach, self._own_key, scale=self.scale, by_serial=self._by_serial and entered, login=self._login
        )
        self.qemu.move(self.results, self.follower)
        self._stack.enter_context(self.qemu)
        self._stack.callback(self.guest.hang_up)
        if snapshot is not None and snapshot.record.past.verdict is not None:
            prepared = snapshot.record.prepared
            shell = None if prepared is None else reach.go_on(prepared)
            self.guest.know(shell, snapshot.record.host_keys)

    def fork(self, name: str = "") -> "QemuVm":
        """Return a copy of this machine as it is now, with its memory, devices and disk; use it with `with`.

        This one goes on. The copy's results go below `name`. Raises BootError when the guest does not get ready, and
        HostError when it cannot be kept.
        """
        return self._forks(self, name)

    def snapshot(self, directory: Path) -> Snapshot:
        """Keep the machine, as it is now, in `directory`, which is made; it goes on afterwards.

        Raises BootError when the guest does not get ready, HostError when the snapshot cannot be written.
        """
        verdict = self.wait_ready()
        # Nobody may get in, or only one way: then forks are entered as it is, and have what it has.
        host_keys: tuple[str, ...] = ()
        with contextlib.suppress(GuestError):
            host_keys = self.host_keys
        prepared: str | None = None
        with contextlib.suppress(GuestError):
            self.shell.run(_STILL_CURSOR)
            prepared = self.shell.prepare()
        if (failure := self.follower.failure_after_ready) is not None:
            raise BootError(failure, self.results, self.image.inspection, self.console)
        return self._keep(directory, verdict, host_keys, prepared)

    def snapshot_of_stage(self, directory: Path, stage: Stage) -> Snapshot | None:
        """Keep the machine in `directory` when `stage` begins; None when the boot has its verdict before.

        A machine that is resumed from it is in the middle of its boot. Raises HostError when the snapshot cannot be
        written.
        """
        return self._keep(directory, None, ()) if self.follower.wait_stage(stage) else None

    def snapshot_here(self, directory: Path) -> Snapshot:
        """Keep the machine in `directory` as it is at this moment, wherever its boot is.

        It goes on afterwards, unless it stood still. A boot that had not got ready is judged again when it is resumed.
        Raises HostError when the snapshot cannot be written.
        """
        verdict, told = self.verdict, self.qemu.execute("query-status")
        stands = isinstance(told, dict) and told.get("running") is False
        try:
            return self._keep(directory, verdict if verdict is not None and verdict.ready else None, ())
        finally:
            # QEMU has let go of the disks until `cont`, and keeps no machine twice before: it goes on for a moment.
            if stands and self.qemu.alive:
                self.qemu.execute("stop")

    def _keep(
        self, directory: Path, verdict: Verdict | None, host_keys: tuple[str, ...], prepared: str | None = None
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
                    changed=snapshots.last_changed(template),
                ),
            )
            snapshots.save(kept)
        except BaseException:
            remove(directory)
            raise
        return kept

    def close(self) -> None:
        """End the machine; its results stay. A boot that was diagnosed is told by its disk too."""
        self.guest.hang_up()
        try:
            if (known := self._diagnosis) is not None:
                self._diagnosis = None
                if self.qemu.alive:
                    self.qemu.power_cut()
                diagnosis.read_disk(self.qemu.disk, known, self._pool.host.toolbox, since=self._started)
                self._amend()
        finally:
            self._stack.close()

    def diagnose(self, verdict: Verdict) -> Diagnosis:
        """Gather in `diagnosis/` what a machine whose boot failed can still tell; its disk is read by `close`."""
        self.guest.hang_up()
        lines, scale = self.console, self.scale
        self._diagnosis = diagnosis.gather(self.qemu, verdict, lines, self.results / "diagnosis", scale=scale)
        self._amend()
        return self._diagnosis

    def _amend(self) -> None:
        """Have the verdict on a boot that failed say what the guest's journal does, as far as that was got."""
        verdict, timeline = self.verdict, self.timeline
        if verdict is not None and not verdict.ready:
            lines = self.console if timeline.boot == 1 else ()  # they are of all boots
            told = journal.amend(verdict, self.results, lines, timeline)
            if told != verdict:
                self.follower.amend(told)

    @property
    def second_console(self) -> bytes:
        """What QEMU has logged of it."""
        return (self.results / "ttyS1.log").read_bytes()

    def screenshot(self) -> Path:
        """Write the screen to a PNG file and return its path."""
        return self.qemu.screenshot()

    def wait_verdict(self) -> Verdict:
        """Wait as `Vm.wait_verdict`; a machine that the host left no time, or no timer, is powered on once more.

        Such a boot says little about the image. If it was the first, the next one begins with an untouched disk.
        """
        verdict = super().wait_verdict()
        if verdict.cause is Cause.ACCELERATOR_BROKEN and self._begin_without_kvm(verdict):
            verdict = super().wait_verdict()
        if not (verdict.starved or verdict.cause is Cause.TIMER_STALLED) or self._tried_again:
            return verdict
        self._tried_again = True
        told = f"{self.results.name}: {verdict.sentence}; its power is cut and given back"
        progress.stderr().print(Text(told))
        self.power_cut()
        if self._first:
            self.qemu.renew()
        self.begin_power_on()
        return super().wait_verdict()

    def _begin_without_kvm(self, verdict: Verdict) -> bool:
        """Boot once more, without KVM, where that has failed in the firmware; False where it is not to be."""
        first = self._first and self._snapshot is None and verdict.stage is Stage.FIRMWARE
        if not first or not self._pool.host.give_up_kvm(verdict.sentence):
            return False
        told = f"{self.results.name}: KVM failed in the firmware; the machine is booted again without it"
        progress.stderr().print(Text(told))
        self._pool.close()
        self._stack.close()
        self.__enter__()
        return True

    # In the guest.

    def _nearest(self) -> SerialShell:
        return self.shell

    def run(
        self,
        command: str,
        /,
        timeout: float = 120.0,
        *,
        stdin: bytes | None = None,
        limit: int = OUTPUT_LIMIT,
    ) -> Result:
        """Run a command as `Vm.run`; after a fork's first answer the next fork's QEMU is started ahead of time."""
        try:
            return super().run(command, timeout, stdin=stdin, limit=limit)
        finally:
            if self._snapshot is not None and self.guest.by_serial:
                self._pool.expect(self.hardware, self._snapshot.template)

    # Power.

    def power_cut(self) -> None:
        """Kill QEMU at once: what the guest had not synced is lost."""
        self.guest.hang_up()
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
            self._stack.enter_context(self._pool.grow(self.hardware))
            self._snapshot = None
