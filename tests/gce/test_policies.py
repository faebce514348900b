"""What a project may not is found before anything is made, or said in the right words, with nothing left behind."""

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from tests.gce.conftest import FAST, everything, order
from vmtests.emulator import Emulator
from vmtests.emulator.fake import FakeHypervisor
from vmtests.emulator.rules import Rules
from vmtests.errors import InputError, Owner
from vmtests.gce import series
from vmtests.gce.cloud import Cloud
from vmtests.gce.errors import CloudError, DeniedError, NotFoundError, PolicyError, QuotaError, UnsupportedError
from vmtests.gce.instance import insert
from vmtests.gce.lab import GceLab
from vmtests.gce.ledger import Head, Ledger, directory
from vmtests.gce.reaper import Fate, reap
from vmtests.gce.remove import remove
from vmtests.gce.seats import Seats
from vmtests.gce.serialport import PollPace
from vmtests.gce.session import Session
from vmtests.gce.settings import Settings, count
from vmtests.gce.things import Brand, Kind, Thing
from vmtests.gce.upload import upload
from vmtests.image.image import Image
from vmtests.image.inspect import Inspection
from vmtests.image.source import Format
from vmtests.machine.hardware import Hardware
from vmtests.sizes import GIB, MIB
from vmtests.testing import ManualClock

A, B, EAST = "us-central1-a", "us-central1-b", "us-east1-b"
ROLE = Path(__file__).parents[2] / ".github/gce-role.yml"


def rule(emulator: Emulator, **rules: object) -> None:
    """Give the project other rules."""
    emulator.instances._cloud.law.rules = Rules(**rules)  # type: ignore[arg-type]


@pytest.fixture
def disk(packed: Path) -> Image:
    """An image that somebody has packed."""
    inspection = Inspection(path=packed, format=Format.ARCHIVE, size=GIB, checks=())
    return Image(name="disk", path=packed, modules=None, inspection=inspection, archive=packed)


def lab(tmp_path: Path, settings: Settings, machine: str = "e2-small") -> GceLab:
    """Return a laboratory that waits for nothing longer than it must."""
    pace = PollPace(busy=0.01, quiet=0.02)
    return GceLab(tmp_path / "results", settings, machine=machine, pace=FAST, poll_pace=pace)


