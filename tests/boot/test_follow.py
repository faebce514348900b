"""Following a boot."""

import json
import re
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from vmtests import contract
from vmtests.boot import Budgets, Cause, Follower, MachineEvent, Stage, Verdict
from vmtests.boot.explain import Knowledge
from vmtests.errors import GuestError, Owner
from vmtests.image.check import breach
from vmtests.image.inspect import Inspection
from vmtests.image.source import Format

from .fakes import GOOD_BOOT, IN_INITRD, NIXOS_BOOT, PANIC, STORE_MISSING, ManualClock

Make = Callable[..., Follower]


def failed(follower: Follower) -> Verdict:
    """Wait for the verdict, which must be a failure."""
    verdict = follower.wait_verdict()
    assert not verdict.ready
    return verdict


def drip(follower: Follower, clock: ManualClock, data: bytes, every: float = 0.1) -> None:
    """Feed line by line, each after `every` seconds."""
    for line in data.splitlines(keepends=True):
        clock.advance(every)
        follower.feed(line)


class TestReady:
    """When a boot is ready."""

    @pytest.mark.parametrize("console", [GOOD_BOOT, NIXOS_BOOT], ids=["debian", "nixos"])
    def test_a_good_boot_is_ready(self, follower: Follower, clock: ManualClock, console: bytes) -> None:
        """A good boot goes through all seven stages in order, in either spelling."""
        drip(follower, clock, console)
        verdict = follower.wait_verdict()
        assert (
            verdict.ready,
            verdict.stage,
            verdict.cause,
            verdict.owner,
        ) == (True, Stage.READY, None, None)
        assert list(Stage) == list(verdict.seconds)
        starts = list(follower.timeline.starts.values())
        assert sorted(starts) == starts

    @pytest.mark.parametrize("size", [1, 7, 64])
    def test_how_reads_cut_does_not_matter(self, follower: Follower, size: int) -> None:
        """A boot in reads of any size has the same verdict."""
        for start in range(0, len(GOOD_BOOT), size):
            follower.feed(GOOD_BOOT[start : start + size])
        assert follower.verdict is not None
        assert follower.verdict.ready

    def test_a_running_job_holds_ready_back(self, follower: Follower, clock: ManualClock) -> None:
        """The target alone is not ready: a job that runs has to end."""
        follower.feed(GOOD_BOOT.replace(b"Started \x1b[0;1;39mssh", b"Started \x1b[0;1;39mother"))
        assert follower.verdict is None
        clock.advance(1.0)
        follower.feed(b"[  OK  ] Started ssh.service - OpenBSD Secure Shell server.\n")
        assert follower.verdict is not None
        assert "no start job is left" in follower.verdict.sentence
        assert follower.timeline.starts[Stage.READY] == 1.0

    def test_a_lost_result_line_is_settled_by_silence(self, make: Make, clock: ManualClock) -> None:
        """A job whose end was not seen holds ready back until the console was silent for the settle time."""
        follower = make(budgets=Budgets(scale=4.0))
        follower.feed(GOOD_BOOT.replace(b"Started \x1b[0;1;39mssh", b"Started \x1b[0;1;39mother"))
        verdict = follower.wait_verdict()
        assert (verdict.ready, clock.waits, follower.timeline.starts[Stage.READY]) == (True, [8.0], 8.0)

    def test_output_delays_the_settling(self, follower: Follower, clock: ManualClock) -> None:
        """Every line that comes begins the silence anew."""
        follower.feed(GOOD_BOOT.replace(b"Started \x1b[0;1;39mssh", b"Started \x1b[0;1;39mother"))
        clock.at(1.5, lambda: follower.feed(b"still here\n"))
        follower.wait_verdict()
        assert follower.timeline.starts[Stage.READY] == 3.5

    def test_jobs_of_the_initrd_do_not_count(self, follower: Follower) -> None:
        """The manager of the running system starts with no jobs."""
        follower.feed(NIXOS_BOOT.replace(b"[  OK  ] Finished NixOS Activation.\n", b""))
        assert follower.verdict is not None
        assert "no start job is left" in follower.verdict.sentence

    def test_a_failed_unit_is_no_failed_boot(self, follower: Follower) -> None:
        """In the running system a unit may fail; the boot is ready all the same."""
        target = b"[  OK  ] Reached target Multi"
        extra = b"[FAILED] Failed to start x.service - X.\n[FAILED] Failed to mount /data.\n"
        follower.feed(NIXOS_BOOT.replace(target, extra + target))
        assert follower.verdict is not None
        assert follower.verdict.ready

    def test_a_login_prompt_is_not_ready(self, follower: Follower) -> None:
        """Ready is a target reached, not somebody who asks for a name."""
        follower.feed(NIXOS_BOOT.replace(b"[  OK  ] Reached target Multi-User System.\n", b"nixos login: "))
        assert follower.verdict is None


