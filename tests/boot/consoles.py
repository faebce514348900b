"""Consoles as text, and how they are fed to a follower."""

from vmtests.boot.follow import Follower
from vmtests.boot.verdict import Verdict
from vmtests.testing import ManualClock

GOOD_BOOT = b"""\
\x1b[2J\x1b[01;01H\x1b[=3hBdsDxe: loading Boot0001 "UEFI QEMU QEMU HARDDISK " from PciRoot(0x0)\r
BdsDxe: starting Boot0001 "UEFI QEMU QEMU HARDDISK " from PciRoot(0x0)\r
EFI stub: Loaded initrd from LINUX_EFI_INITRD_MEDIA_GUID device path\r
\x1b[!p\x1b]104\x07\x1b[?7h\r
Booting initrd of \x1b[1mDebian GNU/Linux 13 (trixie)\x1b[0m...\r
\r
[\x1b[0;32m  OK  \x1b[0m] Found device \x1b[0;1;39mdev-disk-by\\x2d\xe2\x80\xa6device\x1b[0m - nix-store.\r
         Mounting \x1b[0;1;39msysroot.mount\x1b[0m - /sysroot...\r
[\x1b[0;32m  OK  \x1b[0m] Mounted \x1b[0;1;39msysroot.mount\x1b[0m - /sysroot.\r
         Starting \x1b[0;1;39minitrd-find-nixos-closure.service\x1b[0m - Find NixOS closure...\r
[\x1b[0;32m  OK  \x1b[0m] Finished \x1b[0;1;39minitrd-find-n\xe2\x80\xa6ervice\x1b[0m - Find NixOS closure.\r
[\x1b[0;32m  OK  \x1b[0m] Reached target \x1b[0;1;39minitrd-switch-root.target\x1b[0m - Switch Root.\r
         Starting \x1b[0;1;39minitrd-switch-root.service\x1b[0m - Switch Root...\r
\r
Welcome to \x1b[1mDebian GNU/Linux 13 (trixie)\x1b[0m!\r
\r
         Starting \x1b[0;1;39mssh.service\x1b[0m - OpenBSD Secure Shell server...\r
[\x1b[0;32m  OK  \x1b[0m] Started \x1b[0;1;39mssh.service\x1b[0m - OpenBSD Secure Shell server.\r
[\x1b[0;32m  OK  \x1b[0m] Reached target \x1b[0;1;39mmulti-user.target\x1b[0m - Multi-User System.\r
"""
"""A boot of the stand-in image as its console was, shortened (Debian's spelling)."""

NIXOS_BOOT = b"""\
BdsDxe: starting Boot0001 "UEFI QEMU QEMU HARDDISK " from PciRoot(0x0)
EFI stub: Loaded initrd from LINUX_EFI_INITRD_MEDIA_GUID device path
Welcome to NixOS 25.05 (Warbler) (Initrd)!
Mounting /sysroot/nix/store...
[  OK  ] Mounted /sysroot/nix/store.
[  OK  ] Reached target Switch Root.
         Starting NixOS Activation...
[  OK  ] Finished NixOS Activation.
         Starting Switch Root...
Welcome to NixOS 25.05 (Warbler)!
[  OK  ] Reached target Local File Systems.
[  OK  ] Reached target Multi-User System.
"""
"""The same in the spelling of NixOS: descriptions only."""

IN_INITRD = b"EFI stub: Loaded initrd from command line option\nBooting initrd of Debian...\n"

STORE_MISSING = b"""\
[ TIME ] Timed out waiting for device /dev/disk/by-partlabel/nix-store.
[DEPEND] Dependency failed for /sysroot/nix/.ro-store.
[DEPEND] Dependency failed for /sysroot/nix/store.
[DEPEND] Dependency failed for Find NixOS closure.
[DEPEND] Dependency failed for Initrd File Systems.
[  OK  ] Started Emergency Shell.
[  OK  ] Reached target Emergency Mode.
You are in emergency mode. After logging in, type "journalctl -xb" to view
"""
"""What an initrd prints whose store partition has another label."""

PANIC = b"""\
[   12.000001] sysrq: Trigger a crash
[   12.000002] Kernel panic - not syncing: Fatal exception in interrupt
[   12.000003] Kernel Offset: disabled
[   12.000004] ---[ end Kernel panic - not syncing: Fatal exception in interrupt ]---
"""


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
