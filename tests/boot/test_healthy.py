"""What healthy machines say and do that looks like a failure: it is none, and no failure's cause."""

from collections.abc import Callable

import pytest

from tests.boot.test_timed import GRUB, INITRD, KERNEL, OOPS, SYSTEM, UP, Parts, follow
from vmtests.boot.follow import Follower
from vmtests.boot.replay import Explanation, explain
from vmtests.boot.stages import Stage
from vmtests.boot.verdict import Cause
from vmtests.machine.events import RESET, MachineEvent
from vmtests.testing import ManualClock

Make = Callable[..., Follower]

BEGIN = GRUB + KERNEL + INITRD + SYSTEM
GONE = "[ TIME ] Timed out waiting for device {device}.\n[DEPEND] Dependency failed for Local File Systems.\n"
EMERGENCY = 'You are in emergency mode. After logging in, type "journalctl -xb" to view\n'
BANNER = "U-Boot 2023.01 (Jan 10 2023 - 12:00:00 +0000)\n"


def told(*texts: str) -> Explanation:
    """Explain a console."""
    return explain([text.replace("\n", "\r\n").encode() for text in texts])


def spinner(job: str, begin: int, end: int, limit: str) -> Parts:
    """Return the repaints of a job that runs since `begin`, up to `end`."""
    return [
        (begin + second, f"\r\x1b[K[ ***  ] A start job is running for {job} ({second}s / {limit})\r")
        for second in range(5, end - begin, 5)
    ]


class TestWaits:
    """Waits that end by themselves."""

    @pytest.mark.parametrize(
        ("job", "limit", "end"),
        [
            ("/dev/disk/by-uuid/3b9f", "1min 30s", "[ TIME ] Timed out waiting for device /dev/disk/by-uuid/3b9f.\n"),
            ("Raise network interfaces", "5min", "[FAILED] Failed to start Raise network interfaces.\n"),
            ("Wait for Network to be Configured", "no limit", "[FAILED] Failed to start Wait for Network.\n"),
            ("snapd.seeded.service - Wait until snapd is fully seeded", "no limit", "[  OK  ] Finished snapd.\n"),
            ("Cloud-init: Network Stage", "no limit", "[  OK  ] Finished Cloud-init: Network Stage.\n"),
        ],
    )
    def test_what_ends_by_itself_is_waited_for(
        self, make: Make, clock: ManualClock, job: str, limit: str, end: str
    ) -> None:
        """The system says how long it will wait, and goes on behind that."""
        last = {"1min 30s": 93, "5min": 305, "no limit": 140}[limit]
        waits = spinner(job, 3, last, limit)
        assert follow(
            make, clock, [(1, GRUB + KERNEL + INITRD), (3, SYSTEM), *waits, (last, end), (last + 1, UP)]
        ).ready

    def test_what_may_run_for_ever_has_the_usual_time(self, make: Make, clock: ManualClock) -> None:
        """A program that hangs is told after the budget."""
        waits = spinner("My Own Service", 3, 200, "no limit")
        verdict = follow(make, clock, [(3, BEGIN), *waits])
        assert (Cause.NO_PROGRESS, 48) == (verdict.cause, clock.now - 1000)

    def test_a_limit_of_years_is_no_patience(self, make: Make, clock: ManualClock) -> None:
        """Whatever a guest says of its limits, a stage ends."""
        follow(make, clock, [(3, BEGIN), (5, "\r\x1b[K[ ***  ] A start job is running for X (2s / 999999d)\r")])
        assert clock.now - 1000 < 600

    @pytest.mark.parametrize(
        "job",
        [
            "A start job is running for /dev/disk/by-uuid/3b9f",
            "A start job is running for dev-disk-by\\x2duuid-3b9f.device - /dev/disk/by-uuid/3b9f",
            "Job dev-disk-by\\x2duuid-3b9f.device/start running",
            "A start job is running for dracut initqueue hook",
        ],
    )
    def test_device_that_an_initrd_waits_for_is_named(self, make: Make, clock: ManualClock, job: str) -> None:
        """What was waited for is why the boot stands, whatever else was, too."""
        initrd = KERNEL + "[    1.500000] systemd[1]: Running in initrd.\n\nWelcome to Fedora (Initramfs)!\n\n"
        other = "A start job is running for Hold Until Boot Process Finishes Up"
        waits: Parts = [
            (
                3 + second,
                f"\r\x1b[K[ ***  ] ({1 + second % 2} of 2) {other if second % 2 else job} ({second}s / no limit)\r",
            )
            for second in range(1, 40)
        ]
        verdict = follow(make, clock, [(1, GRUB), (3, initrd), *waits])
        assert (Cause.DEVICE_TIMEOUT, Stage.INITRD) == (verdict.cause, verdict.stage)
        assert "initqueue" in job or "/dev/disk/by-uuid/3b9f" in verdict.sentence

    def test_kernel_behind_a_login_prompt_does_not_break_its_silence(self, make: Make, clock: ManualClock) -> None:
        """Drivers have something to say at any time."""
        prompt = BEGIN + "[  OK  ] Started Getty on tty1.\n\nUbuntu 24.04 LTS host ttyS0\n\nhost login: "
        chatter: Parts = [(second, f"[{second:5d}.000000] eth{second}: link up\n") for second in range(5, 100, 5)]
        assert follow(make, clock, [(3, prompt), *chatter]).ready
        assert clock.now - 1000 < 30


