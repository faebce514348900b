"""Consoles whose lines come at their times, and byte by byte: what a boot survives is no failure meanwhile."""

import json
import re
from collections.abc import Callable

import pytest

from tests.boot.test_written import COLLECTED
from vmtests.boot.follow import Follower
from vmtests.boot.replay import explain
from vmtests.boot.verdict import Cause, Verdict
from vmtests.machine.events import RESET, MachineEvent
from vmtests.resources import fixture
from vmtests.testing.clock import ManualClock

WRITTEN = fixture("consoles/written")
EXPECTED = json.loads((WRITTEN / "expected.json").read_text())
READY = sorted(name for name in EXPECTED.keys() - COLLECTED if EXPECTED[name]["verdict"] == "ready")
_STAMP = re.compile(rb"\[ *(\d{1,5}\.\d{6})\] ")

GRUB = "GRUB loading..\nWelcome to GRUB!\n"
KERNEL = "[    0.000000] Linux version 6.6.8 (me@host) (gcc (Debian 13.2.0) 13.2.0) #1 SMP\n"
INITRD = "[    1.500000] Run /init as init process\nBegin: Running /scripts/init-premount ... done.\n"
SYSTEM = "[    2.000000] systemd[1]: systemd 254 running in system mode (+PAM)\n\nWelcome to Ubuntu 24.04 LTS!\n\n"
UP = "[  OK  ] Reached target Multi-User System.\n\nUbuntu 24.04 LTS host ttyS0\n\nhost login: "
PROMPT = "[  OK  ] Reached target Login Prompts.\n\nDebian GNU/Linux 12 host ttyS0\n\nhost login: "
OWN_INIT = KERNEL + "[    1.012345] Run /sbin/init as init process\n"
HANGS = "         Starting Wait for Network to be Configured...\n"
MOUNTED = "[  OK  ] Reached target Local File Systems.\n"
OOPS = (
    "[    3.100000] BUG: kernel NULL pointer dereference, address: 0000000000000018\n"
    "[    3.100200] Oops: 0000 [#1] PREEMPT SMP NOPTI\n"
)
Parts = list[tuple[float, str]]


def follow(make: Callable[..., Follower], clock: ManualClock, parts: Parts) -> Verdict:
    """Feed texts at their times, in seconds since power-on."""
    follower = make()
    for at, text in parts:
        clock.at(at, lambda text=text: follower.feed(text.replace("\n", "\r\n").encode()))  # type: ignore[misc]
    return follower.wait_verdict()


@pytest.mark.parametrize(
    "error",
    [
        "error: sparse file not allowed.",
        "error: diskfilter writes are not supported.",
        "error: can't find command `hwmatch'.",
        "error: invalid environment block.",
        "error: no suitable video mode found.",
    ],
)
def test_what_grub_waits_for_ten_seconds_after_is_booted(
    make: Callable[..., Follower], clock: ManualClock, error: str
) -> None:
    """It waits behind every error, and then starts what it has loaded; healthy systems show these."""
    entry = f"  Booting `Ubuntu'\n\n{error}\n\nPress any key to continue..."
    boot: Parts = [(1, GRUB), (2, entry), (12.1, "\n" + KERNEL), (14, INITRD), (15, SYSTEM + UP)]
    assert follow(make, clock, boot).ready


def test_what_grub_cannot_load_is_told_at_once(make: Callable[..., Follower], clock: ManualClock) -> None:
    """Where an error before says why, nobody waits for what it will try next."""
    entry = (
        "error: file `/vmlinuz' not found.\nerror: you need to load the kernel first.\n\nPress any key to continue..."
    )
    verdict = follow(make, clock, [(1, GRUB), (2, entry)])
    assert (Cause.BOOTLOADER_ERROR, True) == (verdict.cause, verdict.evidence_to_verdict_s <= 2)


def test_grub_that_says_nothing_of_why_is_told_when_it_had_its_time(
    make: Callable[..., Follower], clock: ManualClock
) -> None:
    """What it waits for comes, or not."""
    verdict = follow(make, clock, [(1, GRUB), (2, "Press any key to continue...")])
    assert (Cause.BOOTLOADER_ERROR, True) == (verdict.cause, 10 < verdict.evidence_to_verdict_s < 13)


