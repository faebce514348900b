"""What the laboratory hands to a guest, and what it says of a boot that failed."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vmtests.boot.stages import Stage
from vmtests.boot.verdict import Cause, Verdict
from vmtests.errors import InputError, Owner
from vmtests.guest import credentials
from vmtests.guest.seed import Seed
from vmtests.host.host import Host
from vmtests.host.tools import Toolbox
from vmtests.image.check import passed
from vmtests.image.inspect import Inspection
from vmtests.image.source import Format
from vmtests.machine.hardware import Disk, DiskBus, FirmwareKind, Hardware
from vmtests.qemu.lab import DISK_SIZE, Lab
from vmtests.qemu.vm import QemuVm
from vmtests.sizes import GIB
from vmtests.vm import BootError, Image


def test_failed_boot_is_a_sentence_with_stage_cause_and_console() -> None:
    """A boot that failed says where, why, what to do and where the console is."""
    verdict = Verdict(
        ready=False,
        stage=Stage.INITRD,
        cause=Cause.MOUNT_FAILED,
        sentence="/sysroot was not mounted",
        evidence=(),
        hint="look at it",
        owner=Owner.IMAGE,
        evidence_to_verdict_s=0.1,
    )
    error = BootError(verdict, Path("results"))
    assert error.message == "boot failed in initrd: /sysroot was not mounted"
    assert error.hint == "look at it; the console is results/console.log"
    assert (error.owner, error.exit_code) == (Owner.IMAGE, 1)


def test_results_are_made_when_they_are_needed(tmp_path: Path) -> None:
    """A laboratory that boots nothing makes no directory."""
    with Lab(lambda: pytest.fail("made too early")) as lab, pytest.raises(InputError):
        lab.image("reference", ["foo"])


@pytest.fixture
def image(tmp_path: Path) -> Image:
    """An image of which nothing is known."""
    (disk := tmp_path / "disk.raw").write_bytes(bytes(1 << 20))
    inspection = Inspection(path=disk, format=Format.RAW, size=1 << 20, checks=())
    return Image(name="own", path=disk, modules=None, inspection=inspection)


def test_machine_that_is_not_powered_on_is_one_sentence(tmp_path: Path, image: Image) -> None:
    """Whoever forgets `with` is told so, whatever he asks for."""
    uses: tuple[Callable[[QemuVm], object], ...] = (
        *(QemuVm.wait_ready, QemuVm.reboot, QemuVm.power_cut, QemuVm.screenshot, QemuVm.fork, QemuVm.close),
        *(lambda vm: vm.run("true"), lambda vm: vm.verdict, lambda vm: vm.mounts, lambda vm: vm.ssh),
    )
    with Lab(tmp_path) as lab:
        vm = lab.machine(image)
        for use in uses:
            with pytest.raises(InputError, match=r"^the machine is not powered on .hint: use it in a `with` block.$"):
                use(vm)
        assert not hasattr(vm, "mistyped")


def test_laboratory_that_is_closed_makes_nothing(
    tmp_path: Path, image: Image, toolbox: Toolbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it gave is gone, and nothing is made that nobody would remove."""
    monkeypatch.setenv("VMTESTS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Host, "toolbox", toolbox)
    with Lab(tmp_path) as used:
        used.machine(image)
    with Lab(tmp_path) as unused:
        pass
    for lab in (used, unused):
        with pytest.raises(InputError, match=r"^the laboratory is closed .hint: its machines are made, and end, in"):
            lab.machine(image)
    assert [] == list((tmp_path / "cache").glob("scratch-*"))


def test_machine_is_made_of_an_image_and_of_hardware(tmp_path: Path, image: Image) -> None:
    """A path is no image, nor is a dictionary hardware; either is one sentence."""
    with Lab(tmp_path) as lab:
        with pytest.raises(InputError, match=r"^a machine is made of an Image and of Hardware"):
            lab.machine(image.path)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=r"^a machine is made of an Image and of Hardware"):
            lab.machine(image, {"cpus": 1})  # type: ignore[arg-type]


def test_announcement_waits_for_the_target_and_the_last_job() -> None:
    """The unit that a guest is handed comes after the target, and asks systemd before it says the token."""
    given = credentials.announce("multi-user.target", "secrettoken")
    unit = given["systemd.extra-unit.vmtests-announce.service"].decode()
    assert "After=multi-user.target" in unit.splitlines()
    assert unit.index("is-system-running --wait") < unit.index("secre ttoken")
    dropin = given["systemd.unit-dropin.multi-user.target~vmtests"].decode()
    assert "Wants=vmtests-announce.service" in dropin.splitlines()