class TestQuiet:
    """Boots that say little."""

    @pytest.mark.parametrize(
        "before",
        [
            GRUB + "Begin: Running /scripts/init-premount ... done.\n",
            GRUB + ":: running early hook [udev]\n",
            GRUB + "Starting version 249.7-1-arch\n",
            GRUB + "Hostname set to <host>.\n",
        ],
    )
    def test_status_of_a_unit_is_the_systems(self, before: str) -> None:
        """A script of an initrd has no manager, so that the system has begun."""
        verdict = told(
            before + "[FAILED] Failed to mount /data.\n[DEPEND] Dependency failed for Local File Systems.\n"
        )
        assert (Cause.MOUNT_FAILED, Stage.USERSPACE) == (verdict.verdict.cause, verdict.verdict.stage)

    def test_udevd_that_speaks_through_the_journal_is_of_no_script(self) -> None:
        """Its initrd has a manager, whose units these are."""
        udevd = KERNEL + "[    1.600000] systemd-udevd[120]: starting version 219\n"
        gone = "[ TIME ] Timed out waiting for device /dev/mapper/x.\n" + EMERGENCY
        assert Stage.INITRD is told(udevd + gone).verdict.stage

    @pytest.mark.parametrize(
        "before",
        [
            "Hostname set to <host>.\n",
            "Hostname set to <host>.\ndracut-initqueue[273]: Warning: x\n[FAILED] Failed to start Y.\n",
            "Hostname set to <host>.\n[  OK  ] Reached target Initrd Root Device.\n",
        ],
    )
    def test_status_of_an_initrds_unit_is_the_initrds(self, before: str) -> None:
        """Its names say so, from then on."""
        verdict = told(GRUB + before + "[FAILED] Failed to mount /sysroot.\n[FAILED] Failed to start X.\n" + EMERGENCY)
        assert (Cause.MOUNT_FAILED, Stage.INITRD) == (verdict.verdict.cause, verdict.verdict.stage)


