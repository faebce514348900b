"""The metadata server, as a guest meets it."""

import json
import threading
from email.message import Message
from io import BytesIO

import pytest

from tests.emulator.conftest import ZONAL, Client
from vmtests.emulator.http import Reply, Request
from vmtests.emulator.instance import Instance

V1 = "/computeMetadata/v1/"


@pytest.fixture(scope="module")
def vm(shared: Client) -> Instance:
    """An instance with metadata and a service account."""
    items = [{"key": "ssh-keys", "value": "me:key"}, {"key": "enable-guest-attributes", "value": "TRUE"}]
    shared.instance(
        metadata={"items": items},
        serviceAccounts=[{"email": "default", "scopes": ["a", "b"]}],
        tags={"items": ["web"]},
    )
    return shared.emulator.instances.named("vm")


def ask(vm: Instance, path: str, method: str = "GET", body: bytes = b"", flavor: str | None = "Google") -> Reply:
    """Ask as the guest does."""
    headers = Message()
    if flavor:
        headers["Metadata-Flavor"] = flavor
    return vm.metadata(Request.of(method, path, headers, BytesIO(body)))


def text(vm: Instance, path: str) -> str:
    """Return the text at a path that is there."""
    reply = ask(vm, V1 + path)
    assert (200, "Google") == (reply.status, reply.headers["Metadata-Flavor"])
    assert isinstance(reply.body, bytes)
    return reply.body.decode()


def test_flavor_is_asked_for(vm: Instance) -> None:
    """Without the header nothing is told but that this is the metadata server."""
    assert 403 == ask(vm, V1, flavor=None).status
    assert 403 == ask(vm, V1, flavor="Other").status
    root = ask(vm, "/", flavor=None)
    assert (200, "Google") == (root.status, root.headers["Metadata-Flavor"])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("", "instance/\noslogin/\nproject/\n"),
        ("instance/name", "vm"),
        ("instance/hostname", "vm.us-central1-a.c.proj.internal"),
        ("instance/attributes/", "ssh-keys\nenable-guest-attributes\n"),
        ("instance/attributes/ssh-keys", "me:key"),
        ("instance/network-interfaces/", "0/\n"),
        ("instance/network-interfaces/0/mtu", "1460"),
        ("instance/network-interfaces/0/ip", "10.128.0.16"),
        ("instance/network-interfaces/0/mac", "42:01:0a:80:00:10"),
        ("instance/network-interfaces/0/access-configs/0/type", "ONE_TO_ONE_NAT"),
        ("instance/disks/0/device-name", "persistent-disk-0"),
        ("instance/scheduling/on-host-maintenance", "MIGRATE"),
        ("instance/service-accounts/default/scopes", "a\nb"),
        ("instance/preempted", "FALSE"),
        ("project/project-id", "proj"),
        ("instance/licenses?alt=json", "[]"),
        (
            "instance/scheduling/?recursive=true&alt=text",
            "automatic-restart TRUE\non-host-maintenance MIGRATE\npreemptible FALSE\n",
        ),
    ],
)
def test_tree(vm: Instance, path: str, value: str) -> None:
    """Values, lists and directories are at the paths and in the forms that guests know."""
    assert value == text(vm, path)


def test_recursion_is_json(vm: Instance) -> None:
    """All of it comes at once as JSON, named as in JSON but for what the customer has named."""
    tree = json.loads(text(vm, "?recursive=true"))
    assert "me:key" == tree["instance"]["attributes"]["ssh-keys"]
    assert 1460 == tree["instance"]["networkInterfaces"][0]["mtu"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("instance", 301),
        ("instance/none", 404),
        ("instance/disks/7/", 404),
        ("instance/disks/x/", 404),
        ("../../etc", 404),
        ("instance/guest-attributes/ns/none", 404),
    ],
)
def test_what_is_not_there(vm: Instance, path: str, status: int) -> None:
    """A directory without its slash is elsewhere; what is not there is not found."""
    assert status == ask(vm, V1 + path).status


def test_change_is_waited_for(vm: Instance, shared: Client) -> None:
    """A guest that waits for a change is told when there is one, and at once when it has missed one."""
    path, more = f"{V1}instance/tags", "wait_for_change=true&timeout_sec=60&alt=json"
    before = ask(vm, f"{path}?alt=json")
    replies: list[Reply] = []
    query = f"{path}?{more}&last_etag={before.headers['ETag']}"
    waiting = threading.Thread(target=lambda: replies.append(ask(vm, query)))
    waiting.start()
    known = shared.json("GET", f"{ZONAL}/instances/vm")["tags"]["fingerprint"]
    shared.json("POST", f"{ZONAL}/instances/vm/setTags", {"fingerprint": known, "items": ["new"]})
    waiting.join(10)
    assert [b'["new"]'] == [reply.body for reply in replies]
    assert replies[0].headers["ETag"] == ask(vm, query).headers["ETag"]
    assert 200 == ask(vm, f"{V1}instance/name?wait_for_change=true&timeout_sec=0").status


def test_guest_attributes(vm: Instance) -> None:
    """A guest writes, reads and removes its attributes; too much of them is refused."""
    path = f"{V1}instance/guest-attributes/ns/key"
    assert 200 == ask(vm, path, "PUT", b"value").status
    assert "value" == text(vm, "instance/guest-attributes/ns/key")
    assert {"ns": {"key": "value"}} == vm.guest_attributes
    assert 413 == ask(vm, f"{path}2", "PUT", bytes(2 << 20)).status
    assert 200 == ask(vm, path, "DELETE").status
    assert 404 == ask(vm, path).status
    assert 404 == ask(vm, f"{V1}instance/guest-attributes/ns/a%20b", "PUT", b"x").status


def test_guest_that_sends_nothing_holds_up_nobody(vm: Instance, shared: Client) -> None:
    """Its body is waited for without the lock that every other request needs."""
    asked, let = threading.Event(), threading.Event()

    class Slow:
        def read(self, limit: int = -1, /) -> bytes:
            asked.set()
            assert let.wait(20)
            return b"late"

    headers = Message()
    headers["Metadata-Flavor"] = "Google"
    request = Request.of("PUT", f"{V1}instance/guest-attributes/ns/slow", headers, Slow())
    replies: list[Reply] = []
    writer = threading.Thread(target=lambda: replies.append(vm.metadata(request)))
    writer.start()
    assert asked.wait(20)
    assert "vm" == text(vm, "instance/name")
    assert "items" in shared.json("GET", f"{ZONAL}/instances")
    let.set()
    writer.join()
    assert ([200], "late") == ([reply.status for reply in replies], text(vm, "instance/guest-attributes/ns/slow"))


def test_project_metadata_reaches_every_guest(vm: Instance, shared: Client) -> None:
    """What is given to the project is told to its guests, by who knows what was there."""
    url = "/compute/v1/projects/proj"
    known = shared.json("GET", url)["commonInstanceMetadata"]["fingerprint"]
    body = {"fingerprint": known, "items": [{"key": "ssh-keys", "value": "all:key"}]}
    assert "error" not in shared.done(shared.json("POST", f"{url}/setCommonInstanceMetadata", body))
    assert "all:key" == text(vm, "project/attributes/ssh-keys")
    shared.json("POST", f"{url}/setCommonInstanceMetadata", body)
    assert 412 == shared.status


def test_guest_attributes_are_off_by_default(client: Client) -> None:
    """A guest writes nothing unless the instance's metadata lets it."""
    client.image()
    client.instance()
    vm = client.emulator.instances.named("vm")
    assert 403 == ask(vm, f"{V1}instance/guest-attributes/ns/key", "PUT", b"x").status
