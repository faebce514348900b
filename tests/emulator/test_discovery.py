"""The emulator against the discovery documents that Google publishes, as google-api-python-client ships them."""

import json
import re
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.emulator.conftest import GLOBAL, PROJECT, ZONAL, Client, instance
from vmtests.emulator import Emulator
from vmtests.emulator.fake import FakeHypervisor
from vmtests.emulator.http import Route

Document = dict[str, Any]


def _load(name: str) -> Document:
    documents = resources.files("googleapiclient.discovery_cache") / "documents"
    document: Document = json.loads((documents / f"{name}.v1.json").read_text())
    return document


@pytest.fixture(scope="module")
def documents() -> dict[str, Document]:
    """The documents by the first part of their methods' ids."""
    return {name: _load(name) for name in ("compute", "storage")}


def _method(documents: dict[str, Document], route_id: str) -> Document:
    api, resource, method = route_id.split(".")
    found: Document = documents[api]["resources"][resource]["methods"][method]
    return found


def _problems(document: Document, schema: Document, value: object, where: str) -> list[str]:
    """Return what a value has that its schema does not allow."""
    if reference := schema.get("$ref"):
        return _problems(document, document["schemas"][reference], value, where)
    kind = schema.get("type", "any")
    if kind == "object":
        if not isinstance(value, dict):
            return [f"{where} is no object"]
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        found = []
        for name, inner in value.items():
            if name in known:
                found += _problems(document, known[name], inner, f"{where}.{name}")
            elif others is not None:
                found += _problems(document, others, inner, f"{where}.{name}")
            else:
                found.append(f"{where}.{name} is not in the schema")
        return found
    if kind == "array":
        if not isinstance(value, list):
            return [f"{where} is no array"]
        return [
            problem
            for index, inner in enumerate(value)
            for problem in _problems(document, schema["items"], inner, f"{where}[{index}]")
        ]
    types: dict[str, tuple[type, ...]] = {
        "string": (str,),
        "boolean": (bool,),
        "integer": (int,),
        "number": (int, float),
        "any": (object,),
    }
    right = isinstance(value, types[kind]) and (kind != "integer" or not isinstance(value, bool))
    if right and "enum" in schema and value not in schema["enum"]:
        return [f"{where} is {value!r}, which is not of its enum"]
    if right and schema.get("format") in {"int64", "uint64"} and not re.fullmatch(r"-?\d+", str(value)):
        return [f"{where} is {value!r}, which is no number"]
    return [] if right else [f"{where} is a {type(value).__name__}, not a {kind}"]


def _template(path: str) -> str:
    return re.sub(r"\{\+?(\w+)\}", r"{\1}", path)


def test_routes_are_methods(emulator: Emulator, documents: dict[str, Document]) -> None:
    """Every route is a method of the discovery document, with its verb and its path."""
    compute, plain, _, download, _ = emulator.api.routers
    for router in (compute, plain, download):
        for route in router.routes:
            method = _method(documents, route.id)
            assert (route.id, method["httpMethod"], _template(method["path"])) == (
                route.id,
                route.method,
                route.template,
            )


def test_upload_paths(emulator: Emulator, documents: dict[str, Document]) -> None:
    """Uploads are taken at the paths that the discovery document gives for them."""
    protocols = _method(documents, "storage.objects.insert")["mediaUpload"]["protocols"]
    for protocol in protocols.values():
        request = _request("POST", protocol["path"].replace("{bucket}", "b"))
        assert [router.find(request) is not None for router in emulator.api.routers] == [
            False,
            False,
            True,
            False,
            False,
        ]


def _request(method: str, path: str) -> Any:
    from email.message import Message
    from io import BytesIO

    from vmtests.emulator.http import Request

    return Request.of(method, path, Message(), BytesIO())