@pytest.mark.parametrize(
    "noise",
    [
        "blk_update_request: I/O error, dev loop3, sector 0 op 0x0:(READ) flags 0x0",
        "Buffer I/O error on dev loop0, logical block 0, async page read",
        "nvme nvme0: Shutdown timeout set to 10 seconds",
        "nvme nvme0: failed to set APST feature (2)",
        "hv_storvsc 5c8a4b6e: tag#64 cmd 0x85 status: scsi 0x2 srb 0x6 hv 0xc0000001",
        "blk_update_request: I/O error, dev sdb, sector 2048 op 0x0:(READ) flags 0x0",
        'device-mapper: verity: sha256 using shash "sha256-ni"',
        'device-mapper: verity: sha256 using implementation "sha256-avx2"',
        "EXT4-fs (vda1): orphan cleanup on readonly fs",
        "overlayfs: upper fs does not support tmpfile.",
        "mkdir: cannot create directory '/var/lib/x': Read-only file system",
    ],
)
def test_noise_is_no_cause_of_what_fails_behind_it(noise: str) -> None:
    """What healthy machines say does not come before a device that is missing."""
    verdict = told(BEGIN + f"[    2.500000] {noise}\n" + GONE.format(device="/dev/vdc1") + EMERGENCY).verdict
    assert (Cause.DEVICE_TIMEOUT, True) == (verdict.cause, verdict.sentence.startswith("device /dev/vdc1"))


@pytest.mark.parametrize(
    ("error", "device", "cause"),
    [
        ("I/O error, dev vdc, sector 0 op 0x0:(READ)", "/dev/vdc1", Cause.DISK_READ_ERROR),
        ("I/O error, dev nvme0n1, sector 0 op 0x0:(READ)", "/dev/nvme0n1p2", Cause.DISK_READ_ERROR),
        ("I/O error, dev nvme1n1, sector 0 op 0x0:(READ)", "/dev/nvme0n1p2", Cause.DEVICE_TIMEOUT),
        ("I/O error, dev vda, sector 0 op 0x0:(READ)", "/dev/disk/by-label/data", Cause.DISK_READ_ERROR),
        ("ata3: link is slow to respond, please be patient", "/dev/disk/by-label/data", Cause.DEVICE_TIMEOUT),
        ("hv_storvsc 5c8a4b6e: tag#64 cmd 0x28 status: scsi 0x2 srb 0x4 hv 0xc0000001", "/dev/sda1",
         Cause.DEVICE_TIMEOUT),
    ],
)  # fmt: skip
def test_error_of_a_disk_explains_what_is_on_it(error: str, device: str, cause: Cause) -> None:
    """A link may lead to any disk whose blocks could not be read."""
    assert cause == told(BEGIN + f"[    2.500000] {error}\n" + GONE.format(device=device) + EMERGENCY).verdict.cause


def test_driver_that_does_not_fit_explains_a_device() -> None:
    """It names no disk, and without it there is none."""
    magic = "[    1.600000] virtio_blk: version magic '6.1.0 SMP' should be '6.1.1 SMP'\n"
    gave_up = "ALERT!  /dev/vda9 does not exist.  Dropping to a shell!\n(initramfs) "
    assert Cause.MODULE_MISSING == told(KERNEL + INITRD + magic + gave_up).verdict.cause


def test_initrd_whose_init_speaks_was_unpacked() -> None:
    """The kernel says so of padding behind an archive; where nobody speaks, it is why."""
    failed = KERNEL + "[    1.200000] Initramfs unpacking failed: Decoding failed\n"
    gave_up = "ALERT!  /dev/vda9 does not exist.  Dropping to a shell!\n(initramfs) "
    assert Cause.DEVICE_TIMEOUT == told(failed + INITRD + gave_up).verdict.cause
    panic = "[    1.900000] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\n"
    assert Cause.INITRD_INVALID == told(failed + panic).verdict.cause