def test_oops_that_the_system_goes_on_after_is_no_failure(make: Callable[..., Follower], clock: ManualClock) -> None:
    """It was one process'; what hangs for want of it is told with it."""
    goes_on: Parts = [(3, SYSTEM + OOPS), (4, "[  OK  ] Started Journal Service.\n"), (7, HANGS)]
    assert follow(make, clock, [(1, GRUB + KERNEL), (2, INITRD), *goes_on, (9, UP)]).ready


def test_oops_behind_which_nothing_goes_on_is_one(make: Callable[..., Follower], clock: ManualClock) -> None:
    """At once where nothing is heard any more, and later where the boot comes to a stand."""
    begin: Parts = [(1, GRUB + KERNEL), (2, INITRD)]
    assert follow(make, clock, [*begin, (3, SYSTEM + OOPS)]).cause is Cause.KERNEL_OOPS


def test_stand_still_after_an_oops_is_told_with_it(make: Callable[..., Follower], clock: ManualClock) -> None:
    """What was survived is why, where nothing else is known."""
    stands: Parts = [(3, SYSTEM + OOPS), (4, "[  OK  ] Started Journal Service.\n"), (7, HANGS)]
    verdict = follow(make, clock, [(1, GRUB + KERNEL), (2, INITRD), *stands])
    assert not verdict.ready
    assert any("NULL pointer" in item.text for item in verdict.evidence)


@pytest.mark.parametrize(
    "optional",
    [
        "[FAILED] Failed to mount /data.\nSee 'systemctl status data.mount' for details.\n" + MOUNTED,
        "[ TIME ] Timed out waiting for device /dev/disk/by-uuid/1234.\n[DEPEND] Dependency failed for Swap.\n"
        + MOUNTED,
        "[FAILED] Failed to start File System Check on /dev/disk/by-uuid/AB-CD.\n" + MOUNTED,
        MOUNTED + "[FAILED] Failed to mount /srv/nfs.\n",
    ],
    ids=["nofail", "swap", "fsck", "nfs"],
)
def test_what_may_be_missing_does_not_keep_a_login_prompt_from_being_ready(
    make: Callable[..., Follower], clock: ManualClock, optional: str
) -> None:
    """A system that reached local-fs.target has all that it needs; its getty may come before multi-user.target."""
    text = GRUB + KERNEL + INITRD + SYSTEM + optional + PROMPT
    assert explain([text.replace("\n", "\r\n").encode()]).verdict.ready
    assert follow(make, clock, [(1, GRUB + KERNEL + INITRD), (3, SYSTEM + optional + PROMPT)]).ready


@pytest.mark.parametrize(
    "needed",
    [
        "[FAILED] Failed to mount /data.\n[DEPEND] Dependency failed for Local File Systems.\n",
        MOUNTED + "[FAILED] Failed to mount /tmp.\n[DEPEND] Dependency failed for D-Bus System Message Bus.\n",
    ],
    ids=["local-fs.target", "dbus.service"],
)
def test_what_the_system_needs_does(needed: str) -> None:
    """Without local-fs.target, or the bus, a prompt is a prompt, and no system."""
    assert not explain([(GRUB + KERNEL + INITRD + SYSTEM + needed + PROMPT).encode()]).verdict.ready


@pytest.mark.parametrize(
    "parts",
    [
        [(1, OWN_INIT + "#\n# Appliance 4.2\n#\nwaiting for /dev/vdb ...\n")],
        [(1, OWN_INIT + "mounting\n#"), (1.01, "#######\n# Appliance\n"), (1.1, "waiting for /dev/vdb ...\n")],
        [(1, GRUB + KERNEL + INITRD + SYSTEM), (3, "#"), (3.01, "#########\n"), (3.2, HANGS)],
        [(1, GRUB + KERNEL + INITRD + SYSTEM + HANGS), (3, "#")],
        [(1, OWN_INIT + "$\n$\nwaiting\n")],
    ],
    ids=["lines", "torn", "torn in systemd", "jobs run", "dollars"],
)
def test_number_sign_is_no_prompt(make: Callable[..., Follower], clock: ManualClock, parts: Parts) -> None:
    """Banners, comments and bars of progress have them; a prompt stays alone at the end of its line."""
    assert not follow(make, clock, parts).ready
    assert not explain([text.replace("\n", "\r\n").encode() for _, text in parts]).verdict.ready


