"""A machine on Compute Engine is followed, judged, switched and deleted as any other."""

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.gce.conftest import FAST, everything
from vmtests.boot.stages import Stage
from vmtests.boot.verdict import Cause
from vmtests.emulator import Emulator
from vmtests.emulator.fake import FakeHypervisor, FakeMachine
from vmtests.emulator.faults import Fault, FaultKind
from vmtests.errors import GuestError, InputError, Owner
from vmtests.gce.cloud import Cloud
from vmtests.gce.errors import BusyError
from vmtests.gce.guest import HostKeys, metadata, startup_script
from vmtests.gce.instance import Instance
from vmtests.gce.lab import DISK_SIZE, GceLab
from vmtests.gce.ledger import directory
from vmtests.gce.reaper import Fate, reap
from vmtests.gce.serialport import GAP, Chunk, PollPace
from vmtests.gce.settings import Settings
from vmtests.gce.vm import GceVm
from vmtests.image.inspect import Inspection
from vmtests.image.source import Format
from vmtests.machine.hardware import Hardware
from vmtests.resources import fixture
from vmtests.sizes import GIB
from vmtests.vm import BootError, Image

KEY = f"ssh-ed25519 {'A' * 68}"
CONSOLE = fixture("consoles/debian-cloud-ready.log").read_bytes()
WAY = CONSOLE[: CONSOLE.rindex(b"\n", 0, CONSOLE.rindex(b"multi-user.target")) + 1]


@pytest.fixture
def hypervisor() -> FakeHypervisor:
    """Machines that say what a real one has said on its way: no silence behind that is taken for the end of it."""
    return FakeHypervisor(boot=lambda _: WAY)


@pytest.fixture
def cloud_lab(settings: Settings, tmp_path: Path) -> Iterator[GceLab]:
    """A laboratory that waits for nothing longer than it must."""
    with GceLab(
        tmp_path / "results", settings, pace=FAST, poll_pace=PollPace(busy=0.01, quiet=0.02), lifetime=3600
    ) as made:
        yield made


@pytest.fixture
def disk(packed: Path) -> Image:
    """An image that somebody has packed."""
    inspection = Inspection(path=packed, format=Format.ARCHIVE, size=GIB, checks=())
    return Image(name="disk", path=packed, modules=None, inspection=inspection, archive=packed)


@pytest.fixture
def vm(cloud_lab: GceLab, disk: Image) -> Iterator[GceVm]:
    """A machine that boots."""
    with cloud_lab.machine(disk) as made:
        yield made


def machine_of(hypervisor: FakeHypervisor) -> FakeMachine:
    """Return the only machine."""
    (machine,) = hypervisor.machines.values()
    return machine


def announce(vm: GceVm, hypervisor: FakeHypervisor, *lines: str) -> None:
    """Say what the startup script says."""
    for line in [*(f"hostkey {line}" for line in lines), "running"]:
        machine_of(hypervisor).host.serial(1, f"\r\n{vm._token} {line}\r\n".encode())


def test_private_key_ends_with_its_machine(cloud_lab: GceLab, disk: Image) -> None:
    """A run of many instances does not keep their keys."""
    with cloud_lab.machine(disk) as vm:
        kept = vm.key.path
        assert kept.is_file()
    assert not kept.parent.exists()


def test_same_console_gets_the_same_verdict(vm: GceVm, hypervisor: FakeHypervisor) -> None:
    """What was recorded under QEMU is ready on Compute Engine too, with every stage."""
    machine_of(hypervisor).host.serial(1, CONSOLE[len(WAY) :])
    announce(vm, hypervisor)
    assert vm.wait_ready().ready
    assert set(Stage) == set(vm.timeline.starts)
    assert (vm.results / "console.log").read_bytes().startswith(CONSOLE)