class TestRestarts:
    """Restarts that are meant, and those that are not."""

    @pytest.mark.parametrize(
        "planned",
        [
            SYSTEM + "[  OK  ] Reached target System Reboot.\n[   20.000000] reboot: Restarting system\n",
            SYSTEM + "[  OK  ] Reached target reboot.target - System Reboot.\n",
            "INIT: version 3.06 booting\nINIT: Switching to runlevel: 6\n[   20.000000] reboot: Restarting system\n",
            "[    0.100000] Kernel command line: snapd_recovery_mode=install console=ttyS0\n" + SYSTEM,
        ],
    )
    def test_restart_that_was_said_to_come(self, make: Make, clock: ManualClock, planned: str) -> None:
        """A system that installs or enlarges itself goes down in order, and starts anew."""
        follower = make()
        follower.feed((GRUB + KERNEL + INITRD + planned).encode())
        follower.event(MachineEvent(name=RESET, detail={}, t=clock.monotonic()))
        clock.advance(5)
        assert follower.verdict is None
        follower.feed((BEGIN + UP).encode())
        assert follower.wait_verdict().ready

    def test_restart_behind_a_failure(self, make: Make, clock: ManualClock) -> None:
        """What gives up goes down in order, too."""
        follower = make()
        gone = GONE.format(device="/dev/vdc1") + "[  OK  ] Reached target System Reboot.\n"
        follower.feed((BEGIN + gone).encode())
        follower.event(MachineEvent(name=RESET, detail={}, t=clock.monotonic()))
        assert Cause.DEVICE_TIMEOUT == follower.wait_verdict().cause

    @pytest.mark.parametrize(
        "boot",
        [BANNER + "## Executing script at 08000000\nresetting ...\n", GRUB + KERNEL + INITRD + SYSTEM],
        ids=["loader", "system"],
    )
    def test_loop_is_told_of_a_recording(self, boot: str) -> None:
        """Two restarts of boots that were not ready; one may be an accident."""
        assert Cause.BOOT_LOOP == told(*[boot] * 3).verdict.cause
        assert told(*[boot] * 2).verdict.unknown
        assert told(BEGIN + UP, *[boot] * 2).verdict.unknown

    def test_loop_tells_what_failed_before_it(self) -> None:
        """The last boot may be cut off before it fails again."""
        panic = "[   12.000000] Kernel panic - not syncing: Fatal exception in interrupt\n"
        verdict = told(*[BEGIN + panic] * 2, BEGIN).verdict
        assert Cause.BOOT_LOOP == verdict.cause
        assert "2 times without getting ready: the kernel panicked: Fatal exception" in verdict.sentence

    def test_planned_restarts_of_a_recording_are_no_loop(self) -> None:
        """A log that ends in the third boot says nothing against it."""
        planned = BEGIN + "[  OK  ] Reached target System Reboot.\n"
        assert told(planned, planned, BEGIN).verdict.unknown

    def test_restarts_that_are_planned_without_end_are_a_loop(self) -> None:
        """No system installs itself five times; live it is the same."""
        planned = BEGIN + "[  OK  ] Reached target System Reboot.\n"
        assert Cause.BOOT_LOOP == told(*[planned] * 5, BEGIN).verdict.cause

    def test_firmware_behind_a_loader_is_a_restart(self, make: Make, clock: ManualClock) -> None:
        """Its banner comes once in a boot; a boot manager that tries what is next is none."""
        tried = 'BdsDxe: starting Boot0001 "a" from x\nWelcome to GRUB!\nBdsDxe: starting Boot0002 "b" from x\n'
        assert 1 == told(tried).boots
        boot = BANNER + "## Executing script at 08000000\nSCRIPT FAILED: continuing...\nresetting ...\n"
        parts: Parts = [(2, boot), (4, BANNER + KERNEL), (5, INITRD), (6, SYSTEM + UP)]
        assert follow(make, clock, parts).ready

    def test_firmware_behind_a_loader_again_and_again_is_a_loop(self, make: Make, clock: ManualClock) -> None:
        """Also where no event of the machine tells."""
        boot = BANNER + "## Executing script at 08000000\nresetting ...\n"
        assert Cause.BOOT_LOOP == follow(make, clock, [(second, boot) for second in (2, 4, 6, 8)]).cause

    def test_kernel_that_saves_a_dump_is_no_boot(self) -> None:
        """It was started for another's panic, which is the verdict, also behind the restart that follows."""
        panic = "[   12.000000] Kernel panic - not syncing: Fatal exception in interrupt\n"
        dump = KERNEL + "[    0.000000] Command line: root=/dev/vda1 elfcorehdr=0x7f000000 quiet\n" + INITRD + SYSTEM
        one = told(BEGIN + panic, dump + UP)
        assert (Cause.KERNEL_PANIC, 1, ()) == (one.verdict.cause, one.boots, one.earlier)
        then = told(BEGIN + panic, dump, BEGIN + UP)
        assert (True, 2, ["failed"]) == (then.verdict.ready, then.boots, [before.word for before in then.earlier])

    def test_kernel_that_saves_a_dump_is_no_boot_live(self, make: Make, clock: ManualClock) -> None:
        """Whoever follows the machine says the same."""
        panic = "[   12.000000] Kernel panic - not syncing: Fatal exception in interrupt\n"
        dump = KERNEL + "[    0.000000] Command line: elfcorehdr=0x7f000000\n" + INITRD + SYSTEM + UP
        assert Cause.KERNEL_PANIC == follow(make, clock, [(3, BEGIN + panic), (3.2, dump)]).cause


