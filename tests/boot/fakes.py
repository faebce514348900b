"""Time that goes only when somebody waits, consoles as text, and how they are fed to a follower."""

import heapq
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from vmtests.boot import Follower, Verdict

EPOCH = datetime(2025, 1, 1, tzinfo=UTC)

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


class ManualClock:
    """A clock that stands still but for `advance` and waits, which make the calls put `at` a time."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.waits: list[float | None] = []
        self._start = now
        self._calls: list[tuple[float, int, Callable[[], None]]] = []

    def monotonic(self) -> float:
        """Return the time."""
        return self.now

    def wall(self) -> datetime:
        """Return the time as a date."""
        return EPOCH + timedelta(seconds=self.now - self._start)

    def wait(self, condition: threading.Condition, timeout: float | None) -> None:
        """Go to the next call or to the end of `timeout`, whichever is sooner."""
        self.waits.append(timeout)
        end = float("inf") if timeout is None else self.now + timeout
        if self._calls and self._calls[0][0] <= end:
            self.now, _, call = heapq.heappop(self._calls)
            call()
        else:
            assert timeout is not None, "this wait would never end"
            self.now = end

    def at(self, seconds: float, call: Callable[[], None]) -> None:
        """Make `call` when the clock has gone on by `seconds` from its start."""
        heapq.heappush(self._calls, (self._start + seconds, len(self._calls), call))

    def advance(self, seconds: float) -> None:
        """Go on by `seconds`."""
        self.now += seconds


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
