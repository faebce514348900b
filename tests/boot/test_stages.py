"""Stages by console lines."""

import pytest

from vmtests.boot.course import Course, restarted
from vmtests.boot.stages import (
    MATCH_LIMIT,
    SHUTDOWN,
    Stage,
    between,
    normalise,
    torn,
)

ORDER = ["firmware", "bootloader", "kernel", "initrd", "switch-root", "userspace", "ready"]


class TestStage:
    """The names and their order."""

    def test_order(self) -> None:
        """The seven stages have the names and the order of the design."""
        assert [str(stage) for stage in Stage] == ORDER
        assert all(a.before(b) for a, b in zip(list(Stage), list(Stage)[1:], strict=False))

    def test_between_includes_both_ends(self) -> None:
        """A range of stages has its first and its last."""
        assert {Stage.KERNEL, Stage.INITRD, Stage.SWITCH_ROOT} == between(Stage.KERNEL, Stage.SWITCH_ROOT)


class TestNormalise:
    """What decoration is."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("[  OK  ] Mounted /sysroot.", "[OK] Mounted /sysroot."),
            ("[ TIME ] Timed out waiting for device x.", "[TIME] Timed out waiting for device x."),
            ("[FAILED] Failed to mount x.", "[FAILED] Failed to mount x."),
            ("         Starting x...", "Starting x..."),
            ("[   12.345678] systemd[1]: Switching root.", "Switching root."),
            ("[    0.000000][    T0] Linux version 6.12", "Linux version 6.12"),
            ("systemd[1]: Reached target x.", "[OK] Reached target x."),
            ("[    9.000000] systemd[1]: Failed to mount /home.", "[FAILED] Failed to mount /home."),
            ("dracut-initqueue[273]: Warning: x", "dracut Warning: x"),
            ("udevadm[273]: Warning: x", "Warning: x"),
            ("[[32m  OK  [0m] Mounted /sysroot.", "[OK] Mounted /sysroot."),
            ("         x Starting", "         x Starting"),
            ("[12:30] chat", "[12:30] chat"),
        ],
    )
    def test_decoration_goes(self, text: str, expected: str) -> None:
        """Time stamp, status field and indentation are decoration; anything else is text."""
        assert expected == normalise(text).text

    def test_stamp(self) -> None:
        """The kernel's time stamp is kept as a number."""
        assert normalise("[   12.345678] x").stamp == 12.345678

    @pytest.mark.parametrize(
        "text",
        [
            "[***   ] A start job is running for /dev/disk/by-partlabel/nix-store (8s / 1min 30s)",
            "[ ***  ] (1 of 2) Job dev-sda1.device/start running (5s / 1min 30s)",
            "[     *] A start job is running for\u2026b2d6 (13s / 1min 30s)",
        ],
    )
    def test_spinner(self, text: str) -> None:
        """The repaints of a running job are known as such."""
        assert normalise(text).spinner

    def test_length_is_bounded(self) -> None:
        """A hostile line costs no more than a long one."""
        assert len(normalise("x" * 8192).text) == MATCH_LIMIT


def entered(current: Stage, text: str) -> Stage | None:
    """Return the stage that a line begins."""
    return Course().take(current, normalise(text)).stage


class TestAdvance:
    """Where stages begin."""

    @pytest.mark.parametrize(
        ("current", "text", "stage"),
        [
            (
                "firmware",
                'BdsDxe: starting Boot0001 "UEFI QEMU QEMU HARDDISK " from PciRoot(0x0)',
                "bootloader",
            ),
            ("firmware", "Welcome to GRUB!", "bootloader"),
            ("bootloader", "EFI stub: Loaded initrd from LINUX_EFI_INITRD_MEDIA_GUID device path", "kernel"),
            ("bootloader", "[    0.000000] Linux version 6.12.41 (debian-kernel)", "kernel"),
            ("kernel", "[    1.234567] Run /init as init process", "initrd"),
            ("kernel", "Booting initrd of Debian GNU/Linux 13 (trixie)...", "initrd"),
            ("kernel", "Welcome to NixOS 25.05 (Warbler) (Initrd)!", "initrd"),
            ("kernel", "Welcome to Debian GNU/Linux 12 (bookworm)!", "userspace"),
            ("kernel", "Welcome to CentOS Linux 7 (Core) dracut-033-463.el7 (Initramfs)!", "initrd"),
            ("kernel", "[    1.083918] Run /sbin/init as init process", "userspace"),
            ("kernel", "INIT: version 2.88 booting", "userspace"),
            ("firmware", "[    1.500000] virtio_blk virtio0: 1/0/0 queues", "kernel"),
            ("firmware", "         Mounting /sysroot...", "initrd"),
            ("initrd", "[  OK  ] Reached target Switch Root.", "switch-root"),
            ("initrd", "[  OK  ] Reached target initrd-switch-root.target - Switch Root.", "switch-root"),
            ("initrd", "[  OK  ] Reached target initrd-switch-root.target.", "switch-root"),
            ("initrd", "         Starting Switch Root...", "switch-root"),
            ("initrd", "         Starting initrd-switch-root.service - Switch Root...", "switch-root"),
            ("switch-root", "Welcome to NixOS 25.05 (Warbler)!", "userspace"),
            ("initrd", "Welcome to NixOS 25.05 (Warbler)!", "userspace"),
            ("switch-root", "[    9.1] x systemd[1]: systemd 257 running in system mode", None),
            (
                "switch-root",
                "[    9.100000] systemd[1]: systemd 257.7-1 running in system mode (+PAM)",
                "userspace",
            ),
            ("switch-root", "<<< NixOS Stage 2 >>>", "userspace"),
            # the initrd's own lines
            ("kernel", "[    2.100000] systemd[1]: systemd 257.7-1 running in system mode (+PAM)", None),
            ("initrd", "Welcome to NixOS 25.05 (Warbler) (Initrd)!", None),
            # no boot loader
            ("firmware", 'BdsDxe: starting Boot0000 "BootManagerMenuApp" from Fv(7CB8BDC9)', None),
            ("firmware", 'BdsDxe: starting Boot0002 "EFI Internal Shell" from Fv(7CB8BDC9)', None),
            # never back
            ("userspace", "EFI stub: Loaded initrd", None),
            ("switch-root", "[  OK  ] Reached target Switch Root.", None),
        ],
    )
    def test_markers(self, current: str, text: str, stage: str | None) -> None:
        """Each stage begins with the lines that begin it, seen from where the boot is."""
        assert (None if stage is None else Stage(stage)) == entered(Stage(current), text)

    @pytest.mark.parametrize(
        "text",
        [
            'grep "EFI stub: Loaded initrd" log',
            "echo Linux version 6.12",
            "kernel: Linux version 6.12.41",
            '"Booting initrd of Debian..."',
            "We say: Welcome to Debian!",
            "# [  OK  ] Reached target Switch Root.",
            "Reached target Switch Root. Or so they say",
            'say BdsDxe: starting Boot0001 "x" from y',
        ],
    )
    def test_a_quoted_marker_does_not_count(self, text: str) -> None:
        """A line that has a marker in it, but not where the real line has it, begins nothing."""
        assert all(entered(stage, text) is None for stage in Stage)