def test_host_keys_come_by_the_console(vm: GceVm, hypervisor: FakeHypervisor) -> None:
    """The host keys are those that the startup script told behind the token; others that are printed are not taken."""
    machine_of(hypervisor).host.serial(1, f"some-other-token hostkey {KEY[:-1]}B\r\n".encode())
    announce(vm, hypervisor, KEY)
    vm.wait_ready()
    assert (KEY,) == vm.host_keys


def test_host_keys_come_by_guest_attributes(vm: GceVm, emulator: Emulator, hypervisor: FakeHypervisor) -> None:
    """Without a startup script the host keys are those that the guest agent has published."""
    announce(vm, hypervisor)
    named = emulator.instances.named(vm.instance.thing.name)
    named.guest_attributes["hostkeys"] = dict([KEY.split()])
    assert (KEY,) == vm.host_keys


def test_guest_without_host_keys_is_not_trusted(
    vm: GceVm, hypervisor: FakeHypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest that tells no host key is an error that says what the image needs."""
    monkeypatch.setattr("vmtests.gce.reach._HOST_KEYS_SECONDS", 0.0)
    announce(vm, hypervisor)
    with pytest.raises(GuestError, match="no ssh host key"):
        _ = vm.host_keys


def test_metadata_lets_in_the_key_and_hides_the_token() -> None:
    """The guest gets the public key, may use its serial port, and its script never has the token in one piece."""
    given = metadata("ssh-ed25519 AAAA vmtests", "secrettoken")
    assert "root:ssh-ed25519 AAAA vmtests" == given["ssh-keys"]
    assert ("TRUE", "TRUE") == (given["serial-port-enable"], given["enable-guest-attributes"])
    assert "secrettoken" not in startup_script("secrettoken")
    assert "announce secre ttoken" in given["startup-script"]


@pytest.mark.parametrize("systemd", [True, False])
def test_script_tells_host_keys_whatever_the_init(tmp_path: Path, systemd: bool) -> None:
    """A shell runs it; only a guest with systemd says that its last job has ended."""
    programs = {
        "systemd-run": 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
        "systemctl": '[ "$*" = "is-system-running --wait" ] && echo running',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "ssh_host_a_key.pub").write_text("ssh-ed25519 AAAA root@vm\n")
    script = startup_script("secrettoken").replace("PATH=$PATH", f"PATH={tmp_path}:$PATH")
    script = script.replace("> /dev/console", f">> {tmp_path}/console").replace("/etc/ssh", str(tmp_path))
    script = script.replace("/run/systemd/system", str(tmp_path) if systemd else "/nowhere")
    subprocess.run(["sh", "-c", script], check=True)
    told = [line.strip() for line in (tmp_path / "console").read_text().split("\n")]
    expected = ["secrettoken hostkey ssh-ed25519 AAAA", *(["secrettoken running"] if systemd else [])]
    assert expected == list(filter(None, told))


def test_keys_of_cloud_init_are_taken() -> None:
    """The block that cloud-init prints on the console counts as host keys; what stands outside of it does not."""
    keys = HostKeys("token")
    keys.feed(f"{KEY[:-1]}B\r\n-----BEGIN SSH HOST KEY KEYS-----\r\n{KEY} root@vm\r\n".encode())
    keys.feed(f"-----END SSH HOST KEY KEYS-----\r\n{KEY[:-1]}C\r\n".encode())
    assert (KEY,) == keys.lines


def test_instance_is_deleted_and_its_console_is_kept(
    cloud_lab: GceLab, disk: Image, emulator: Emulator, hypervisor: FakeHypervisor
) -> None:
    """What the guest said last is in the logs when the instance has been deleted, on both serial ports."""
    with cloud_lab.machine(disk, name="one") as vm:
        announce(vm, hypervisor)
        vm.wait_ready()
        machine_of(hypervisor).host.serial(1, b"the last words\r\n")
        machine_of(hypervisor).host.serial(2, b"on the other port\r\n")
    assert {"images"} == set(everything(emulator))
    assert b"the last words\r\n" in (vm.results / "console.log").read_bytes()
    assert b"on the other port\r\n" == (vm.results / "ttyS1.log").read_bytes()


def test_gap_in_the_console_is_shown(vm: GceVm, emulator: Emulator, hypervisor: FakeHypervisor) -> None:
    """When the console was faster than the API, the gap stands in the console's log with its size."""
    announce(vm, hypervisor)
    vm.wait_ready()
    vm._drain()
    ring = emulator.instances.named(vm.instance.thing.name).ports[0]
    ring._limit = 4096
    with vm._port._turn:
        machine_of(hypervisor).host.serial(1, 300 * b"nothing in particular\r\n")
    vm._drain()
    (gap,) = [event for event in vm.follower.events if event.name == GAP]
    assert {"lost_bytes": 300 * 23 - 4096} == dict(gap.detail)
    assert "--- 2804 bytes of the console were lost here ---" in [line.text for line in vm.console]
    assert gap.text in (vm.results / "console.jsonl").read_text()


def test_person_types_on_the_console_of_a_boot_that_hangs(vm: GceVm) -> None:
    """Before the guest is ready a person gets its console, through the serial gateway."""
    with vm.line() as line:
        line.settimeout(10)
        line.sendall(b"help\r")
        said = b""
        while not said.endswith(b"HELP\r"):
            said += line.recv(1000)


def test_guest_that_powers_off_is_at_fault(vm: GceVm, hypervisor: FakeHypervisor) -> None:
    """A guest that switches itself off instead of getting ready gets the verdict that says so."""
    machine_of(hypervisor).power_cut()
    verdict = vm.wait_verdict()
    assert (Cause.POWERED_OFF, Owner.IMAGE) == (verdict.cause, verdict.owner)


def test_preempted_instance_is_the_clouds_fault(vm: GceVm, emulator: Emulator) -> None:
    """A machine that was taken away gets a verdict that the cloud owns, also where it is deleted at once."""
    emulator.instances.preempt(emulator.instances.named(vm.instance.thing.name))
    with pytest.raises(BootError, match="it was preempted") as raised:
        vm.wait_ready()
    assert Owner.CLOUD is raised.value.owner


@pytest.mark.parametrize("last", [b"", b"[   60.000000] reboot: Power down\r\n"])
def test_instance_that_somebody_stops_is_not_the_images_fault(
    vm: GceVm, hypervisor: FakeHypervisor, emulator: Emulator, last: bytes
) -> None:
    """The guest that obeys the power button says what one says that powers itself off."""
    other = Cloud(vm._session.settings, FAST)
    machine_of(hypervisor).host.serial(1, last)
    other.change("stopping", other.instances.stop_unary, dict(vm.instance._request))
    with pytest.raises(BootError, match="somebody stopped it") as raised:
        vm.wait_ready()
    assert Owner.CLOUD is raised.value.owner
    assert vm.verdict is not None
    assert (Cause.POWERED_OFF, Owner.CLOUD) == (vm.verdict.cause, vm.verdict.owner)


def test_instance_that_is_off_for_no_reason_that_is_told_is_not_the_images_fault(
    vm: GceVm, hypervisor: FakeHypervisor, emulator: Emulator
) -> None:
    """Where Compute Engine cannot be asked, nobody knows."""
    emulator.faults.add(Fault(kind=FaultKind.FORBIDDEN, method="GET", path="/operations"))
    machine_of(hypervisor).power_cut()
    verdict = vm.wait_verdict()
    assert ("does not say why" in verdict.sentence, Owner.CLOUD) == (True, verdict.owner)
    emulator.faults.clear()


@pytest.mark.parametrize("kind", [FaultKind.FORBIDDEN, FaultKind.UNAVAILABLE])
def test_guest_that_nobody_can_hear_is_not_at_fault(
    cloud_lab: GceLab, disk: Image, emulator: Emulator, kind: FaultKind
) -> None:
    """Where Compute Engine does not give the console, its silence says nothing about the image."""
    cloud_lab._timeout = 2.0
    emulator.faults.add(Fault(kind=kind, method="GET", path="/serialPort"))
    with cloud_lab.machine(disk) as vm:
        verdict = vm.wait_verdict()
        emulator.faults.clear()
    assert (Cause.TIME_LIMIT, Owner.CLOUD) == (verdict.cause, verdict.owner)
    assert verdict.sentence.startswith("the console could not be read any more, reading the serial port of the")
    assert verdict == vm.verdict


def test_instance_that_is_still_being_switched_on_has_not_switched_itself_off(
    cloud_lab: GceLab, disk: Image, hypervisor: FakeHypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its port is not there yet (VM instance lifecycle, STAGING): it is asked again."""
    refused = iter([True, True])
    real = Instance.serial

    def serial(self: Instance, start: int = 0, port: int = 1) -> Chunk:
        if next(refused, False):
            raise BusyError("it is not ready")
        return real(self, start, port)

    monkeypatch.setattr(Instance, "serial", serial)
    monkeypatch.setattr(Instance, "status", "STAGING")
    with cloud_lab.machine(disk) as vm:
        announce(vm, hypervisor)
        assert vm.wait_verdict().ready


def test_guest_that_powers_off_after_a_stop_and_a_start_is_at_fault(vm: GceVm, hypervisor: FakeHypervisor) -> None:
    """What was before the last start says nothing about why an instance is off."""
    announce(vm, hypervisor)
    vm.wait_ready()
    real = vm.instance.start

    def start() -> None:
        real()
        announce(vm, hypervisor)

    vm.instance.start = start  # type: ignore[method-assign]
    assert vm.stop_start().ready
    machine_of(hypervisor).power_cut()
    assert "" == vm.instance.ended_by()


def test_power_cut_is_a_reset(vm: GceVm, hypervisor: FakeHypervisor) -> None:
    """A power cut is a reset by the API, and another boot in the logs, with a verdict of its own."""
    announce(vm, hypervisor)
    vm.wait_ready()
    vm.power_cut()
    assert (2, None) == (machine_of(hypervisor).boots, vm.verdict)
    announce(vm, hypervisor)
    assert vm.power_on().ready
    assert 2 == vm.follower.boot


def test_stop_and_start_is_another_boot(vm: GceVm, hypervisor: FakeHypervisor) -> None:
    """A stop and a start by the API are no failure but another boot, whose console begins at its first byte."""
    announce(vm, hypervisor)
    vm.wait_ready()
    before = (vm.results / "console.log").read_bytes().count(b"Linux version")
    started: list[bool] = []

    def start() -> None:
        real()
        started.append(True)
        announce(vm, hypervisor)

    real, vm.instance.start = vm.instance.start, start  # type: ignore[method-assign]
    assert vm.stop_start().ready
    assert ([True], 2) == (started, vm.follower.boot)
    assert 2 * before == (vm.results / "console.log").read_bytes().count(b"Linux version")


def test_instance_is_as_ordered(cloud_lab: GceLab, disk: Image, emulator: Emulator) -> None:
    """Disk size and secure boot are those that were asked for, else what Compute Engine has at least."""
    with cloud_lab.machine(disk, name="a") as vm:
        named = emulator.instances.named(vm.instance.thing.name)
        assert (DISK_SIZE, False) == (named.disk.size, vm.order.secure_boot)
    with cloud_lab.machine(disk, Hardware(disk_size=16 * GIB, secure_boot=True), name="b") as vm:
        named = emulator.instances.named(vm.instance.thing.name)
        assert 16 * GIB == named.disk.size
        assert {"enableSecureBoot": True} == {
            key: value for key, value in named.resource["shieldedInstanceConfig"].items() if value
        }


def test_hardware_that_no_cloud_has_is_refused(cloud_lab: GceLab, disk: Image) -> None:
    """What Compute Engine cannot be told is refused, not left out, before anything is made."""
    with pytest.raises(InputError, match="takes no kernel"):
        cloud_lab.machine(disk, Hardware(cmdline_extra="quiet"))
    assert not list(cloud_lab.results.glob("*"))


def test_two_images_of_one_name_are_two(cloud_lab: GceLab, packed: Path, emulator: Emulator, tmp_path: Path) -> None:
    """Files in two directories may have the same name."""
    images = []
    for place in ("a", "b"):
        (path := tmp_path / place / "disk.tar.gz").parent.mkdir()
        path.write_bytes(packed.read_bytes())
        inspection = Inspection(path=path, format=Format.ARCHIVE, size=GIB, checks=())
        images.append(Image(name="disk", path=path, modules=None, inspection=inspection, archive=path))
    with cloud_lab.machine(images[0]), cloud_lab.machine(images[1], name="other"):
        assert 2 == len(everything(emulator)["images"])


def test_image_is_uploaded_once(cloud_lab: GceLab, disk: Image, emulator: Emulator) -> None:
    """Two machines of one image share it, and its archive is gone as soon as it was read."""
    with contextlib.ExitStack() as stack:
        for name in ("a", "b"):
            stack.enter_context(cloud_lab.machine(disk, name=name))
        found = everything(emulator)
        assert (1, 2) == (len(found["images"]), len(found["instances"]))
        assert "objects" not in found


@pytest.fixture
def worker(settings: Settings, tmp_path: Path) -> Callable[[str], GceLab]:
    """A function that returns the laboratory of one of the processes of a run."""
    pace = PollPace(busy=0.01, quiet=0.02)
    return lambda name: GceLab(tmp_path / name, settings, pace=FAST, poll_pace=pace, lifetime=3600, run="together")


def test_processes_of_a_run_share_an_image(worker: Callable[[str], GceLab], disk: Image, emulator: Emulator) -> None:
    """The image is made by the first process that needs it, and is there until the last of them ends."""
    with worker("gw1") as second:
        with worker("gw0") as first, first.machine(disk, name="a"):
            (name,) = everything(emulator)["images"]
            with second.machine(disk, name="a"):
                assert {"images": 1, "instances": 2, "disks": 2} == {
                    kind: len(names) for kind, names in everything(emulator).items()
                }
        assert {"images": [name]} == everything(emulator)
        with second.machine(disk, name="b"):
            assert [name] == everything(emulator)["images"]
    assert {} == everything(emulator)
    assert [] == list(directory().iterdir())


def test_image_that_nobody_has_any_more_is_made_anew(
    worker: Callable[[str], GceLab], disk: Image, emulator: Emulator
) -> None:
    """Who comes after all others have ended makes the image again."""
    with worker("gw2"):
        for name in ("gw0", "gw1"):
            with worker(name) as lab, lab.machine(disk):
                assert 1 == len(everything(emulator)["images"])
            assert {} == everything(emulator)


def test_image_of_a_dead_process_is_left_to_the_living(
    worker: Callable[[str], GceLab], disk: Image, emulator: Emulator, cloud: Cloud
) -> None:
    """What a process that was killed had in common with others is not removed while one of them lives."""
    with worker("gw1") as second:
        dead = worker("gw0")
        dead._cloud_image(disk)
        second._cloud_image(disk)
        dead.session._ledger.__exit__(None, None, None)
        for share in dead.session._shares.values():
            share.close()
        assert [Fate.KEPT] == [found.fate for found in reap(cloud, time.time())]
        assert 1 == len(list(directory().iterdir()))
    assert {} == everything(emulator)


def test_kept_image_stays_and_has_no_ledger(
    settings: Settings, disk: Image, tmp_path: Path, emulator: Emulator
) -> None:
    """An image that was ordered to stay is there when the laboratory is left, and expires by its label."""
    with GceLab(tmp_path / "results", settings, pace=FAST, lifetime=7200) as lab:
        link = lab.keep(disk)
    (name,) = everything(emulator)["images"]
    assert f"projects/emulated/global/images/{name}" == link
    assert [] == list(directory().iterdir())
    labels = next(iter(emulator.instances._disks._images._images.values())).resource["labels"]
    assert 7000 < int(labels["vmtests-expires"]) - time.time() <= 7200