class TestPowerOn:
    """Where time begins."""

    def test_from_power_on(self, follower: Follower, clock: ManualClock) -> None:
        """The firmware starts at power-on when that is known."""
        clock.advance(2.0)
        follower.feed(b'BdsDxe: starting Boot0001 "UEFI" from x\n')
        assert follower.timeline.starts[Stage.BOOTLOADER] == 2.0

    def test_from_the_first_byte(self, make: Make, clock: ManualClock) -> None:
        """The firmware starts with its first byte when nobody knows of power-on."""
        follower = make(power_on=None)
        clock.advance(30.0)
        follower.feed(b"\n")
        clock.advance(2.0)
        follower.feed(b'BdsDxe: starting Boot0001 "UEFI" from x\n')
        assert follower.timeline.starts[Stage.BOOTLOADER] == 2.0


class TestFailures:
    """What lines tell."""

    def test_the_first_line_is_the_root_cause(self, follower: Follower) -> None:
        """Of a chain of failures that ends in an emergency shell the first is named, with its device."""
        follower.feed(IN_INITRD + STORE_MISSING)
        verdict = failed(follower)
        assert (
            verdict.cause,
            verdict.stage,
            verdict.owner,
        ) == (Cause.DEVICE_TIMEOUT, Stage.INITRD, Owner.IMAGE)
        assert "device /dev/disk/by-partlabel/nix-store did not appear, then the guest gave up" in verdict.sentence
        assert any("Timed out waiting for device" in item.text for item in verdict.evidence)
        assert any("You are in emergency mode" in item.text for item in verdict.evidence)

    def test_unit_names_in_front(self, follower: Follower) -> None:
        """The combined spelling names the same device."""
        follower.feed(IN_INITRD)
        follower.feed(
            b"[ TIME ] Timed out waiting for device dev-disk-by\\x2dpartlabel-nix\\x2dstore.device - "
            b"/dev/disk/by-partlabel/nix-store.\n[  OK  ] Started emergency.service - Emergency Shell.\n"
        )
        assert failed(follower).sentence.startswith("device /dev/disk/by-partlabel/nix-store did")

    @pytest.mark.parametrize(
        ("console", "cause"),
        [
            (b"[FAILED] Failed to mount /sysroot/nix/.ro-store.\n", Cause.MOUNT_FAILED),
            (b"[FAILED] Failed to mount sysroot.mount - /sysroot.\n", Cause.MOUNT_FAILED),
            (b"[DEPEND] Dependency failed for /sysroot/nix/store.\n", Cause.DEPENDENCY_FAILED),
            (
                b"[FAILED] Failed to start initrd-find-nixos-cl\xe2\x80\xa6e - Find NixOS closure.\n",
                Cause.INIT_MISSING,
            ),
            (b"[FAILED] Failed to start File System Check on /dev/sda3.\n", Cause.FSCK_FAILED),
            (b"[    5.000000] Out of memory: Killed process 77 (mount) total-vm:9kB\n", Cause.OUT_OF_MEMORY),
            (b"", Cause.EMERGENCY_SHELL),
        ],
    )
    def test_root_causes_of_an_emergency(self, follower: Follower, console: bytes, cause: Cause) -> None:
        """What failed first in the initrd is why it gave up; if nothing did, the shell is the cause."""
        follower.feed(IN_INITRD + console + b"[  OK  ] Started Emergency Shell.\n")
        assert cause == failed(follower).cause

    @pytest.mark.parametrize(
        "prompt",
        [b"Press Enter for maintenance\r\n(or", b"Give root password for maintenance", b"(initramfs) "],
    )
    def test_a_prompt_without_newline_is_seen(self, follower: Follower, prompt: bytes) -> None:
        """A shell that waits for input never ends its line."""
        follower.feed(IN_INITRD + prompt)
        assert failed(follower).cause == Cause.EMERGENCY_SHELL

    def test_emergency_of_the_running_system(self, follower: Follower) -> None:
        """A file system of the running system that is not there ends in an emergency shell too."""
        follower.feed(NIXOS_BOOT.partition(b"[  OK  ] Reached target Local")[0])
        follower.feed(STORE_MISSING.replace(b"nix-store", b"ESP"))
        verdict = failed(follower)
        assert (verdict.cause, verdict.stage) == (Cause.DEVICE_TIMEOUT, Stage.USERSPACE)

    def test_what_the_boot_survived_is_forgotten(self, follower: Follower) -> None:
        """A failure of the initrd is no cause once the running system started."""
        follower.feed(IN_INITRD + b"[FAILED] Failed to start Load Kernel Modules.\nWelcome to Debian!\n")
        follower.feed(b"[  OK  ] Started Emergency Shell.\n")
        assert failed(follower).cause == Cause.EMERGENCY_SHELL

    def test_what_fails_after_the_end_is_no_cause(self, follower: Follower) -> None:
        """A unit that fails beside the emergency shell is evidence, not the root."""
        follower.feed(IN_INITRD + b"[  OK  ] Started Emergency Shell.\n[FAILED] Failed to mount /sys/kernel/config.\n")
        verdict = failed(follower)
        assert verdict.cause == Cause.EMERGENCY_SHELL
        assert any("/sys/kernel/config" in item.text for item in verdict.evidence)

    def test_panic(self, follower: Follower, clock: ManualClock) -> None:
        """A panic is judged within two seconds, with the lines around it."""
        follower.feed(IN_INITRD)
        clock.at(0.5, lambda: follower.feed(b"[   12.000005] Rebooting in 1 seconds..\n"))
        follower.feed(PANIC)
        verdict = failed(follower)
        assert (verdict.cause, verdict.stage) == (Cause.KERNEL_PANIC, Stage.INITRD)
        assert "Fatal exception in interrupt" in verdict.sentence
        assert verdict.evidence_to_verdict_s < 2.0
        found = [item.text for item in verdict.evidence]
        assert [any(words in text for text in found) for words in ("Trigger a crash", "Rebooting")] == [
            True,
            True,
        ]

    def test_panic_on_fail_has_the_cause_of_what_failed(self, follower: Follower) -> None:
        """The panic that a stock cloud image makes of every failure hides no cause."""
        console = STORE_MISSING.partition(b"[  OK  ]")[0] + b"         Starting panic-on-fail.service...\n"
        follower.feed(IN_INITRD + console + PANIC.replace(b"Fatal exception in interrupt", b"sysrq triggered crash"))
        assert failed(follower).cause == Cause.DEVICE_TIMEOUT

    @pytest.mark.parametrize(
        ("line", "cause"),
        [
            (b"[    3.100000] Kernel panic - not syncing: No working init found.", Cause.INIT_MISSING),
            (
                b"[    3.100000] Kernel panic - not syncing: Requested init /nix/x/init failed (error -2).",
                Cause.INIT_MISSING,
            ),
            (
                b"[    3.100000] Kernel panic - not syncing: Attempted to kill init! exitcode=0x7f00",
                Cause.INIT_EXITED,
            ),
            (b"[    3.100000] Kernel panic - not syncing: VFS: Unable to mount root fs", Cause.KERNEL_PANIC),
            (
                b"[    3.100000] BUG: kernel NULL pointer dereference, address: 0000000000000000",
                Cause.KERNEL_OOPS,
            ),
            (
                b"[    3.100000] Oops: general protection fault, maybe for address 0x1: 0000 [#1] SMP",
                Cause.KERNEL_OOPS,
            ),
            (b"[    3.100000] int3: 0000 [#1] PREEMPT SMP NOPTI", Cause.KERNEL_OOPS),
            (b"[    3.100000] Oops: 0002 [#1] PREEMPT SMP", Cause.KERNEL_OOPS),
        ],
    )
    def test_what_the_kernel_says(self, follower: Follower, line: bytes, cause: Cause) -> None:
        """The kernel's last words name the cause."""
        follower.feed(b"EFI stub: x\n" + line + b"\n")
        assert cause == failed(follower).cause

    @pytest.mark.parametrize(
        "line",
        [
            b"[   30.000000] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [systemd:1]",
            b"[   30.000000] WARNING: CPU: 0 PID: 1 at kernel/x.c:1 f+0x1/0x2",
            b"Kernel panic - not syncing: said a shell",
            b"[   30.000000] x: Kernel panic - not syncing: quoted",
            b"Nov 22 20:00:00 host kernel: Kernel panic - not syncing: yesterday",
            b"$ echo You are in emergency mode",
        ],
    )
    def test_what_is_no_failure(self, follower: Follower, line: bytes) -> None:
        """Warnings, and lines that quote a failure, fail no boot."""
        follower.feed(
            GOOD_BOOT.replace(b"Booting initrd", b"[    1.000000] ACPI: x\r\n" + line + b"\r\nBooting initrd")
        )
        assert follower.verdict is not None
        assert follower.verdict.ready

    def test_a_panic_counts_more_than_the_oops_before(self, follower: Follower) -> None:
        """A crash that becomes a panic is a panic, with the crash as evidence."""
        follower.feed(b"EFI stub: x\n[    3.100000] int3: 0000 [#1] PREEMPT SMP\n" + PANIC)
        verdict = failed(follower)
        assert verdict.cause == Cause.KERNEL_PANIC
        assert any("int3" in item.text for item in verdict.evidence)

    def test_failures_while_going_down_are_benign(self, follower: Follower, clock: ManualClock) -> None:
        """After a shutdown began, units fail and consoles close; only the power-off itself is judged."""
        follower.feed(IN_INITRD + b"[  OK  ] Reached target System Reboot.\n[FAILED] Failed to mount /x.\n")
        follower.event(MachineEvent(name="RESET", t=clock.now))
        assert failed(follower).cause == Cause.UNEXPECTED_RESET

    def test_evidence_is_bounded(self, follower: Follower) -> None:
        """However long a guest goes on after a panic, the evidence stays short."""
        follower.feed(b"EFI stub: x\n" + PANIC + b"".join(b"%d %s\n" % (n, b"x" * 5000) for n in range(100)))
        verdict = failed(follower)
        assert len(verdict.evidence) <= 40
        assert max(len(item.text) for item in verdict.evidence) <= 300