class TestOtherLines:
    """Lines that begin no stage but mean something."""

    @pytest.mark.parametrize(
        "text",
        [
            "[  OK  ] Reached target Multi-User System.",
            "[  OK  ] Reached target multi-user.target - Multi-User System.",
            "[  OK  ] Reached target multi-user.target.",
            "[   21.000000] systemd[1]: Reached target multi-user.target - Multi-User System.",
        ],
    )
    def test_ready_target(self, text: str) -> None:
        """multi-user.target is known in every spelling."""
        assert Course().take(Stage.USERSPACE, normalise(text)).ready

    def test_a_firmware_line_in_userspace_is_another_boot(self) -> None:
        """Firmware that speaks after the kernel did means a restart."""
        line = normalise('BdsDxe: loading Boot0001 "UEFI" from PciRoot')
        assert [restarted(stage, line) for stage in (Stage.FIRMWARE, Stage.BOOTLOADER, Stage.KERNEL, Stage.READY)] == [
            False,
            False,
            True,
            True,
        ]

    def test_proc_version_is_no_restart(self) -> None:
        """The kernel's banner means a restart only with the time stamp of a start."""
        assert restarted(Stage.USERSPACE, normalise("[    0.000000] Linux version 6.12"))
        assert not restarted(Stage.USERSPACE, normalise("Linux version 6.12"))

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("[  OK  ] Reached target reboot.target - System Reboot.", True),
            ("[  OK  ] Stopped target multi-user.target - Multi-User System.", True),
            ("systemd-shutdown[1]: Syncing filesystems and block devices.", True),
            ("[  OK  ] Stopped target initrd.target - Initrd Default Target.", False),
        ],
    )
    def test_shutdown(self, text: str, expected: bool) -> None:
        """Going down is known, and the end of the initrd is not going down."""
        assert expected is bool(SHUTDOWN.match(normalise(text).text))


@pytest.mark.parametrize(
    ("text", "matched"),
    [
        ("-bash-5.2# [  184.129575] Kernel panic - not syncing: x", "Kernel panic - not syncing: x"),
        ("vm-1 login: [    9.000000] Kernel panic - not syncing: x", "Kernel panic - not syncing: x"),
        ("# echo [    9.000000] Kernel panic", "# echo [    9.000000] Kernel panic"),
        ("Nov 23 kernel: [    9.000000] Kernel panic", "Nov 23 kernel: [    9.000000] Kernel panic"),
    ],
)
def test_kernel_behind_a_prompt(text: str, matched: str) -> None:
    """A prompt that waits does not hide the kernel's words; a line that quotes them stays a quotation."""
    assert normalise(torn(text)[-1]).text == matched


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Begin: Mounting root ... mount: x failed", ["Begin: Mounting root ... ", "mount: x failed"]),
        ("Begin: A ... Begin: B ...   Volume x", ["Begin: A ... ", "Begin: B ...   ", "Volume x"]),
        ("Begin: Loading essential drivers ... done.", ["Begin: Loading essential drivers ... done."]),
        ("Begin: Loading essential drivers ... ", ["Begin: Loading essential drivers ... "]),
        ("(initramfs) Unable to find a medium", ["Unable to find a medium"]),
        ("(initramfs) cat /proc/cmdline", ["(initramfs) cat /proc/cmdline"]),
    ],
)
def test_what_speaks_behind_a_line_that_was_begun(text: str, parts: list[str]) -> None:
    """initramfs-tools ends no line when it begins something, and what fails then has its own."""
    assert parts == torn(text)
