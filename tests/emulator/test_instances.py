"""Instances: how they are made, run, changed and removed."""

import base64
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.emulator.conftest import PROJECT, ZONAL, ZONE, Client, instance
from vmtests.emulator import Emulator
from vmtests.emulator.fake import BOOT, FakeHypervisor
from vmtests.emulator.serialport import LIMIT

VM = f"{ZONAL}/instances/vm"


@pytest.fixture
def ready(client: Client) -> Client:
    """A client of an emulator that has an image."""
    assert client.image()["status"] == "DONE"
    return client


def wait_status(client: Client, wanted: str) -> None:
    """Wait until the instance has a status; fail after ten seconds."""
    instances = client.emulator.instances
    changed = instances._cloud.changed
    with changed:
        assert changed.wait_for(lambda: instances.named("vm").status == wanted, 10)


def test_instance_runs_and_tells_its_address(ready: Client, hypervisor: FakeHypervisor) -> None:
    """An instance that was inserted runs, with an address on the host's loopback, and a disk of its image's size."""
    assert "error" not in ready.instance()
    got = ready.json("GET", VM)
    nat = got["networkInterfaces"][0]["accessConfigs"][0]["natIP"]
    assert ("RUNNING", True, "1") == (got["status"], nat.startswith("127."), got["disks"][0]["diskSizeGb"])
    assert hypervisor.machines["vm"].spec.external == nat


def test_machine_is_as_ordered(ready: Client, hypervisor: FakeHypervisor) -> None:
    """The machine has the CPUs and the memory of its type, NVMe where that has it, and the firmware asked for."""
    secure = {"enableSecureBoot": True, "enableVtpm": True}
    machine_type = f"zones/{ZONE}/machineTypes/c3-standard-4"
    ready.instance(machineType=machine_type, shieldedInstanceConfig=secure)
    spec = hypervisor.machines["vm"].spec
    assert (4, 16384, True, True, True) == (spec.cpus, spec.memory_mib, spec.nvme, spec.secure_boot, spec.tpm)


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"name": "Upper"}, 400, "resource.name"),
        ({"name": "a" * 64}, 400, "resource.name"),
        ({"machineType": f"zones/{ZONE}/machineTypes/x9-huge"}, 400, "Machine type"),
        ({"machineType": "zones/us-east1-b/machineTypes/e2-small"}, 400, "Machine type"),
        ({"labels": {"Upper": "x"}}, 400, "resource.labels"),
        ({"disks": []}, 400, "resource.disks"),
        ({"disks": [{"boot": True, "initializeParams": {"sourceImage": "global/images/none"}}]}, 404, "not found"),
        (
            {"disks": [{"boot": True, "initializeParams": {"sourceImage": "global/images/img", "diskSizeGb": "0"}}]},
            400,
            "diskSizeGb",
        ),
        ({"scheduling": {"maxRunDuration": {"seconds": "3600"}}}, 400, "termination action"),
        (
            {"scheduling": {"maxRunDuration": {"seconds": "5"}, "instanceTerminationAction": "DELETE"}},
            400,
            "maxRunDuration",
        ),
        ({"scheduling": {"onHostMaintenance": "TERMINATE"}}, 400, "Efficient instances"),
        ({"metadata": {"items": [{"key": "a", "value": "b"}, {"key": "a", "value": "c"}]}}, 400, "metadata"),
    ],
)
def test_impossible_orders_are_refused(shared: Client, fields: dict[str, Any], status: int, said: str) -> None:
    """What Compute Engine refuses is refused at once, by its codes, and leaves nothing behind."""
    answer = shared.json("POST", f"{ZONAL}/instances", instance(**fields))
    assert (status, status) == (shared.status, answer["error"]["code"])
    assert said in answer["error"]["message"]
    assert "items" not in shared.json("GET", f"{ZONAL}/instances")
    assert "items" not in shared.json("GET", f"{ZONAL}/disks")


def test_bios_image_is_refused(client: Client) -> None:
    """An image without UEFI_COMPATIBLE is refused, since Compute Engine would start it with a BIOS."""
    client.image(guestOsFeatures=[])
    answer = client.json("POST", f"{ZONAL}/instances", instance())
    assert "UEFI_COMPATIBLE" in answer["error"]["message"]
    assert "items" not in client.json("GET", f"{ZONAL}/disks")