class TestFirmware:
    """Firmware and boot loader."""

    def test_shell(self, follower: Follower) -> None:
        """A firmware that ends in its shell found nothing to boot, and says which device failed."""
        follower.feed(b'BdsDxe: failed to load Boot0001 "UEFI QEMU HARDDISK " from PciRoot(0x0): Not Found\r\n')
        follower.feed(b"UEFI Interactive Shell v2.2\r\nEDK II\r\nShell> ")
        verdict = failed(follower)
        assert (verdict.cause, verdict.stage) == (Cause.FIRMWARE_NO_BOOT_DEVICE, Stage.FIRMWARE)
        assert 'could not start Boot0001 "UEFI QEMU HARDDISK "' in verdict.sentence
        assert "Not Found" in verdict.sentence

    @pytest.mark.parametrize(
        "console",
        [
            b"BdsDxe: No bootable option or device was found.\r\n",
            b'BdsDxe: starting Boot0000 "BootManagerMenuApp" from Fv(x)\r\n',
            b'BdsDxe: loading Boot0002 "EFI Internal Shell" from Fv(x)\r\n',
            b"Shell> ",
        ],
    )
    def test_dead_ends(self, follower: Follower, console: bytes) -> None:
        """Each way in which a firmware gives up is known."""
        follower.feed(console)
        assert failed(follower).cause == Cause.FIRMWARE_NO_BOOT_DEVICE

    def test_a_prompt_of_a_later_shell_is_none_of_the_firmware(self, follower: Follower) -> None:
        """A pattern counts only in the stages in which its line can come."""
        follower.feed(NIXOS_BOOT.replace(b"[  OK  ] Reached target Multi", b"Shell> \n[  OK  ] Reached target Multi"))
        assert follower.verdict is not None
        assert follower.verdict.ready

    @pytest.mark.parametrize(
        "console",
        [
            b"../src/boot/boot.c:2560@image_start: Error loading \\EFI\\nixos\\kernel.efi: Not found\r\n",
            b"Error preparing initrd: Not supported\r\n",
            b"No loader found. Configuration files in \\loader\\entries\\*.conf are needed.\r\n",
        ],
    )
    def test_boot_loader(self, follower: Follower, console: bytes) -> None:
        """What systemd-boot complains of is the boot loader's failure."""
        follower.feed(b'BdsDxe: starting Boot0001 "UEFI" from x\r\n' + console)
        verdict = failed(follower)
        assert (verdict.cause, verdict.stage) == (Cause.BOOTLOADER_ERROR, Stage.BOOTLOADER)

    def test_an_error_that_the_boot_loader_ignores(self, follower: Follower) -> None:
        """An error that is said to be ignored is ignored."""
        ignored = b"Error loading global addons, ignoring: Not found\r\nEFI stub:"
        follower.feed(GOOD_BOOT.replace(b"EFI stub:", ignored))
        assert follower.verdict is not None
        assert follower.verdict.ready

    def test_crash_on_the_console(self, follower: Follower) -> None:
        """An exception under the firmware is known, wherever the cursor was."""
        follower.feed(b"Booting: !!!! X64 Exception Type - 0E(#PF - Page-Fault)  CPU Apic ID - 00000000 !!!!\r\n")
        verdict = failed(follower)
        assert (verdict.cause, verdict.owner) == (Cause.FIRMWARE_CRASH, Owner.HOST)
        assert "#PF - Page-Fault" in verdict.sentence

    def test_the_debug_port_is_kept(self, follower: Follower, tmp_path: Path) -> None:
        """What the firmware writes on its debug port is kept byte for byte."""
        text = b"ASSERT [DxeCore] /build/x.c(123): !EFI_ERROR (Status)\r\n"
        follower.feed_firmware(text)
        assert text == (tmp_path / "results" / "firmware.log").read_bytes()

    def test_the_debug_port_is_progress(self, follower: Follower, clock: ManualClock) -> None:
        """A firmware that speaks on its debug port lives."""
        for second in range(15, 100, 15):
            clock.at(second, lambda: follower.feed_firmware(b"."))
        assert failed(follower).cause == Cause.NO_PROGRESS
        assert clock.now - 1000 == 90 + 20


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

    @pytest.mark.parametrize(("late", "owner"), [(9.0, Owner.IMAGE), (40.0, Owner.HOST)])
    def test_a_time_out_of_a_starved_guest_is_the_hosts(
        self, follower: Follower, clock: ManualClock, late: float, owner: Owner
    ) -> None:
        """A device that did not come in time is the image's fault only where the guest had the time."""
        follower.late = lambda: late
        clock.advance(90.0)
        follower.feed(IN_INITRD + STORE_MISSING)
        verdict = failed(follower)
        assert (Cause.DEVICE_TIMEOUT, owner) == (verdict.cause, verdict.owner)
        assert ("the host had no processor" in verdict.sentence) is (owner is Owner.HOST)

    def test_what_has_another_cause_stays_the_images(self, follower: Follower, clock: ManualClock) -> None:
        """A panic is no matter of time."""
        follower.late = lambda: 1000.0
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
        missing = breach("ESP", "kernel", "missing", "kernel /vmlinuz is not on the ESP")
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


