"""What the machine does besides talking: it ends, resets, or panics."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from vmtests import contract
from vmtests.boot.explain import Knowledge
from vmtests.boot.follow import Follower
from vmtests.boot.stages import Stage
from vmtests.boot.verdict import Cause
from vmtests.errors import GuestError, Owner
from vmtests.image.check import breach
from vmtests.image.inspect import Inspection
from vmtests.image.source import Format
from vmtests.machine.events import MachineEvent
from vmtests.testing import ManualClock

from .consoles import IN_INITRD, NIXOS_BOOT, PANIC, STORE_MISSING, drip, failed

Make = Callable[..., Follower]


class TestEvents:
    """What the machine tells."""

    @pytest.mark.parametrize(
        ("name", "detail", "cause", "owner"),
        [
            ("RESET", {"guest": True, "reason": "guest-reset"}, Cause.UNEXPECTED_RESET, Owner.IMAGE),
            ("SHUTDOWN", {"guest": True, "reason": "guest-reset"}, Cause.UNEXPECTED_RESET, Owner.IMAGE),
            ("SHUTDOWN", {"guest": True, "reason": "guest-shutdown"}, Cause.POWERED_OFF, Owner.IMAGE),
            ("SHUTDOWN", {"guest": False, "reason": "host-signal"}, Cause.POWERED_OFF, Owner.HOST),
            ("GUEST_PANICKED", {"action": "pause"}, Cause.KERNEL_PANIC, Owner.IMAGE),
            ("STOP", {"status": "internal-error"}, Cause.ACCELERATOR_BROKEN, Owner.HOST),
            ("exit", {"returncode": 1, "stderr": "qemu: no disk\n"}, Cause.QEMU_EXITED, Owner.HOST),
            (
                "exit",
                {"returncode": 1, "stderr": "KVM internal error. Suberror: 1\n"},
                Cause.ACCELERATOR_BROKEN,
                Owner.HOST,
            ),
        ],
    )
    def test_events_that_end_a_boot(
        self,
        follower: Follower,
        clock: ManualClock,
        name: str,
        detail: dict[str, str | int | bool],
        cause: Cause,
        owner: Owner,
    ) -> None:
        """Each event has its cause and somebody who has to act."""
        follower.feed(IN_INITRD)
        follower.event(MachineEvent(name=name, detail=detail, t=clock.now))
        verdict = failed(follower)
        assert (cause, owner) == (verdict.cause, verdict.owner)
        assert any(item.source == "event" for item in verdict.evidence)

    @pytest.mark.parametrize("name", ["STOP", "RESUME", "NIC_RX_FILTER_CHANGED", "RTC_CHANGE"])
    def test_other_events_are_nothing(self, follower: Follower, clock: ManualClock, name: str) -> None:
        """A machine that is stopped for a snapshot has not failed."""
        follower.feed(IN_INITRD)
        follower.event(MachineEvent(name=name, detail={"status": "paused"}, t=clock.now))
        clock.advance(1.0)
        assert follower.verdict is None

    def test_how_qemu_exited(self, follower: Follower, clock: ManualClock) -> None:
        """The status and the last words of QEMU are in the sentence, made printable."""
        follower.event(
            MachineEvent(name="exit", detail={"returncode": 1, "stderr": "a\nno \x1b[2J disk\n"}, t=clock.now)
        )
        assert failed(follower).sentence == "QEMU exited with status 1: no \ufffd[2J disk"

    def test_a_signal_has_its_name(self, follower: Follower, clock: ManualClock) -> None:
        """A QEMU that was killed says by what."""
        follower.event(MachineEvent(name="exit", detail={"returncode": -9, "stderr": ""}, t=clock.now))
        assert failed(follower).sentence == "QEMU was killed by SIGKILL"

    def test_a_reset_does_not_hide_the_panic(self, follower: Follower, clock: ManualClock) -> None:
        """A panic that reboots is a panic, and the reset ends the reading on."""
        follower.feed(IN_INITRD + PANIC)
        clock.advance(0.1)
        follower.event(MachineEvent(name="RESET", t=clock.now))
        verdict = failed(follower)
        assert verdict.cause == Cause.KERNEL_PANIC
        assert pytest.approx(0.35) == verdict.evidence_to_verdict_s

    def test_a_panic_that_comes_late_counts(self, follower: Follower, clock: ManualClock) -> None:
        """The console may lag behind the event: there is a moment to read on."""
        follower.feed(IN_INITRD)
        clock.at(0.1, lambda: follower.feed(PANIC))
        follower.event(MachineEvent(name="SHUTDOWN", detail={"reason": "guest-reset"}, t=clock.now))
        assert failed(follower).cause == Cause.KERNEL_PANIC

    def test_the_first_event_is_the_cause(self, follower: Follower, clock: ManualClock) -> None:
        """A guest that powered off is why QEMU exited."""
        follower.feed(IN_INITRD)
        follower.event(MachineEvent(name="SHUTDOWN", detail={"reason": "guest-shutdown"}, t=clock.now))
        follower.event(MachineEvent(name="exit", detail={"returncode": 0, "stderr": ""}, t=clock.now))
        verdict = failed(follower)
        assert verdict.cause == Cause.POWERED_OFF
        assert verdict.sentence == "the guest powered itself off, then QEMU exited with status 0"


class TestLateness:
    """A host that has no processor for its guest."""

    @pytest.mark.parametrize(("late", "owner"), [(40.0, Owner.IMAGE), (50.0, Owner.HOST)])
    def test_a_time_out_of_a_starved_guest_is_the_hosts(
        self, make: Make, clock: ManualClock, late: float, owner: Owner
    ) -> None:
        """A device that did not come in time is the image's fault only where the guest had the time."""
        follower = make(late=lambda: late * (clock.now > 1000))
        clock.advance(90.0)
        follower.feed(IN_INITRD + STORE_MISSING)
        verdict = failed(follower)
        assert (Cause.DEVICE_TIMEOUT, owner) == (verdict.cause, verdict.owner)
        assert ("the host had no processor" in verdict.sentence) is (owner is Owner.HOST)

    def test_what_has_another_cause_stays_the_images(self, make: Make, clock: ManualClock) -> None:
        """A panic is no matter of time."""
        follower = make(late=lambda: 1000.0 * (clock.now > 1000))
        clock.advance(90.0)
        follower.feed(IN_INITRD + PANIC)
        assert Owner.IMAGE is failed(follower).owner