def test_same_name_is_a_conflict_and_same_request_is_not(ready: Client) -> None:
    """A second instance of a name is refused with 409; the same requestId gives the operation that it gave before."""
    first = ready.instance(query="?requestId=11111111-1111-4111-8111-111111111111")
    again = ready.instance(query="?requestId=11111111-1111-4111-8111-111111111111")
    assert first["name"] == again["name"]
    answer = ready.json("POST", f"{ZONAL}/instances", instance())
    assert (409, "alreadyExists") == (ready.status, answer["error"]["errors"][0]["reason"])


def test_serial_port_is_paged(ready: Client, hypervisor: FakeHypervisor) -> None:
    """A serial port is read from a position on; `next` is the position behind what came."""
    ready.instance()
    first = ready.json("GET", f"{VM}/serialPort")
    assert (BOOT.decode(), "0", str(len(BOOT))) == (first["contents"], first["start"], first["next"])
    hypervisor.machines["vm"].host.serial(1, b"caf\xc3\xa9 \xff\n")
    second = ready.json("GET", f"{VM}/serialPort?start={first['next']}")
    assert ("café \N{REPLACEMENT CHARACTER}\n", first["next"]) == (second["contents"], second["start"])
    assert int(first["next"]) + 8 == int(second["next"])
    assert "" == ready.json("GET", f"{VM}/serialPort?port=2")["contents"]


def test_page_ends_with_a_whole_character(ready: Client, hypervisor: FakeHypervisor) -> None:
    """A character that has come half is left for the next page, which then has it whole."""
    ready.instance()
    hypervisor.machines["vm"].host.serial(1, b"caf\xc3")
    first = ready.json("GET", f"{VM}/serialPort?start={len(BOOT)}")
    hypervisor.machines["vm"].host.serial(1, b"\xa9")
    second = ready.json("GET", f"{VM}/serialPort?start={first['next']}")
    assert ("caf", "é") == (first["contents"], second["contents"])
    assert len(BOOT) + len("café".encode()) == int(second["next"])


def test_serial_port_wraps(ready: Client) -> None:
    """Of what a serial port said the last megabyte is kept; a start before it is moved up, by which a gap is seen."""
    ready.instance()
    ready.json("POST", "/emulator/v1/instances/vm/wrapSerial")
    answer = ready.json("GET", f"{VM}/serialPort?start=10")
    assert int(answer["start"]) > 10
    assert LIMIT == int(answer["next"]) - int(answer["start"]) == len(answer["contents"])


def test_serial_port_needs_a_running_instance(ready: Client) -> None:
    """A serial port can be read while the instance runs, and starts anew with it; a reset goes on."""
    ready.instance()
    ready.done(ready.json("POST", f"{VM}/reset"))
    assert str(2 * len(BOOT)) == ready.json("GET", f"{VM}/serialPort")["next"]
    ready.done(ready.json("POST", f"{VM}/stop"))
    answer = ready.json("GET", f"{VM}/serialPort")
    assert (400, "resourceNotReady") == (ready.status, answer["error"]["errors"][0]["reason"])
    ready.done(ready.json("POST", f"{VM}/start"))
    assert str(len(BOOT)) == ready.json("GET", f"{VM}/serialPort")["next"]


def test_guest_that_switches_itself_off_is_terminated(ready: Client, hypervisor: FakeHypervisor) -> None:
    """An instance whose guest powers off is TERMINATED, and can be started again."""
    ready.instance()
    hypervisor.machines["vm"].power_cut()
    wait_status(ready, "TERMINATED")
    ready.done(ready.json("POST", f"{VM}/start"))
    assert ("RUNNING", 2) == (ready.json("GET", VM)["status"], hypervisor.machines["vm"].boots)