class Checker:
    """Asks as a client does, and holds each request and answer against the discovery documents."""

    def __init__(self, client: Client, documents: dict[str, Document]) -> None:
        self.client = client
        self.documents = documents
        self.seen: set[str] = set()
        self.problems: list[str] = []

    def ask(self, method: str, url: str, body: object = None) -> Any:
        """Return the JSON of an answer that was checked."""
        target = url.removeprefix(self.client.emulator.endpoint)
        found = None
        for router in self.client.emulator.api.routers:
            found = found or router.find(_request(method, urlsplit(target).path))
        assert found is not None, target
        route: Route = found[0]
        self.seen.add(route.id)
        described = _method(self.documents, route.id)
        document = self.documents[route.id.split(".")[0]]
        answer = self.client.json(method, target, body)
        assert 200 <= self.client.status < 300, (target, answer)
        if "request" in described and isinstance(body, dict):
            self.problems += _problems(document, described["request"], body, f"{route.id} request")
        if "response" in described:
            self.problems += _problems(document, described["response"], answer, f"{route.id} response")
        else:
            assert answer is None, target
        return answer

    def done(self, operation: Any) -> Any:
        """Wait for an operation."""
        return self.ask("POST", f"{operation['selfLink']}/wait", b"")


def test_answers_have_only_fields_of_the_schema(
    client: Client, hypervisor: FakeHypervisor, documents: dict[str, Document]
) -> None:
    """What every method takes and answers has no field, type or enum value that the discovery document lacks."""
    check = Checker(client, documents)
    client.image(family="fam", labels={"run": "r1"})
    body = {
        "name": "vm",
        "machineType": "zones/us-central1-a/machineTypes/n2-standard-2",
        "disks": [
            {
                "boot": True,
                "autoDelete": True,
                "initializeParams": {"sourceImage": "global/images/family/fam", "diskSizeGb": "10"},
            }
        ],
        "networkInterfaces": [{"nicType": "GVNIC", "accessConfigs": [{"type": "ONE_TO_ONE_NAT"}]}],
        "metadata": {"items": [{"key": "enable-guest-attributes", "value": "TRUE"}]},
        "labels": {"run": "r1"},
        "serviceAccounts": [{"email": "default", "scopes": ["https://www.googleapis.com/auth/cloud-platform"]}],
        "shieldedInstanceConfig": {"enableSecureBoot": True, "enableVtpm": True},
        "displayDevice": {"enableDisplay": True},
        "tags": {"items": ["ssh"]},
        "scheduling": {
            "provisioningModel": "SPOT",
            "instanceTerminationAction": "DELETE",
            "maxRunDuration": {"seconds": "3600"},
        },
    }
    inserted = check.ask("POST", f"{ZONAL}/instances", body)
    vm = f"{ZONAL}/instances/vm"
    check.done(inserted)
    client.emulator.instances.named("vm").guest_attributes["ns"] = {"key": "value"}
    got = check.ask("GET", vm)
    check.ask("GET", f"{vm}/serialPort?start=3")
    check.ask("GET", f"{vm}/screenshot")
    check.ask("GET", f"{vm}/getGuestAttributes?queryPath=ns/")
    check.ask("GET", f"{vm}/getGuestAttributes?variableKey=ns/key")
    for path in (
        *(f"{ZONAL}/{kind}" for kind in ("instances", "disks", "operations", "machineTypes")),
        *(f"{GLOBAL}/{kind}" for kind in ("images", "operations", "images/img", "images/family/fam")),
        f"{ZONAL}/disks/vm",
        f"{ZONAL}/machineTypes/e2-small",
        inserted["selfLink"],
        ZONAL,
        f"/compute/v1/projects/{PROJECT}",
        *(f"/compute/v1/projects/{PROJECT}/{kind}" for kind in ("zones", "regions", "regions/us-east1")),
        *(
            f"/compute/v1/projects/{PROJECT}/aggregated/{kind}?maxResults=3"
            for kind in ("instances", "disks", "operations", "machineTypes")
        ),
    ):
        check.ask("GET", path)
    global_operation = check.ask("GET", f"{GLOBAL}/operations")["items"][0]
    check.ask("GET", global_operation["selfLink"])
    check.done(global_operation)
    labels = {"labelFingerprint": got["labelFingerprint"], "labels": {"a": "b"}}
    check.ask("POST", f"{vm}/setLabels", labels)
    check.ask("POST", f"{vm}/setMetadata", {"fingerprint": got["metadata"]["fingerprint"], "items": []})
    check.ask("POST", f"{vm}/setTags", {"fingerprint": got["tags"]["fingerprint"], "items": ["a"]})
    check.ask("POST", f"{vm}/setDeletionProtection?deletionProtection=false")
    check.ask("PATCH", f"{vm}/updateDisplayDevice", {"enableDisplay": True})
    common = check.ask("GET", f"/compute/v1/projects/{PROJECT}")["commonInstanceMetadata"]
    check.done(check.ask("POST", f"/compute/v1/projects/{PROJECT}/setCommonInstanceMetadata", common))
    for action in ("reset", "stop", "start"):
        check.done(check.ask("POST", f"{vm}/{action}"))
    check.done(check.ask("DELETE", vm))
    check.done(check.ask("POST", f"{ZONAL}/disks", {"name": "data", "sizeGb": "1", "labels": {"run": "r1"}}))
    disk = check.ask("GET", f"{ZONAL}/disks/data")
    labels = {"labelFingerprint": disk["labelFingerprint"], "labels": {"a": "b"}}
    check.ask("POST", f"{ZONAL}/disks/data/setLabels", labels)
    check.done(check.ask("DELETE", f"{ZONAL}/disks/data"))
    image = check.ask("GET", f"{GLOBAL}/images/img")
    labels = {"labelFingerprint": image["labelFingerprint"], "labels": {}}
    check.ask("POST", f"{GLOBAL}/images/img/setLabels", labels)
    copy = {"name": "copy", "sourceImage": "global/images/img"}
    check.done(check.ask("POST", f"{GLOBAL}/images", copy))
    check.done(check.ask("DELETE", f"{GLOBAL}/images/img"))
    check.ask("GET", f"{GLOBAL}/networks/default")
    check.ask("GET", f"/compute/v1/projects/{PROJECT}/regions/us-central1/subnetworks/default")
    check.ask("DELETE", global_operation["selfLink"])
    check.ask("DELETE", inserted["selfLink"])
    _check_storage(check)
    ids = {route.id for router in client.emulator.api.routers for route in router.routes}
    # Organization Policy has a document of its own, which the client library does not bring.
    ids = {one for one in ids if not one.startswith("orgpolicy.")}
    assert (check.problems, ids - check.seen) == ([], set())
    assert list(hypervisor.machines) == ["vm"]