class TestProgress:
    """Silence."""

    def test_silence(self, follower: Follower, clock: ManualClock) -> None:
        """A stage that is silent for its budget is stuck; the verdict names it and its last line."""
        clock.at(10.0, lambda: follower.feed(IN_INITRD))
        verdict = failed(follower)
        assert (verdict.cause, verdict.stage) == (Cause.NO_PROGRESS, Stage.INITRD)
        assert (
            verdict.sentence == "stage initrd made no progress for 30 s; the last line, 30 s old, is "
            '"Booting initrd of Debian..."'
        )
        assert clock.now - 1000 == 40.0

    def test_nothing_at_all(self, follower: Follower) -> None:
        """A machine that prints nothing is the host's affair."""
        verdict = failed(follower)
        assert (verdict.stage, verdict.owner) == (Stage.FIRMWARE, Owner.HOST)
        assert verdict.sentence.endswith("nothing was printed")

    def test_only_the_time_left_is_waited_for(self, follower: Follower, clock: ManualClock) -> None:
        """A wait lasts as long as the budget has left."""
        clock.advance(5.0)
        failed(follower)
        assert clock.waits == [15.0]

    def test_new_lines_are_progress(self, follower: Follower, clock: ManualClock) -> None:
        """Every new line begins the budget anew."""
        clock.at(15.0, lambda: follower.feed(b"PXE is slow\n"))
        failed(follower)
        assert clock.now - 1000 == 35.0

    def test_a_spinner_is_no_progress(self, follower: Follower, clock: ManualClock) -> None:
        """The repaint of a waiting job is not progress, but says what is waited for."""
        follower.feed(IN_INITRD)
        for second in range(1, 60):
            text = f"\r\x1b[K[***   ] A start job is running for /dev/disk/by-label/x ({second}s / 1min 30s)\r"
            clock.at(second, partial(follower.feed, text.encode()))
        verdict = failed(follower)
        assert clock.now - 1000 == 30.0
        assert "A start job is running for /dev/disk/by-label/x" in verdict.sentence
        assert sum("A start job" in line.text for line in follower.lines) == 1

    def test_the_same_line_again_is_no_progress(self, follower: Follower, clock: ManualClock) -> None:
        """A guest that repeats itself does not get on."""
        for second in range(0, 60, 2):
            clock.at(second, lambda: follower.feed(b"still waiting\nreally\n"))
        failed(follower)
        assert clock.now - 1000 == 20.0

    def test_complaints_for_ever_end(self, make: Make, clock: ManualClock) -> None:
        """A guest that always has something new to say is stuck as well in the end."""
        follower = make(budgets=Budgets(patience=3.0))
        for second in range(0, 100, 5):
            clock.at(second, partial(follower.feed, b"take %d\n" % second))
        assert "did not end in 60 s" in failed(follower).sentence

    def test_scale(self, make: Make, clock: ManualClock) -> None:
        """Without KVM budgets are four times as long."""
        failed(make(budgets=Budgets(scale=4.0)))
        assert clock.now - 1000 == 80.0

    def test_load_is_sampled_at_the_end(self, make: Make, clock: ManualClock) -> None:
        """A host that got loaded meanwhile gives more time, and is not asked before."""
        samples: list[float] = []

        def load() -> float:
            samples.append(clock.now - 1000)
            return 2.0

        failed(make(load=load))
        assert (samples, clock.now - 1000) == ([20.0, 40.0], 40.0)

    def test_what_failed_before_is_evidence(self, follower: Follower) -> None:
        """A hang after a failure shows the failure."""
        follower.feed(IN_INITRD + b"[DEPEND] Dependency failed for /sysroot/nix/store.\nlast\n")
        verdict = failed(follower)
        assert verdict.cause == Cause.NO_PROGRESS
        assert any("[DEPEND]" in item.text for item in verdict.evidence)

    def test_heartbeat(self, make: Make, clock: ManualClock) -> None:
        """Who waits is told every second where the boot is, its last line and how old that is."""
        beats: list[tuple[Stage, str, float]] = []
        follower = make(on_progress=lambda stage, line, age: beats.append((stage, line, age)))
        follower.feed(IN_INITRD)
        failed(follower)
        assert beats[0] == (Stage.INITRD, "Booting initrd of Debian...", 1.0)
        assert len(beats) == 30