class TestSurvived:
    """Crashes and stalls after which the boot goes on."""

    STALLS = (
        "[    3.100000] watchdog: BUG: soft lockup - CPU#0 stuck for 134s! [modprobe:231]\n",
        "[    3.100000] rcu: rcu_preempt kthread timer wakeup didn't happen for 5251 jiffies! g-1115 f0x0\n",
    )

    @pytest.mark.parametrize("stall", [*STALLS, OOPS], ids=["lockup", "timer", "oops"])
    @pytest.mark.parametrize(
        "sign",
        [
            "[  OK  ] Started Journal Service.\n",
            "Begin: Mounting root file system ... done.\n",
            "[ ok ] Activating swap...done.\n",
            " * Caching service dependencies ... [ ok ]\n",
            "Starting network: OK\n",
            "         Starting Network Configuration...\n",
            SYSTEM,
        ],
    )
    def test_boot_that_goes_on_has_survived(self, make: Make, clock: ManualClock, stall: str, sign: str) -> None:
        """Whoever says that it got on."""
        begin = GRUB + KERNEL + INITRD + stall
        assert follow(make, clock, [(3, begin), (5, sign), (9, SYSTEM if sign != SYSTEM else ""), (10, UP)]).ready

    @pytest.mark.parametrize(("stall", "cause"), [(STALLS[0], Cause.KERNEL_HANG), (STALLS[1], Cause.TIMER_STALLED)])
    def test_boot_that_does_not_has_not(self, make: Make, clock: ManualClock, stall: str, cause: Cause) -> None:
        """Behind it nothing comes, or another stall."""
        verdict = follow(make, clock, [(3, BEGIN + stall), (4, stall)])
        assert (cause, True) == (verdict.cause, verdict.evidence_to_verdict_s < 5)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (KERNEL + INITRD + "Encrypted ZFS password for rpool/ROOT: (press TAB for no echo) ", Cause.UNLOCK_WAITS),
        (KERNEL + INITRD + "\U0001f510 Password for pool tank (press TAB for no echo) ", Cause.UNLOCK_WAITS),
        ("Shim: x\nBootloader has not verified loaded image.\n", Cause.SECURE_BOOT_REFUSED),
        (GRUB + "EFI stub: x\nSystem is compromised.  halting.\n", Cause.SECURE_BOOT_REFUSED),
    ],
)
def test_what_nobody_goes_on_behind(text: str, cause: Cause) -> None:
    """A question for a key, and a shim that was passed over."""
    assert cause == told(text).verdict.cause


@pytest.mark.parametrize("said", ["SCRIPT FAILED: continuing...\n", "resetting ...\n"])
def test_uboot_tries_what_is_next(make: Make, clock: ManualClock, said: str) -> None:
    """Another script may boot."""
    begin = BANNER + "## Executing script at 08000000\n" + said
    assert follow(make, clock, [(2, begin), (9, "Starting kernel ...\n" + KERNEL + INITRD + SYSTEM + UP)]).ready