POLICIES = {
    "compute.requireShieldedVm": ("--secure-boot", Hardware(secure_boot=True, tpm=True), {}),
    "compute.vmExternalIpAccess": ("--gce-internal", Hardware(), {"internal": True}),
    "compute.requireOsLogin": ("--gce-os-login", Hardware(), {"os_login": True}),
    "compute.disableSerialPortAccess": ("--gce-os-login", Hardware(), {"os_login": True}),
}


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_is_found_before_anything_is_made(
    policy: str, emulator: Emulator, settings: Settings, disk: Image, tmp_path: Path
) -> None:
    """The sentence names the policy and the option that goes with it; with the option the machine is made."""
    hint, hardware, more = POLICIES[policy]
    rule(emulator, policies=[policy])
    with lab(tmp_path, settings) as here, pytest.raises(PolicyError, match=policy) as caught:
        here.machine(disk)
    assert ({}, Owner.CLOUD) == (everything(emulator), caught.value.owner)
    assert hint in str(caught.value.hint)
    with lab(tmp_path, replace(settings, **more)) as here, here.machine(disk, hardware):  # type: ignore[arg-type]
        assert "instances" in everything(emulator)
    assert {} == everything(emulator)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_that_may_not_be_asked_for_is_said_when_it_refuses(
    policy: str, emulator: Emulator, session: Session, image: Thing
) -> None:
    """Compute Engine's own refusal gives the same sentence, and leaves no instance."""
    rule(emulator, policies=[policy])
    metadata = {"enable-oslogin": "FALSE", "serial-port-enable": "TRUE"}
    with pytest.raises(PolicyError, match=policy) as caught:
        insert(session, replace(order(image), metadata=metadata), "vmtests-vm", (A,))
    assert POLICIES[policy][0] in str(caught.value.hint)
    assert "instances" not in everything(emulator)


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Mapping[str, object]], None]:
    """Have the answers to requests for a part of a URL say more than the emulator's."""
    real = requests.Session.send

    def answer(part: str, more: Mapping[str, object]) -> None:
        def send(self: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
            got = real(self, request, **options)
            if part in str(request.url) and got.ok:
                got._content = json.dumps(got.json() | more).encode()
            return got

        monkeypatch.setattr(requests.Session, "send", send)

    return answer


def test_a_list_of_machines_that_may_have_an_address_has_no_new_one(
    emulator: Emulator, settings: Settings, disk: Image, tmp_path: Path, answered: Callable[..., None]
) -> None:
    """`compute.vmExternalIpAccess` is a list: of machines by name, or all, or none."""
    rules = [{"values": {"allowedValues": ["projects/emulated/zones/us-central1-a/instances/proxy"]}}]
    answered("compute.vmExternalIpAccess:", {"spec": {"rules": rules}})
    with lab(tmp_path, settings) as here, pytest.raises(PolicyError, match="vmExternalIpAccess"):
        here.machine(disk)
    assert {} == everything(emulator)
    answered("compute.vmExternalIpAccess:", {"spec": {"rules": [{"allowAll": True}]}})
    with lab(tmp_path, settings) as here:
        assert not here._preflight.policies


def test_a_machine_of_another_architecture_is_refused_before_anything_is_made(
    emulator: Emulator, settings: Settings, disk: Image, tmp_path: Path, answered: Callable[..., None]
) -> None:
    """An Arm machine would not start the image that was uploaded for it."""
    answered("/machineTypes/", {"architecture": "ARM64"})
    with lab(tmp_path, settings) as here, pytest.raises(InputError, match="another architecture, ARM64"):
        here.machine(disk)
    assert {} == everything(emulator)


def test_a_subnetwork_is_one_of_a_region(emulator: Emulator, settings: Settings, disk: Image, tmp_path: Path) -> None:
    """Only the zones of the region that its link names are tried; none is said before anything is made."""
    link = "projects/host/regions/us-east1/subnetworks/shared"
    said = "no zone is in the subnetwork's region, us-east1"
    with lab(tmp_path, replace(settings, subnetwork=link)) as here, pytest.raises(InputError, match=said):
        here.machine(disk)
    assert {} == everything(emulator)
    with lab(tmp_path, replace(settings, subnetwork=link, zones=(A, EAST))) as here:
        assert here._preflight.zones == (EAST,)


@pytest.mark.parametrize(
    ("machine", "card", "disk_type", "migrates"),
    [
        ("custom-2-4096", "VIRTIO_NET", "pd-balanced", True),
        ("e2-custom-micro-1024", "VIRTIO_NET", "pd-balanced", True),
        ("c3-standard-4-lssd", "GVNIC", "pd-balanced", True),
        ("a3-highgpu-8g", "GVNIC", "pd-balanced", False),
        ("a3-ultragpu-8g", "GVNIC", "hyperdisk-balanced", False),
        ("g2-standard-4", "VIRTIO_NET", "pd-balanced", False),
        ("h3-standard-88", "GVNIC", "pd-balanced", False),
    ],
)
def test_each_series_gets_what_it_takes(image: Thing, machine: str, card: str, disk_type: str, migrates: bool) -> None:
    """N1's custom types have no series in their name; what cannot be moved to another host is ordered as such."""
    body = replace(order(image), machine=machine).body("vmtests-vm", A, Brand.new())
    assert (card, migrates) == (body.network_interfaces[0].nic_type, body.scheduling.on_host_maintenance == "")
    assert body.disks[0].initialize_params.disk_type.endswith(f"/{disk_type}")


def test_another_zone_has_the_machine_type(
    emulator: Emulator, settings: Settings, disk: Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A zone without machines of a type is left out before anything is made; none that has some is an error."""
    rule(emulator, lacking={A: ["n4-standard-2"]})
    with lab(tmp_path, settings, "n4-standard-2") as here, here.machine(disk) as vm:
        assert vm.instance.thing.place == B
    assert f"no n4-standard-2 in {A}; trying {B} only" in capsys.readouterr().err
    rule(emulator, lacking={A: ["n4-standard-2"], B: ["n4-standard-2"]})
    with lab(tmp_path, settings, "n4-standard-2") as here, pytest.raises(UnsupportedError, match="no machines"):
        here.machine(disk)
    assert {} == everything(emulator)


def test_a_zone_that_there_is_not_is_no_missing_machine_type(
    emulator: Emulator, settings: Settings, disk: Image, tmp_path: Path
) -> None:
    """A zone or project with a letter wrong is told as such, also beside others that are right."""
    wrong = replace(settings, zones=("us-central1-z", B))
    with lab(tmp_path, wrong) as here, pytest.raises(NotFoundError, match=r"zones/us-central1-z' was not found"):
        here.machine(disk)
    assert {} == everything(emulator)


def test_a_zone_that_lacks_it_after_all_is_passed_over(emulator: Emulator, session: Session, image: Thing) -> None:
    """What could not be asked before is said by the insertion: the next zone is tried."""
    rule(emulator, lacking={A: ["e2-small"]})
    assert insert(session, order(image), "vmtests-vm", (A, B)).thing.place == B


def test_a_quota_is_one_of_a_region(emulator: Emulator, session: Session, image: Thing) -> None:
    """Where a region's quota is used up its other zones are not tried, those of another region are."""
    rule(emulator, cpus={"us-central1": 1})
    assert insert(session, order(image), "vmtests-vm", (A, B, EAST)).thing.place == EAST
    with pytest.raises(QuotaError, match="CPUS"):
        insert(session, order(image), "vmtests-other", (A, B))
    assert ["vmtests-vm"] == everything(emulator)["instances"]


def test_a_missing_network_is_found_before_anything_is_made(
    emulator: Emulator, settings: Settings, disk: Image, tmp_path: Path
) -> None:
    """A project without the default network is told of the options; with one of its own it goes."""
    rule(emulator, networks=["mine"])
    with lab(tmp_path, settings) as here, pytest.raises(NotFoundError, match="networks/default") as caught:
        here.machine(disk)
    assert "--gce-network" in str(caught.value.hint)
    assert {} == everything(emulator)
    for more in ({"network": "mine"}, {"subnetwork": "mine"}):
        with lab(tmp_path, replace(settings, **more)) as here, here.machine(disk) as vm:  # type: ignore[arg-type]
            assert vm.instance.status == "RUNNING"


def test_a_disk_that_the_machine_cannot_have_is_refused(
    emulator: Emulator, session: Session, settings: Settings, image: Thing, disk: Image, tmp_path: Path
) -> None:
    """N4 and C4 take Hyperdisk only: it is what they get, and anything else is refused here and there."""
    assert ("hyperdisk-balanced", "pd-balanced") == (
        series.disk_type("c4-standard-2"),
        series.disk_type("c3-standard-4"),
    )
    wrong = replace(order(image), machine="n4-standard-2", disk_type="pd-balanced")
    with pytest.raises(CloudError, match="features are not compatible"):
        insert(session, wrong, "vmtests-vm", (A,))
    assert "disks" not in everything(emulator)
    assert insert(session, replace(wrong, disk_type=""), "vmtests-vm", (A,)).status == "RUNNING"
    here = lab(tmp_path, replace(settings, disk_type="pd-ssd"), "c4-standard-2")
    with here, pytest.raises(InputError, match="takes no boot disk of the type pd-ssd"):
        here.machine(disk)


def test_a_spot_instance_may_be_taken_away(emulator: Emulator, session: Session, image: Thing) -> None:
    """It is ordered as the API wants it, with an end of its own."""
    made = insert(session, replace(order(image), spot=True), "vmtests-vm", (A,)).get().scheduling
    assert ("SPOT", False, "DELETE") == (
        made.provisioning_model,
        made.automatic_restart,
        made.instance_termination_action,
    )


def test_an_internal_instance_is_reached_in_its_network(
    emulator: Emulator, settings: Settings, disk: Image, tmp_path: Path
) -> None:
    """It has no external address, and ssh goes to the other one."""
    with lab(tmp_path, replace(settings, internal=True)) as here, here.machine(disk) as vm:
        assert vm.instance.address.startswith("10.")


def test_an_image_of_no_whole_gib_is_refused_before_it_is_sent(
    emulator: Emulator, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compute Engine would refuse it after the upload, so nothing is sent."""
    inspection = Inspection(path=tmp_path / "a.tar.gz", format=Format.ARCHIVE, size=1025 * MIB, checks=())
    odd = Image(name="a", path=tmp_path / "a.tar.gz", modules=None, inspection=inspection, archive=tmp_path)
    with lab(tmp_path, settings) as here:
        monkeypatch.setattr(here.images, "find", lambda *_: odd)
        with pytest.raises(InputError, match="whole number of GiB"):
            here.image("a.tar.gz")
    assert {} == everything(emulator)


def test_the_role_has_what_a_run_needs(
    emulator: Emulator, settings: Settings, disk: Image, tmp_path: Path, hypervisor: FakeHypervisor
) -> None:
    """With the permissions of the role a machine is made, watched, switched and removed; without one it is named."""
    role = [line.split("- ")[1] for line in ROLE.read_text(encoding="utf-8").splitlines() if "- compute" in line]
    rule(emulator, permissions=role)
    with lab(tmp_path, settings) as here, here.machine(disk) as vm:
        vm.instance.reset()
        vm.instance.stop()
        vm.instance.start()
        vm.screenshot()
        vm.instance.guest_attributes("hostkeys")
    list(reap(here.session.cloud, time.time()))
    assert {} == everything(emulator)
    for missing in (
        "compute.images.create",
        "compute.instances.create",
        "compute.disks.create",
        "compute.images.useReadOnly",
    ):
        rule(emulator, permissions=[one for one in role if one != missing])
        with lab(tmp_path, settings) as here, pytest.raises(DeniedError, match=missing), here.machine(disk):
            pass
        assert {} == everything(emulator), missing


def test_another_projects_ledger_is_left_alone(emulator: Emulator, settings: Settings) -> None:
    """A dead run in another project is named with the command that removes what it left; its ledger stays."""
    thing = Thing(kind=Kind.INSTANCE, name="vmtests-dead", project="other", place=A)
    with Ledger.new(Head(brand=Brand.new(), endpoint=settings.endpoint)) as dead:
        dead.will(thing)
    kept = {path.name for path in directory().iterdir()}
    (found,) = [one for one in reap(Cloud(settings, FAST), time.time()) if one.thing.project == "other"]
    assert (Fate.OTHERS, True) == (found.fate, "--gce-project=other" in found.why)
    assert kept == {path.name for path in directory().iterdir()}


def test_a_list_that_is_not_whole_is_told(emulator: Emulator, cloud: Cloud) -> None:
    """A zone that does not answer is no zone without anything left in it."""
    rule(emulator, unreachable=[B])
    assert [(Fate.UNSEEN, B)] * 2 == [(one.fate, one.thing.place) for one in reap(cloud, time.time())]


def test_zones_that_a_list_did_not_reach_are_told(cloud: Cloud, answered: Callable[..., None]) -> None:
    """A list of all zones may name the zones that did not answer beside them (`unreachables`)."""
    answered("/aggregated/", {"unreachables": ["projects/emulated/zones/us-east1-b"]})
    assert [(Fate.UNSEEN, EAST)] * 2 == [(one.fate, one.thing.place) for one in reap(cloud, time.time())]


def test_a_bucket_that_lets_nothing_go_is_refused_before_anything_is_sent(
    session: Session, packed: Path, answered: Callable[..., None], emulator: Emulator
) -> None:
    """What is uploaded into a bucket with a retention policy could not be removed."""
    session.remove(upload(session, packed, "first"))
    answered(f"/b/{session.settings.bucket}?", {"retentionPolicy": {"retentionPeriod": "86400"}})
    with pytest.raises(InputError, match="lets nobody remove"):
        upload(session, packed, "disk")
    assert {} == everything(emulator)


def test_no_version_of_an_object_is_left(session: Session, packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket that keeps versions keeps what is not deleted by its generation; nobody looks at it besides."""
    real, asked = requests.Session.send, list[str]()
    start, begun = threading.Thread.start, list[str]()

    def send(self: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        asked.append(f"{request.method} {request.url}")
        return real(self, request, **options)

    def begin(thread: threading.Thread) -> None:
        begun.append(str(getattr(thread, "_target", None)))
        start(thread)

    stored = upload(session, packed, "disk")
    monkeypatch.setattr(requests.Session, "send", send)
    monkeypatch.setattr(threading.Thread, "start", begin)
    assert remove(Cloud(session.settings, FAST), stored)
    assert "DELETE" in asked[-1]
    assert "generation=" in asked[-1]
    assert not remove(session.cloud, stored)
    assert [] == [target for target in begun if "BucketMetadataCache" in target]


def test_patience_begins_anew_with_each_part(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload that fails now and then ends well, as long as each attempt gets further than the last."""
    clock = ManualClock()
    monkeypatch.setattr("vmtests.gce.cloud.time", SimpleNamespace(monotonic=clock.monotonic, sleep=clock.advance))
    reached = 0

    def send() -> int:
        nonlocal reached
        reached += 1
        clock.advance(FAST.patience / 3)
        if reached < 5:
            raise requests.ConnectionError("cut")
        return reached

    assert cloud.ask("uploading", send, gone=lambda: reached) == 5


def test_instances_are_counted_over_all_processes(tmp_path: Path) -> None:
    """A run has no more instances at a time than it may; a seat that is left is taken by the next."""
    ours, others = Seats(tmp_path, 2), Seats(tmp_path, 2)
    with ours.take(), others.take():
        assert ours._try(0) is None
        assert ours._try(1) is None
        ours._ours = 2
        with pytest.raises(InputError, match="2 instances already"), ours.take():
            pass
        ours._ours = 1
    with ours.take(), ours.take():
        pass


@pytest.mark.parametrize("text", ["0", "-1", "many", "9999", ""])
def test_numbers_of_instances_are_whole_and_few(text: str) -> None:
    """What is no number of instances is refused."""
    with pytest.raises(InputError, match="no number of instances"):
        count(text)
