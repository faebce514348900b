"""What a boot's console says of its failure."""

from pathlib import Path

import pytest

from vmtests.boot.follow import Follower
from vmtests.boot.stages import Stage
from vmtests.boot.verdict import Cause
from vmtests.errors import Owner
from vmtests.machine.events import MachineEvent
from vmtests.testing import ManualClock

from .consoles import GOOD_BOOT, IN_INITRD, NIXOS_BOOT, PANIC, STORE_MISSING, failed


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

    def test_what_another_sentence_begins_with_is_said_once(self, follower: Follower) -> None:
        """That a mount failed adds nothing to that it failed and why."""
        follower.feed(IN_INITRD)
        follower.feed(
            b"[    5.637430] mount[221]: mount: /sysroot/nix/store: unknown filesystem type 'overlay'.\n"
            b"[FAILED] Failed to mount /sysroot/nix/store.\n[  OK  ] Started Emergency Shell.\n"
        )
        sentence = failed(follower).sentence
        assert sentence.startswith("/sysroot/nix/store could not be mounted: the kernel knows no overlay")
        assert sentence.count("could not be mounted") == 1

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

    @pytest.mark.parametrize("said", [b"init[1]: segfault at 0 ip 7f0", b"traps: init[1] trap invalid opcode ip:7f0"])
    def test_an_init_that_crashes(self, follower: Follower, said: bytes) -> None:
        """What the kernel says of the first process is why there is none any more."""
        follower.feed(b"[    2.150000] " + said + b" sp 7ff error 0 in libc.so.6[7f0]\r\n")
        follower.feed(b"[    2.200000] Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b\r\n")
        assert failed(follower).cause is Cause.PROGRAM_DAMAGED

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

    def test_a_boot_loader_has_no_pid(self, follower: Follower) -> None:
        """What a quiet boot's manager cannot execute is not what the boot loader cannot."""
        follower.feed(
            b"Boot in 3 s.\r\n[    1.350732] systemd[285]: Failed to execute /usr/lib/x: Permission denied\r\n"
        )
        follower.feed(b"[FAILED] Failed to start Switch Root.\r\n[  OK  ] Started Emergency Shell.\r\n")
        assert failed(follower).cause is Cause.SWITCH_ROOT_FAILED

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