def test_errors_have_only_fields_of_the_schema(client: Client, documents: dict[str, Document]) -> None:
    """Operations that end with an error, and lists that name them, have no field that the discovery document lacks."""
    check = Checker(client, documents)
    client.image()
    for kind in ("stockout", "quota", "operation-error", "bare-error"):
        client.json("POST", "/emulator/v1/faults", {"kind": kind, "count": 1})
        ended = check.done(check.ask("POST", f"{ZONAL}/instances", instance()))
        assert "error" in ended, kind
    check.ask("GET", f"{ZONAL}/operations")
    assert [] == check.problems


def _check_storage(check: Checker) -> None:
    lifecycle = {"rule": [{"action": {"type": "Delete"}, "condition": {"age": 1}}]}
    check.ask("POST", f"/storage/v1/b?project={PROJECT}", {"name": "other", "lifecycle": lifecycle})
    check.ask("GET", f"/storage/v1/b?project={PROJECT}")
    check.ask("PATCH", "/storage/v1/b/other", {"labels": {"run": "r1"}})
    check.ask("POST", "/upload/storage/v1/b/other/o?uploadType=media&name=dir%2Fa", b"some")
    check.ask("PATCH", "/storage/v1/b/other/o/dir%2Fa", {"metadata": {"run": "r1"}})
    composed = {"sourceObjects": [{"name": "dir/a"}, {"name": "dir/a"}], "destination": {"contentType": "a/b"}}
    check.ask("POST", "/storage/v1/b/other/o/b/compose", composed)
    check.ask("GET", "/storage/v1/b/other/o?prefix=d&delimiter=%2F")
    check.ask("GET", "/storage/v1/b/other/o/b")
    for name in ("dir%2Fa", "b"):
        check.ask("DELETE", f"/storage/v1/b/other/o/{name}")
    check.ask("GET", "/storage/v1/b/other")
    check.ask("GET", "/storage/v1/b/other/storageLayout")
    check.ask("GET", "/storage/v1/b/other/managedFolders")
    check.ask("DELETE", "/storage/v1/b/other")
