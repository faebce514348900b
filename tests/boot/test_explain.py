"""What inspection knows is joined to what was seen, and to nothing else."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from vmtests import contract
from vmtests.boot.explain import Knowledge
from vmtests.boot.follow import Follower
from vmtests.boot.stages import Stage
from vmtests.boot.verdict import Cause, Evidence, Verdict
from vmtests.boot.waits import path
from vmtests.errors import Owner
from vmtests.image.check import Check, Word, breach, note, passed
from vmtests.image.inspect import Inspection
from vmtests.image.source import Format
from vmtests.testing import ManualClock

LABELS = frozenset({"ESP", "nix-store", "root"})
SUPERBLOCK = breach("x", "x", "x", "there is no erofs on it", cause=Cause.EROFS_SUPERBLOCK)
SUPERBLOCK = replace(SUPERBLOCK, part="store")
LOADER = breach("x", "x", "x", "there is no boot loader", cause=Cause.BOOTLOADER_MISSING)
IN_INITRD = b"Booting initrd of Debian GNU/Linux 13 (trixie)...\r\n"
GIVEN_UP = b"[  OK  ] Started Emergency Shell.\r\n"

Follow = Callable[..., Follower]


@pytest.fixture
def follow(make: Callable[..., Follower]) -> Follow:
    """Makes a follower that knows of some checks besides the labels of the table."""

    def follower(*checks: Check, labels: frozenset[str] = LABELS) -> Follower:
        inspection = Inspection(path=Path("disk.raw"), format=Format.RAW, size=1 << 30, checks=checks, labels=labels)
        return make(knowledge=Knowledge(contract.default(), inspection))

    return follower


def test_a_failed_mount_is_explained_by_its_partition(follow: Follow, clock: ManualClock) -> None:
    """Where the console only says that a mount failed, the breach of its partition is the cause."""
    follower = follow(SUPERBLOCK)
    follower.feed(IN_INITRD + b"[FAILED] Failed to mount /sysroot/nix/.ro-store.\r\n" + GIVEN_UP)
    clock.advance(2.0)
    verdict = follower.verdict
    assert verdict is not None
    assert (Cause.EROFS_SUPERBLOCK, Stage.INITRD) == (verdict.cause, verdict.stage)
    assert verdict.sentence.startswith("there is no erofs on it: /sysroot/nix/.ro-store could not")
    assert "inspection" in {evidence.source for evidence in verdict.evidence}


def test_a_breach_of_what_was_passed_long_ago_explains_nothing(follow: Follow, clock: ManualClock) -> None:
    """A boot loader that is not where it has to be is no reason for a mount that fails."""
    follower = follow(LOADER)
    follower.feed(IN_INITRD + b"[FAILED] Failed to mount /sysroot/nix/.ro-store.\r\n" + GIVEN_UP)
    clock.advance(2.0)
    verdict = follower.verdict
    assert verdict is not None
    assert Cause.MOUNT_FAILED is verdict.cause
    assert "boot loader" not in verdict.sentence


def test_a_boot_that_gets_ready_is_not_explained(follow: Follow, clock: ManualClock) -> None:
    """A breach alone is no failure: the guest decides."""
    follower = follow(SUPERBLOCK)
    follower.feed(IN_INITRD + b"\r\nWelcome to Debian!\r\n[  OK  ] Reached target Multi-User System.\r\n")
    clock.advance(60.0)
    verdict = follower.verdict
    assert verdict is not None
    assert verdict.ready


def test_a_device_that_does_not_exist_is_not_waited_for(follow: Follow, clock: ManualClock) -> None:
    """When the only job that runs waits for a label that the table does not have, that is the verdict."""
    follower = follow()
    job = b"A start job is running for /dev/disk/by-partlabel/nosuch (6s / 45s)\r\n"
    follower.feed(IN_INITRD + b"[ *    ] " + job)
    clock.advance(1.0)
    verdict = follower.verdict
    assert verdict is not None
    assert Cause.PARTITION_MISSING is verdict.cause
    assert verdict.evidence_to_verdict_s <= 2.0


@pytest.mark.parametrize("label", ["root", "typo"])
def test_what_stage_1_mounts_is_not_waited_for_though_more_runs(
    follow: Follow, clock: ManualClock, label: str
) -> None:
    """Without a partition of the contract, or that of root=, nothing else that runs can save the boot."""
    follower = follow(passed("ESP", Word.ROOT, "PARTLABEL=typo"), labels=LABELS - {"root"})
    device = f"/dev/disk/by-partlabel/{label} (6s / 45s)\r\n".encode()
    follower.feed(IN_INITRD + b"[ *    ] (2 of 5) A start job is running for Journal Service (6s / 45s)\r\n")
    follower.feed(b"[ *    ] (3 of 5) A start job is running for " + device)
    clock.advance(1.0)
    verdict = follower.verdict
    assert verdict is not None
    assert Cause.PARTITION_MISSING is verdict.cause


@pytest.mark.parametrize(
    "job",
    [
        "Job dev-disk-by\\x2dpartlabel-no\\x20such\u2026tart running (1min 21s / 1min 30s)",
        "Job dev-disk-by\\x2dpart\u2026such.device/start running (6s / 1min 30s)",
        "A start job is running for /dev/disk/by-par\u2026label/no such (6s / 45s)",
    ],
)
def test_a_name_that_systemd_cut_is_completed_from_what_stage_1_mounts(
    follow: Follow, clock: ManualClock, job: str
) -> None:
    """systemd leaves the middle of a long name out; what stage 1 mounts is known, and which of it is not there."""
    follower = follow(passed("ESP", Word.ROOT, "PARTLABEL=no such"))
    follower.feed(IN_INITRD + f"[***   ] (1 of 2) {job}\r\n".encode())
    clock.advance(1.0)
    verdict = follower.verdict
    assert verdict is not None
    assert Cause.PARTITION_MISSING is verdict.cause


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("BdsDxe: No bootable option or device was found.", Cause.ESP_UNREADABLE),
        ("No bootable device.", Cause.FIRMWARE_NO_BOOT_DEVICE),
    ],
    ids=["UEFI", "BIOS"],
)
def test_what_a_disk_for_bios_lacks_is_why_uefi_finds_nothing(said: str, cause: Cause) -> None:
    """There it is a note, since a BIOS starts the disk; of a BIOS that finds nothing it says nothing."""
    bios_only = note("boot", "boot loader", "BIOS only", "it is for BIOS only", cause=Cause.ESP_UNREADABLE)
    known = SimpleNamespace(checks=(bios_only,), labels=LABELS, root="", names={})
    seen = Verdict(
        ready=False,
        stage=Stage.FIRMWARE,
        cause=Cause.FIRMWARE_NO_BOOT_DEVICE,
        sentence="the firmware found nothing to boot",
        evidence=(Evidence(t=1.0, source="console", text=said),),
        hint="",
        owner=Owner.IMAGE,
        evidence_to_verdict_s=0.5,
    )
    assert cause is Knowledge(contract.default(), known).explain(seen).cause


def test_a_partition_that_the_image_does_not_have_is_missing() -> None:
    """That a device did not come is what was seen; that the image has no such partition is why."""
    known = SimpleNamespace(checks=(), labels=LABELS, root="", names={"PARTLABEL=ESP": "partition 1 `ESP`"})
    seen = Verdict(
        ready=False,
        stage=Stage.INITRD,
        cause=Cause.DEVICE_TIMEOUT,
        sentence="device /dev/disk/by-partlabel/nosuch did not appear",
        evidence=(),
        hint="",
        owner=Owner.IMAGE,
        evidence_to_verdict_s=0.5,
    )
    verdict = Knowledge(contract.default(), known).explain(seen)
    assert Cause.PARTITION_MISSING is verdict.cause
    assert verdict.sentence.startswith("the image has no PARTLABEL=nosuch; it has PARTLABEL=ESP: ")


@pytest.mark.parametrize(
    "console",
    [
        (
            b"[ *    ] (1 of 2) A start job is running for /dev/disk/by-partlabel/nosuch (6s / 45s)\r\n"
            b"[ *    ] (2 of 2) A start job is running for /dev/disk/by-partlabel/root (6s / 45s)\r\n"
        ),
        b"[ *    ] A start job is running for /dev/disk/by-partlabel/root (6s / 45s)\r\n",
        b"[ *    ] A start job is running for /dev/disk/by-label/nosuch (6s / 45s)\r\n",
        (
            b"[  OK  ] Reached target Initrd File Systems.\r\n"
            b"[ *    ] A start job is running for /dev/disk/by-partlabel/nosuch (6s / 45s)\r\n"
        ),
        b"A start job is running for /dev/disk/by-partlabel/nosuch (6s / 45s)\r\n",
    ],
    ids=["another runs too", "it exists", "not by its partition's label", "nothing needs it", "quoted"],
)
def test_other_waits_are_left_to_systemd(follow: Follow, clock: ManualClock, console: bytes) -> None:
    """A wait that may end, that nobody needs, or that is only quoted, is no failure."""
    follower = follow()
    follower.feed(IN_INITRD + console)
    clock.advance(10.0)
    assert follower.verdict is None


@pytest.mark.parametrize(
    "name",
    [
        "/dev/disk/by-partlabel/nix-store",
        r"dev-disk-by\x2dpartlabel-nix\x2dstore.device",
        r"dev-disk-by\x2dpartlabel-nix\x2dstore.device - /dev/disk/by-partlabel/nix-store",
        r"\x2fdev\x2fdisk\x2fby-partlabel\x2fnix-store",
    ],
)
def test_a_device_has_one_path_however_it_is_named(name: str) -> None:
    """By description, by unit, or by both (systemd.status_unit_format=), or as dracut names a script."""
    assert "/dev/disk/by-partlabel/nix-store" == path(name)


@pytest.mark.parametrize(("device", "owner"), [("root", Owner.HOST), ("nosuch", Owner.IMAGE)])
def test_a_device_that_the_image_has_may_be_late_on_a_starved_host(
    make: Callable[..., Follower], clock: ManualClock, device: str, owner: Owner
) -> None:
    """That the image has the device is no reason to blame the image; that it has not is one."""
    known = SimpleNamespace(checks=(), labels=frozenset(), root="", names={"PARTLABEL=root": "partition 3 `root`"})
    late = clock.now
    follower = make(knowledge=Knowledge(contract.default(), known), late=lambda: (clock.now - late) * 0.6)
    clock.advance(90.0)
    waited = f"[ TIME ] Timed out waiting for device /dev/disk/by-partlabel/{device}.\r\n".encode()
    follower.feed(IN_INITRD + waited + GIVEN_UP)
    clock.advance(2.0)
    verdict = follower.verdict
    assert verdict is not None
    assert owner is verdict.owner
    assert ("the host had no processor" in verdict.sentence) is (owner is Owner.HOST)


def test_an_empty_initrd_is_no_lack_of_memory(follow: Follow, clock: ManualClock) -> None:
    """systemd-boot asks for the memory of an empty initrd, gets none, and halts: the image is at fault."""
    follower = follow(breach("x", "x", "x", "initrd x is empty", cause=Cause.INITRD_INVALID))
    follower.feed(b'BdsDxe: starting Boot0001 "UEFI Google PersistentDisk " from PciRoot(0x0)/Pci(0x3,0x0)\r\n')
    follower.feed(
        b"../src/boot/log.c:30@efi_assert: systemd-boot: Assertion 'BS->AllocatePages(type, memory_type, n_pages, "
        b"&addr) == EFI_SUCCESS' failed at ../src/boot/util.h:95@xmalloc_pages, halting.\r\n"
    )
    clock.advance(1.0)
    verdict = follower.verdict
    assert verdict is not None
    assert (Cause.INITRD_INVALID, Owner.IMAGE) == (verdict.cause, verdict.owner)