def test_token_is_nowhere_in_what_is_handed_over() -> None:
    """A manager that prints its units and command lines does not print the token, which would look like ready."""
    given = credentials.announce("multi-user.target", "secrettoken")
    assert [] == [name for name, text in given.items() if b"secrettoken" in text]


def test_guest_greets_before_its_first_service() -> None:
    """That the guest makes units of credentials is known before any of its services can print."""
    given = credentials.announce("multi-user.target", "secrettoken")
    unit = given["systemd.extra-unit.vmtests-greet.service"].decode()
    assert {"DefaultDependencies=no", "Before=sysinit.target"} <= set(unit.splitlines())
    assert "secre ttoken" in unit


@pytest.mark.parametrize("stage", [Stage.INITRD, Stage.USERSPACE])
def test_greeting_says_where_it_comes_from(tmp_path: Path, stage: Stage) -> None:
    """The command that greets is run: it tells stage 1's manager from the system's, as systemd does."""
    given = credentials.announce("multi-user.target", "secrettoken")
    unit = given["systemd.extra-unit.vmtests-greet.service"].decode()
    command = unit.partition("esac; ")[2].rpartition("'")[0]
    if stage is Stage.INITRD:
        (tmp_path / "initrd-release").touch()
    for there, here in (("$$", "$"), ("%%", "%"), ("/etc/initrd-release", str(tmp_path / "initrd-release"))):
        command = command.replace(there, here)
    said = subprocess.run(["sh", "-c", command], env={"to": "/dev/stdout"}, stdout=subprocess.PIPE, check=True)
    assert f"\r\nsecrettoken hello from {stage}\r\n".encode() == said.stdout


def test_debug_is_handed_to_an_image_that_has_no_such_module(tmp_path: Path) -> None:
    """Command line and credentials make stage 1 talk; what the caller asked for comes last and wins."""
    inspection = Inspection(path=tmp_path, format=Format.RAW, size=1 << 20, checks=())
    (disk := tmp_path / "disk.raw").write_bytes(bytes(1 << 20))
    image = Image(name="own", path=disk, modules=None, inspection=inspection, debug=True)
    with Lab(tmp_path) as lab:
        vm = lab.machine(image, Hardware(cmdline_extra="quiet"))
    words = vm.hardware.cmdline_extra.split()
    assert {"rd.systemd.log_level=debug", "rd.systemd.debug_shell=ttyS1", "panic=0"} <= set(words)
    assert "quiet" == words[-1]
    # No key is left where results are uploaded from: it is gone with the laboratory.
    assert [] == [path.name for path in tmp_path.iterdir() if path.name != "disk.raw"]
    assert b"ttyS1" in vm.hardware.credentials["systemd.unit-dropin.debug-shell.service~vmtests"]


@pytest.mark.parametrize(
    ("known", "firmware", "bus", "sector"),
    [
        ({}, FirmwareKind.UEFI, DiskBus.VIRTIO_SCSI, 512),
        ({"bios_only": True}, FirmwareKind.BIOS, DiskBus.VIRTIO_SCSI, 512),
        ({"sector_size": 4096}, FirmwareKind.UEFI, DiskBus.VIRTIO_SCSI, 4096),
        ({"checks": (passed("boot", "root", "/dev/vda2"),)}, FirmwareKind.UEFI, DiskBus.VIRTIO_BLK, 512),
        ({"checks": (passed("boot", "root", "/dev/nvme0n1p2"),)}, FirmwareKind.UEFI, DiskBus.NVME, 512),
    ],
)
def test_machine_is_what_the_image_is_made_for(
    tmp_path: Path, known: dict[str, Any], firmware: FirmwareKind, bus: DiskBus, sector: int
) -> None:
    """Firmware, bus and sectors are chosen by what inspection saw; what the caller orders wins."""
    inspection = Inspection(**{"path": tmp_path, "format": Format.RAW, "size": 1 << 20, "checks": (), **known})
    (disk := tmp_path / "disk.raw").write_bytes(bytes(1 << 20))
    image = Image(name="own", path=disk, modules=None, inspection=inspection)
    with Lab(tmp_path) as lab:
        chosen = lab.machine(image, name="a").hardware
        ordered = lab.machine(image, Hardware(firmware=FirmwareKind.UEFI, disk_bus=DiskBus.SATA), name="b").hardware
    assert (firmware, bus, sector) == (chosen.firmware, chosen.disk_bus, chosen.sector_size)
    assert (FirmwareKind.UEFI, DiskBus.SATA) == (ordered.firmware, ordered.disk_bus)