class TestResets:
    """Restarts, wanted or not."""

    def test_a_reset_of_the_firmware_is_its_own_affair(self, follower: Follower, clock: ManualClock) -> None:
        """Firmware may restart itself once; the timeline begins anew."""
        clock.advance(3.0)
        follower.event(MachineEvent(name="RESET", t=clock.now))
        drip(follower, clock, NIXOS_BOOT)
        assert follower.verdict is not None
        assert follower.verdict.ready
        assert pytest.approx(follower.timeline.starts[Stage.BOOTLOADER]) == 0.1

    def test_boot_loop(self, follower: Follower, clock: ManualClock) -> None:
        """A firmware, or a boot loader, that restarts again and again never boots."""
        for _ in range(2):
            assert follower.verdict is None
            follower.feed(b'BdsDxe: starting Boot0001 "UEFI" from x\n')
            follower.event(MachineEvent(name="RESET", t=clock.now))
        verdict = failed(follower)
        assert (verdict.cause, verdict.stage) == (Cause.BOOT_LOOP, Stage.BOOTLOADER)

    def test_an_expected_reset_is_a_new_boot(self, make: Make, clock: ManualClock) -> None:
        """With expect_reset a restart begins another boot."""
        follower = make(expect_reset=True)
        drip(follower, clock, NIXOS_BOOT)
        follower.event(MachineEvent(name="RESET", t=clock.now))
        assert (follower.boot, follower.verdict, follower.stage) == (2, None, Stage.FIRMWARE)

    def test_a_reboot_that_was_asked_for_is_none_of_a_loop(self, follower: Follower, clock: ManualClock) -> None:
        """The restart of a reboot that a test asked for does not count: the firmware may begin anew once more."""
        drip(follower, clock, NIXOS_BOOT)
        assert follower.wait_verdict().ready
        follower.new_boot("reboot")
        for _ in range(2):
            follower.event(MachineEvent(name="RESET", t=clock.now))
        drip(follower, clock, NIXOS_BOOT)
        assert follower.wait_verdict().ready

    def test_a_kernel_that_goes_down_says_so_before_the_restart(self, follower: Follower, clock: ManualClock) -> None:
        """What a guest's kernel prints on its way down is of no new boot, whose restart is still to come."""
        drip(follower, clock, NIXOS_BOOT)
        assert follower.wait_verdict().ready
        follower.new_boot("reboot")
        follower.feed(
            b"[  176.706117] (sd-umount)[573]: Failed to unmount /run/shutdown/mounts/ef: Device or resource busy\r\n"
            b"[  176.784948] systemd-shutdown[1]: Unable to finalize remaining file systems, ignoring.\r\n"
            b"[  176.894934] reboot: Restarting system\r\n"
        )
        follower.event(MachineEvent(name="RESET", t=clock.now))
        assert (follower.verdict, follower.stage) == (None, Stage.FIRMWARE)
        drip(follower, clock, NIXOS_BOOT)
        assert follower.wait_verdict().ready

    @pytest.mark.parametrize(
        "said",
        [
            b"selinux-autorelabel[700]: *** Warning -- SELinux targeted policy relabel is required.\n",
            b"[    9.000000] kexec_core: Starting new kernel\n",
        ],
    )
    def test_a_restart_that_the_guest_announced_is_none_of_a_failure(
        self, follower: Follower, clock: ManualClock, said: bytes
    ) -> None:
        """A system that is labelled, or that starts its next kernel itself, restarts because it means to."""
        drip(follower, clock, NIXOS_BOOT[: NIXOS_BOOT.index(b"[  OK  ] Reached target Multi")] + said)
        follower.event(MachineEvent(name="RESET", t=clock.now))
        assert (follower.verdict, follower.stage) == (None, Stage.FIRMWARE)
        drip(follower, clock, NIXOS_BOOT)
        assert follower.wait_verdict().ready

    def test_a_loop_of_expected_resets(self, make: Make, clock: ManualClock) -> None:
        """Restarts without ever getting ready are a loop even where restarts are expected."""
        follower = make(expect_reset=True)
        for _ in range(2):
            follower.feed(IN_INITRD)
            follower.event(MachineEvent(name="RESET", t=clock.now))
        assert failed(follower).cause == Cause.BOOT_LOOP

    def test_a_panic_is_no_expected_reset(self, make: Make, clock: ManualClock) -> None:
        """A restart after a panic is a failure, expected or not."""
        follower = make(expect_reset=True)
        follower.feed(IN_INITRD + PANIC)
        follower.event(MachineEvent(name="RESET", t=clock.now))
        assert failed(follower).cause == Cause.KERNEL_PANIC

    def test_a_boot_loader_that_cannot_boot_is_not_asked_twice(self, make: Make, clock: ManualClock) -> None:
        """Where inspection knows why the boot loader restarts, the first restart is the end."""
        missing = breach("x", "x", "x", "there is no kernel", cause=Cause.KERNEL_MISSING)
        inspection = Inspection(path=Path("disk.raw"), format=Format.RAW, size=1 << 30, checks=(missing,))
        follower = make(knowledge=Knowledge(contract.default(), inspection))
        follower.feed(b'BdsDxe: starting Boot0001 "UEFI" from x\n')
        follower.event(MachineEvent(name="RESET", t=clock.now))
        assert failed(follower).cause == Cause.KERNEL_MISSING

    def test_a_reset_that_only_the_console_shows(self, follower: Follower) -> None:
        """Where no event comes, the firmware's line in a later stage tells of the restart."""
        follower.feed(IN_INITRD + b'BdsDxe: loading Boot0001 "UEFI" from x\n')
        verdict = failed(follower)
        assert (verdict.cause, verdict.stage) == (Cause.UNEXPECTED_RESET, Stage.INITRD)

    def test_a_reboot_that_a_test_asked_for(self, follower: Follower, clock: ManualClock, tmp_path: Path) -> None:
        """A new boot has its own verdict and timeline, going down counts to neither; the files stay."""
        drip(follower, clock, NIXOS_BOOT)
        assert follower.wait_verdict().ready
        follower.new_boot("asked for")
        drip(follower, clock, b"[  OK  ] Stopped target Multi-User System.\n[FAILED] Failed to start x.\n")
        follower.event(MachineEvent(name="RESET", t=clock.now))
        drip(follower, clock, NIXOS_BOOT)
        assert follower.wait_verdict().ready
        assert follower.failure_after_ready is None
        assert pytest.approx(follower.timeline.starts[Stage.BOOTLOADER]) == 0.1
        results = tmp_path / "results"
        boots = [json.loads(line)["boot"] for line in (results / "console.jsonl").read_text().splitlines()]
        assert ({1, 2}, sorted(boots)) == (set(boots), boots)
        assert (results / "console.log").read_bytes().count(b"EFI stub") == 2
        assert [json.loads((results / name).read_text())["boot"] for name in ("timeline.json", "timeline-2.json")] == [
            1,
            2,
        ]

    def test_an_end_on_purpose(self, follower: Follower, clock: ManualClock) -> None:
        """A machine that is switched off on purpose has not failed."""
        follower.feed(NIXOS_BOOT)
        follower.expect_end()
        follower.event(MachineEvent(name="SHUTDOWN", detail={"reason": "guest-shutdown"}, t=clock.now))
        follower.event(MachineEvent(name="exit", detail={"returncode": 0, "stderr": ""}, t=clock.now))
        clock.advance(1.0)
        assert follower.failure_after_ready is None


class TestAfterReady:
    """A guest that was ready."""

    def test_a_later_panic(self, follower: Follower, clock: ManualClock) -> None:
        """A guest that was ready is still watched; its verdict stays what it was."""
        follower.feed(NIXOS_BOOT)
        follower.feed(PANIC)
        clock.advance(1.0)
        assert follower.verdict is not None
        assert follower.verdict.ready
        assert follower.failure_after_ready is not None
        assert (
            follower.failure_after_ready.cause,
            follower.failure_after_ready.stage,
        ) == (Cause.KERNEL_PANIC, Stage.READY)

    def test_a_later_exit_wakes_who_waits(self, follower: Follower, clock: ManualClock) -> None:
        """A QEMU that dies ends the wait for a line at once."""
        follower.feed(NIXOS_BOOT)
        event = MachineEvent(name="exit", detail={"returncode": -11, "stderr": ""}, t=0.0)
        clock.at(5.0, lambda: follower.event(event))
        with pytest.raises(GuestError, match="SIGSEGV"):
            follower.wait_line("never", timeout=600.0)
        assert clock.now - 1000 < 6.0