def test_number_sign_that_stays_is_a_prompt(make: Callable[..., Follower], clock: ManualClock) -> None:
    """Of a shell that is all there is."""
    assert follow(make, clock, [(1, OWN_INIT + "Boot took 1.10 seconds\n\n# ")]).ready


BANNER = "BusyBox v1.36.1 (Debian 1:1.36.1-9) built-in shell (ash)\nEnter 'help' for a list of built-in commands.\n\n"


def test_busybox_may_be_all_there_is() -> None:
    """Its shell greets in the same words where a script of an initrd has given up."""
    alone = f"{KERNEL}[    1.012345] Run /init as init process\n\nBoot took 1.10 seconds\n\n{BANNER}/ # "
    assert explain([alone.encode()]).verdict.ready
    gave_up = f"{KERNEL}{INITRD}ALERT!  /dev/sda9 does not exist.  Dropping to a shell!\n\n\n{BANNER}(initramfs) "
    assert not explain([gave_up.encode()]).verdict.ready


ALPINE = f"{KERNEL}[    1.012345] Run /init as init process\nAlpine Init 3.8.1-r1\n * Loading boot drivers: ok.\n"
LAUNCHED = "initramfs emergency recovery shell launched. Type 'exit' to continue boot\nsh: can't access tty\n~ # "


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (" * Mounting root: mount: mounting UUID=abc on /sysroot failed: No such file or directory\nfailed. \n",
         Cause.MOUNT_FAILED),
        (" * Mounting boot media failed. \n", Cause.DEVICE_TIMEOUT),
        (" * Mounting root failed. \n", Cause.MOUNT_FAILED),
        ("[    3.210000] Mounting root: failed. \n", Cause.MOUNT_FAILED),
    ],
)  # fmt: skip
def test_alpine_says_why_in_more_than_one_way(said: str, cause: Cause) -> None:
    """With `quiet` there is no colon, mount(8) speaks on the same line, and all of it may go through the kernel."""
    verdict = explain([(ALPINE + said + LAUNCHED).encode()]).verdict
    assert (False, cause) == (verdict.ready, verdict.cause)


@pytest.mark.parametrize("name", READY)
def test_a_written_boot_is_ready_when_its_lines_have_their_times(
    make: Callable[..., Follower], clock: ManualClock, name: str
) -> None:
    """A grace that ends before the guest goes on is seen only so."""
    parts: Parts = []
    now = 0.0
    for line in (WRITTEN / f"{name}.log").read_bytes().splitlines(keepends=True):
        match = _STAMP.search(line)
        now = max(now + 0.01, float(match[1])) if match and float(match[1]) < now + 30 else now + 0.01
        parts.append((now, line.decode("utf-8", "surrogateescape")))
    follower = make()
    for at, text in parts:
        data = text.encode("utf-8", "surrogateescape")
        clock.at(at, lambda data=data: follower.feed(data))  # type: ignore[misc]
    assert follower.wait_verdict().ready


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_written_console_is_the_same_byte_by_byte(name: str) -> None:
    """Wherever a read ends."""
    data = (WRITTEN / f"{name}.log").read_bytes()[-6000:]
    whole, torn = explain([data]), explain([bytes([byte]) for byte in data])
    assert (whole.verdict.word, whole.verdict.cause) == (torn.verdict.word, torn.verdict.cause)


def test_restarts_that_were_planned_are_no_loop(make: Callable[..., Follower], clock: ManualClock) -> None:
    """Shim's fallback restarts once, and then SELinux's relabelling does."""
    follower = make()
    firmware = 'BdsDxe: starting Boot0001 "Fedora" from PciRoot(0x0)\r\n'
    relabel = "*** Warning -- SELinux targeted policy relabel is required.\r\n"
    booted = firmware + KERNEL.replace("\n", "\r\n") + SYSTEM.replace("\n", "\r\n")
    for said in (f"{firmware}Reset System\r\n", booted + relabel + "[   20.000000] reboot: Restarting system\r\n"):
        follower.feed(said.encode())
        follower.event(MachineEvent(name=RESET, detail={}, t=clock.monotonic()))
        clock.advance(1)
    follower.feed((booted + UP.replace("\n", "\r\n")).encode())
    assert follower.wait_verdict().ready