class TestWaits:
    """Waiting for a line."""

    def test_a_line_that_comes(self, follower: Follower, clock: ManualClock) -> None:
        """A wait ends with the line, which knows its time and stage."""
        follower.feed(IN_INITRD)
        clock.at(3.0, lambda: follower.feed(b"x\nhello world\n"))
        line = follower.wait_line(r"hello \w+", timeout=10.0)
        assert (line.t, line.text, line.stage, line.source) == (3.0, "hello world", Stage.INITRD, "console")

    @pytest.mark.parametrize("early", [True, False])
    def test_a_prompt(self, follower: Follower, clock: ManualClock, early: bool) -> None:
        """A line without newline is found, whether it was there or comes."""
        clock.at(1.0, lambda: follower.feed(b"" if early else b"debian login: "))
        follower.feed(b"debian login: " if early else b"")
        assert follower.wait_line(re.compile("login: $"), timeout=5.0).text == "debian login: "

    def test_too_late(self, follower: Follower, clock: ManualClock) -> None:
        """A line that does not come is an error with the last line."""
        follower.feed(NIXOS_BOOT)
        with pytest.raises(
            GuestError, match=r"no line with 'never' came in 7 s; the last line, 7 s old, is .*Multi-User"
        ):
            follower.wait_line("never", timeout=7.0)
        assert clock.now - 1000 == 7.0

    def test_a_failure_ends_every_wait(self, follower: Follower, clock: ManualClock) -> None:
        """Nobody waits for a guest that is dead."""
        follower.feed(IN_INITRD)
        clock.at(2.0, lambda: follower.feed(PANIC))
        with pytest.raises(GuestError, match="the kernel panicked"):
            follower.wait_line("never", timeout=600.0)
        assert pytest.approx(3.0) == clock.now - 1000

    def test_threads(self, tmp_path: Path) -> None:
        """With the real clock and real threads a waiter is woken by what a reader pushes."""
        with Follower(tmp_path) as follower:
            verdicts: list[Verdict] = []
            waiters = [threading.Thread(target=lambda: verdicts.append(follower.wait_verdict())) for _ in range(3)]
            reader = threading.Thread(target=lambda: follower.feed(NIXOS_BOOT))
            for thread in (*waiters, reader):
                thread.start()
            for thread in (*waiters, reader):
                thread.join(timeout=20.0)
        assert [verdict.ready for verdict in verdicts] == [True] * 3