def test_further_disk_over_a_file_from_elsewhere_is_refused(tmp_path: Path) -> None:
    """QEMU would be shown whatever file it names, as the image's own chain is not."""
    (secret := tmp_path / "secret").write_bytes(bytes(1 << 20))
    inspection = Inspection(path=tmp_path, format=Format.RAW, size=1 << 20, checks=())
    (disk := tmp_path / "disk.raw").write_bytes(bytes(1 << 20))
    image = Image(name="own", path=disk, modules=None, inspection=inspection)
    with Lab(tmp_path) as lab:
        (further := tmp_path / "home/more.qcow2").parent.mkdir()
        lab.host.toolbox.run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", secret, further)
        with pytest.raises(InputError, match="which is not beside it"):
            lab.machine(image, Hardware(disks=(Disk(image=further),)))
        lab.host.toolbox.run("qemu-img", "create", "-q", "-f", "qcow2", further, "1M")
        lab.machine(image, Hardware(disks=(Disk(image=further),)))


@pytest.mark.parametrize(("size", "disk_size"), [(1 << 20, DISK_SIZE), (DISK_SIZE, DISK_SIZE + GIB)])
def test_disk_has_room_for_root_to_grow(tmp_path: Path, size: int, disk_size: int) -> None:
    """A disk is larger than its image, however large that is."""
    with (path := tmp_path / "disk.raw").open("wb") as file:
        file.truncate(size)
    inspection = Inspection(path=path, format=Format.RAW, size=size, checks=())
    with Lab(tmp_path) as lab:
        vm = lab.machine(Image(name="own", path=path, modules=None, inspection=inspection))
    assert disk_size == vm.hardware.disk_size


def test_seed_is_handed_to_who_listens(tmp_path: Path) -> None:
    """An image with cloud-init gets a disk for it, unless nobody wants that; the key in it is the run's own."""
    inspection = Inspection(
        path=tmp_path, format=Format.RAW, size=1 << 20, checks=(), listens=frozenset({"cloud-init"})
    )
    (disk := tmp_path / "disk.raw").write_bytes(bytes(1 << 20))
    image = Image(name="own", path=disk, modules=None, inspection=inspection)
    with Lab(tmp_path / "a") as lab:
        vm = lab.machine(image)
        assert vm._own_key.public in vm.hardware.seed["user-data"].decode()
    for none in (Seed.NONE, "none"):
        with Lab(tmp_path / "b", seed=none) as lab:  # type: ignore[arg-type]
            assert lab.machine(image).hardware.further == 0
    with pytest.raises(InputError, match=r"^seed=… takes auto, nocloud, ignition, none; not 'cloud'$"):
        Lab(tmp_path / "c", seed="cloud")  # type: ignore[arg-type]


def test_login_hands_in_the_public_key_only() -> None:
    """The guest gets the public half of the run's key."""
    given = credentials.login("ssh-ed25519 AAAA me", "ttyS0", "multi-user.target")
    assert given["ssh.authorized_keys.root"] == b"ssh-ed25519 AAAA me"


def test_shell_is_left_to_a_getty() -> None:
    """The shell that is handed in starts with the target, after the console's getty, and only without one.

    It is ended by a signal that a shell heeds: SIGTERM would be waited for at each shutdown.
    """
    given = credentials.login("ssh-ed25519 AAAA me", "ttyS0", "multi-user.target")
    offer = given["systemd.extra-unit.vmtests-offer-shell.service"].decode().splitlines()
    assert "After=serial-getty@ttyS0.service" in offer
    assert any("is-active --quiet serial-getty@ttyS0.service || exec systemctl" in line for line in offer)
    assert "KillSignal=SIGHUP" in given["systemd.extra-unit.vmtests-shell.service"].decode().splitlines()
    dropin = given["systemd.unit-dropin.multi-user.target~vmtests-shell"].decode()
    assert "Wants=vmtests-offer-shell.service" in dropin.splitlines()


def test_nobody_opens_the_line_beside_a_getty() -> None:
    """What asks whether there is a getty is not on its line, where vhangup(2) would end it as a failed unit."""
    given = credentials.login("ssh-ed25519 AAAA me", "ttyS0", "multi-user.target")
    assert b"tty" not in given["systemd.extra-unit.vmtests-offer-shell.service"].replace(b"ttyS0", b"").replace(
        b"serial-getty", b""
    )