def test_deaf_guest_is_cut_off(ready: Client, hypervisor: FakeHypervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest that does not hear the power button loses its power after a while."""
    monkeypatch.setattr("vmtests.emulator.instances.STOP_SECONDS", 0.01)
    ready.instance()
    hypervisor.machines["vm"].deaf = True
    ready.done(ready.json("POST", f"{VM}/stop"))
    assert ("TERMINATED", False) == (ready.json("GET", VM)["status"], hypervisor.machines["vm"].on)


def test_deleting_removes_machine_and_disk(ready: Client, hypervisor: FakeHypervisor) -> None:
    """A deleted instance takes its machine, and its disk with autoDelete, along; without autoDelete the disk stays."""
    ready.instance()
    ready.done(ready.json("DELETE", VM))
    assert not hypervisor.machines["vm"].on
    assert "items" not in ready.json("GET", f"{ZONAL}/disks")
    disk = {"boot": True, "autoDelete": False, "initializeParams": {"sourceImage": "global/images/img"}}
    ready.instance(disks=[disk])
    ready.done(ready.json("DELETE", VM))
    assert ["vm"] == [item["name"] for item in ready.json("GET", f"{ZONAL}/disks")["items"]]
    ready.instance(disks=[{"boot": True, "source": f"zones/{ZONE}/disks/vm"}])
    assert "RUNNING" == ready.json("GET", VM)["status"]
    ready.json("DELETE", f"{ZONAL}/disks/vm")
    assert 400 == ready.status


def test_lifetime_ends_an_instance(ready: Client) -> None:
    """An instance with maxRunDuration and DELETE is deleted when its time is over, disk and all."""
    scheduling = {"maxRunDuration": {"seconds": "3600"}, "instanceTerminationAction": "DELETE"}
    ready.instance(scheduling=scheduling)
    assert "terminationTimestamp" in ready.json("GET", VM)["resourceStatus"]["scheduling"]
    ready.json("POST", "/emulator/v1/clock", {"seconds": 3599})
    assert "RUNNING" == ready.json("GET", VM)["status"]
    cloud = ready.emulator.instances._cloud
    ready.json("POST", "/emulator/v1/clock", {"seconds": 2})
    with cloud.changed:
        assert cloud.changed.wait_for(lambda: not ready.emulator.instances._instances, 10)
    assert "items" not in ready.json("GET", f"{ZONAL}/instances")


def test_lifetime_counts_from_the_last_start(ready: Client) -> None:
    """The time of an instance is counted anew after a stop and a start; STOP stops it only."""
    scheduling = {"maxRunDuration": {"seconds": "3600"}, "instanceTerminationAction": "STOP"}
    ready.instance(scheduling=scheduling)
    ready.json("POST", "/emulator/v1/clock", {"seconds": 3000})
    ready.done(ready.json("POST", f"{VM}/stop"))
    ready.done(ready.json("POST", f"{VM}/start"))
    ready.json("POST", "/emulator/v1/clock", {"seconds": 3000})
    assert "RUNNING" == ready.json("GET", VM)["status"]
    ready.json("POST", "/emulator/v1/clock", {"seconds": 601})
    wait_status(ready, "TERMINATED")


@pytest.mark.parametrize(("action", "left"), [("DELETE", 0), ("STOP", 1)])
def test_preemption(ready: Client, action: str, left: int) -> None:
    """A preempted instance hears the power button and ends as it was ordered; an operation tells of it."""
    ready.instance(scheduling={"provisioningModel": "SPOT", "instanceTerminationAction": action})
    ready.json("POST", "/emulator/v1/instances/vm/preempt")
    operations = ready.json("GET", f"{ZONAL}/operations?filter=operationType%3Dcompute.instances.preempted")
    ready.done(operations["items"][0])
    assert left == len(ready.json("GET", f"{ZONAL}/instances").get("items", []))


def test_metadata_is_changed_by_its_fingerprint(ready: Client, hypervisor: FakeHypervisor) -> None:
    """Metadata and labels are changed only by who knows what is there; the guest sees the change."""
    ready.instance()
    items = [{"key": "foo", "value": "bar"}]
    stale = ready.json("POST", f"{VM}/setMetadata", {"fingerprint": "AAAA", "items": items})
    assert (412, "conditionNotMet") == (ready.status, stale["error"]["errors"][0]["reason"])
    known = ready.json("GET", VM)["metadata"]["fingerprint"]
    ready.done(ready.json("POST", f"{VM}/setMetadata", {"fingerprint": known, "items": items}))
    assert items == ready.json("GET", VM)["metadata"]["items"]
    ready.json("POST", f"{VM}/setLabels", {"labelFingerprint": "AAAA", "labels": {}})
    assert 412 == ready.status


def test_fingerprint_comes_in_either_alphabet(ready: Client) -> None:
    """A fingerprint is taken as it was given, and in the other alphabet of base64."""
    ready.instance()
    seen = set()
    for number in range(40):
        known = ready.json("GET", VM)["metadata"]["fingerprint"]
        seen |= set(known)
        body = {
            "fingerprint": known.replace("-", "+").replace("_", "/"),
            "items": [{"key": "n", "value": f"{number}"}],
        }
        ready.json("POST", f"{VM}/setMetadata", body)
        assert 200 == ready.status
    assert {"-", "_"} <= seen
    assert not {"+", "/"} & seen


def test_protected_instance_stays(ready: Client) -> None:
    """An instance that is protected from deletion cannot be deleted until it is not."""
    ready.instance(deletionProtection=True)
    ready.json("DELETE", VM)
    assert 400 == ready.status
    ready.json("POST", f"{VM}/setDeletionProtection?deletionProtection=false")
    assert "error" not in ready.done(ready.json("DELETE", VM))


def test_instance_is_found_by_its_number(ready: Client) -> None:
    """The number of a resource takes the place of its name."""
    number = ready.instance()["targetId"]
    assert "vm" == ready.json("GET", f"{ZONAL}/instances/{number}")["name"]


def test_lists_are_filtered_over_all_zones(ready: Client) -> None:
    """Instances of a label are found over all zones, each under its own, and nothing of another project."""
    ready.instance(labels={"run": "r1"})
    other = instance("other", machineType="zones/us-east1-b/machineTypes/e2-small", labels={"run": "r2"})
    ready.done(ready.json("POST", f"/compute/v1/projects/{PROJECT}/zones/us-east1-b/instances", other))
    base = f"/compute/v1/projects/{PROJECT}/aggregated/instances"

    def names(query: str, link: str = base) -> dict[str, list[str]]:
        scopes = ready.json("GET", f"{link}?{query}")["items"]
        found = {scope: [one["name"] for one in inner.get("instances", [])] for scope, inner in scopes.items()}
        return {scope: inner for scope, inner in found.items() if inner}

    assert {"zones/us-central1-a": ["vm"], "zones/us-east1-b": ["other"]} == names("")
    assert {"zones/us-east1-b": ["other"]} == names("filter=labels.run%3Dr2")
    assert {"zones/us-central1-a": ["vm"], "zones/us-east1-b": ["other"]} == names("filter=labels.run%3A*")
    other_project = base.replace(f"/{PROJECT}/", "/elsewhere/")
    assert {} == names("", other_project)


def test_guest_attributes_are_seen(ready: Client) -> None:
    """What a guest says is 404 until it says it, and then found by its namespace or its key."""
    ready.instance(metadata={"items": [{"key": "enable-guest-attributes", "value": "TRUE"}]})
    ready.json("GET", f"{VM}/getGuestAttributes?queryPath=ns/")
    assert 404 == ready.status
    ready.emulator.instances.named("vm").guest_attributes["ns"] = {"key": "value"}
    by_path = ready.json("GET", f"{VM}/getGuestAttributes?queryPath=ns/")
    assert [{"namespace": "ns", "key": "key", "value": "value"}] == by_path["queryValue"]["items"]
    assert "value" == ready.json("GET", f"{VM}/getGuestAttributes?variableKey=ns/key")["variableValue"]


def test_screenshot_needs_a_display(ready: Client) -> None:
    """A screenshot is given of an instance with a display device, and of no other."""
    ready.instance()
    ready.json("GET", f"{VM}/screenshot")
    assert 400 == ready.status
    ready.json("PATCH", f"{VM}/updateDisplayDevice", {"enableDisplay": True})
    contents = ready.json("GET", f"{VM}/screenshot")["contents"]
    assert base64.b64decode(contents).startswith(b"\x89PNG")


def test_deletion_during_insertion_waits_its_turn(ready: Client) -> None:
    """An instance that is deleted while it is made is gone in the end, and its machine with it."""
    ready.json("POST", "/emulator/v1/faults", {"kind": "slow", "seconds": 0.1, "count": 1})
    inserted = ready.json("POST", f"{ZONAL}/instances", instance())
    deleted = ready.json("DELETE", VM)
    threads = [threading.Thread(target=Client(ready.emulator).done, args=(one,)) for one in (inserted, deleted)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert "items" not in ready.json("GET", f"{ZONAL}/instances")
    assert "items" not in ready.json("GET", f"{ZONAL}/disks")


def test_closing_ends_every_machine(hypervisor: FakeHypervisor, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No instance outlives the emulator, and nothing of it stays in the cache."""
    monkeypatch.setenv("VMTESTS_CACHE", str(cache))
    with Emulator(hypervisor=hypervisor) as emulator:
        client = Client(emulator)
        client.image()
        client.instance()
        assert hypervisor.machines["vm"].on
        assert list((cache / "emulator").iterdir())
    assert not hypervisor.machines["vm"].on
    assert not list((cache / "emulator").iterdir())