class TestLogs:
    """What is left on disk."""

    def test_raw_bytes_and_lines(self, follower: Follower, tmp_path: Path) -> None:
        """The files of a run have the bytes as they came and the lines with stage and source."""
        follower.feed(GOOD_BOOT)
        results = tmp_path / "results"
        assert (results / "console.log").read_bytes() == GOOD_BOOT
        lines = [json.loads(line) for line in (results / "console.jsonl").read_text().splitlines()]
        assert [line["source"] for line in lines[:2]] == ["event", "console"]
        assert lines[-1]["stage"] == "userspace"

    def test_the_timeline_is_written_with_the_verdict(self, follower: Follower, tmp_path: Path) -> None:
        """timeline.json is there as soon as the verdict is."""
        follower.feed(GOOD_BOOT)
        timeline = json.loads((tmp_path / "results" / "timeline.json").read_text())
        assert [str(stage) for stage in Stage] == list(timeline["seconds"])

    def test_the_last_words_count(self, make: Make) -> None:
        """A line that the guest could not end is a line when the follower closes."""
        follower = make()
        follower.feed(b"last words")
        follower.close()
        assert follower.lines[-1].text == "last words"

    def test_a_second_process_continues(self, make: Make) -> None:
        """Another follower of the same machine knows that its boot is the second."""
        make().close()
        assert make().boot == 2

    def test_a_full_disk(self, make: Make, tmp_path: Path) -> None:
        """A full disk is noted once and the boot is followed all the same."""
        (tmp_path / "results").mkdir()
        (tmp_path / "results" / "console.log").symlink_to("/dev/full")
        follower = make()
        drip(follower, ManualClock(), GOOD_BOOT)
        assert follower.verdict is not None
        assert follower.verdict.ready
        assert [event.name for event in follower.events] == ["LOG_CUT"]

    def test_a_flood_is_followed(self, follower: Follower) -> None:
        """Megabytes of noise in one read neither hide the boot nor stay in memory."""
        follower.feed(b"EFI stub: x\n" + b"x" * (10 << 20) + b"\n" + GOOD_BOOT.partition(b"device path\r\n")[2])
        assert follower.verdict is not None
        assert follower.verdict.ready
        assert len(follower.lines) <= 500
