"""Calls: what the cloud refuses is one sentence with an owner, what may do later is tried again, nothing hangs."""

import json
import time
from dataclasses import replace
from typing import Any

import pytest
import requests
from google.api_core.exceptions import from_http_response

from tests.gce.conftest import FAST, everything, order
from vmtests.emulator import Emulator
from vmtests.emulator.fake import FakeHypervisor
from vmtests.emulator.faults import Fault, FaultKind
from vmtests.errors import Owner
from vmtests.gce.cloud import Cloud, Pace
from vmtests.gce.errors import (
    AbsentError,
    BillingError,
    CloudError,
    CredentialsError,
    DeniedError,
    DisabledError,
    PlaceError,
    PolicyError,
    QuotaError,
    RateError,
    SlowError,
    StockoutError,
    UnavailableError,
)
from vmtests.gce.instance import Instance, insert
from vmtests.gce.session import Session
from vmtests.gce.settings import Settings
from vmtests.gce.things import Thing


def on_insert(kind: FaultKind, count: int | None = None) -> Fault:
    """Return a fault of the request that makes an instance."""
    return Fault(kind=kind, count=count, method="POST", path="/instances")


def make(session: Session, image: Thing) -> Instance:
    """Make an instance."""
    return insert(session, order(image), session.brand.name("vm"), session.settings.zones)


@pytest.mark.parametrize(
    ("fault", "kind", "said", "hint"),
    [
        (Fault(kind=FaultKind.STOCKOUT), StockoutError, "no such machine left", "more zones"),
        (Fault(kind=FaultKind.QUOTA), QuotaError, "CPUS-per-project-region, limit 8", "another region"),
        (on_insert(FaultKind.FORBIDDEN), DeniedError, "compute.instances.create", "instanceAdmin.v1"),
        (on_insert(FaultKind.UNAUTHORIZED), CredentialsError, "credentials", "application-default"),
        (on_insert(FaultKind.RATE_LIMIT), RateError, "too many requests", "minute"),
        (on_insert(FaultKind.UNAVAILABLE), UnavailableError, "does not answer", "later"),
        (on_insert(FaultKind.REFUSE), UnavailableError, "does not answer", "network"),
        (Fault(kind=FaultKind.OPERATION_ERROR, path="/instances"), CloudError, "Internal error", ""),
        (Fault(kind=FaultKind.BARE_ERROR, path="/instances"), CloudError, "Internal error", ""),
    ],
    ids=lambda value: str(value.kind) if isinstance(value, Fault) else "",
)
def test_each_fault_has_its_sentence_and_leaves_nothing(
    emulator: Emulator, session: Session, image: Thing, fault: Fault, kind: type[CloudError], said: str, hint: str
) -> None:
    """What the cloud does wrong is a CloudError that says what to do, owned by the cloud; no instance is left."""
    emulator.faults.add(fault)
    with pytest.raises(kind) as raised:
        make(session, image)
    assert (kind, Owner.CLOUD, 2) == (type(raised.value), raised.value.owner, raised.value.exit_code)
    assert said in raised.value.message
    assert hint in (raised.value.hint or "")
    emulator.faults.clear()
    assert {"instances", "disks"}.isdisjoint(everything(emulator))


@pytest.mark.parametrize("kind", [FaultKind.UNAVAILABLE, FaultKind.REFUSE, FaultKind.RATE_LIMIT])
def test_a_burst_is_lived_through(emulator: Emulator, session: Session, image: Thing, kind: FaultKind) -> None:
    """A service that fails twice and then works has worked."""
    session.cloud.pace = replace(FAST, patience=20.0)
    emulator.faults.add(on_insert(kind, 2))
    assert "RUNNING" == make(session, image).status


def test_lost_answer_makes_no_second_instance(
    emulator: Emulator, hypervisor: FakeHypervisor, session: Session, image: Thing
) -> None:
    """An insertion whose answer is lost is asked for again under the same id, and done once."""
    session.cloud.pace = replace(FAST, patience=20.0)
    emulator.faults.add(on_insert(FaultKind.DROP, 1))
    assert "RUNNING" == make(session, image).status
    assert [1] == [machine.boots for machine in hypervisor.machines.values()]


def test_reads_do_not_retry_for_ten_minutes(emulator: Emulator, instance: Instance) -> None:
    """A service that never works is given up after the patience, whatever the library's own retries are."""
    emulator.faults.add(Fault(kind=FaultKind.UNAVAILABLE, method="GET"))
    began = time.monotonic()
    with pytest.raises(UnavailableError):
        instance.get()
    assert time.monotonic() - began < 5
    emulator.faults.clear()


def test_operation_that_does_not_end_is_given_up(emulator: Emulator, settings: Settings, image: Thing) -> None:
    """An operation that takes longer than it may is an error that names it; the instance goes all the same."""
    with Session(settings, pace=Pace(poll=0.01, patience=0.2, operation=0.1, grace=0.0)) as session:
        emulator.faults.add(Fault(kind=FaultKind.SLOW, seconds=0.5, count=1, path="/instances"))
        with pytest.raises(SlowError, match="did not end in time"):
            make(session, image)
        session.cloud.pace = FAST
    assert {"instances", "disks"}.isdisjoint(everything(emulator))


def test_an_answer_in_another_alphabet_is_a_sentence(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that is no UTF-8, a gateway's page say, is none of the service's."""
    page = requests.Response()
    page.status_code, page._content = 200, "<html>Zugriff verweigert: Schlüssel</html>".encode("latin-1")
    with monkeypatch.context() as patch:
        patch.setattr(requests.Session, "send", lambda *_, **__: page)
        with pytest.raises(UnavailableError, match="does not answer as it should"):
            instance.serial()


def test_an_operation_that_is_not_known_any_more_says_nothing_about_its_thing(
    session: Session, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was to be removed is not taken for gone because the operation is: it stays in the ledger."""
    real = requests.Session.send

    def send(self: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        answer = real(self, request, **options)
        if "/operations/" in str(request.url):
            answer.status_code, answer._content = 404, b'{"error": {"code": 404, "message": "not found"}}'
        elif request.method == "DELETE":
            answer._content = answer.content.replace(b'"DONE"', b'"RUNNING"')
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(requests.Session, "send", send)
        with pytest.raises(SlowError, match="not known any more"):
            instance.delete()
    assert instance.thing in session._ledger.things


@pytest.mark.parametrize("body", [b"1", b"[]", b'{"error": "busy"}', b"[" * 100_000])
def test_an_error_in_a_form_of_its_own_is_a_sentence(session: Session, body: bytes) -> None:
    """Who answers with another JSON than Google's, say a gateway, is not there just now; a bug is a bug."""
    response = requests.Response()
    response.status_code, response._content = 502, body
    response.request = requests.Request("GET", "http://127.0.0.1/").prepare()
    with pytest.raises(UnavailableError, match="asking: the service does not answer as it should"):
        session.cloud.ask("asking", lambda: raise_for(response), patience=0.0)
    with pytest.raises(AttributeError):
        session.cloud.ask("asking", lambda: response.no_such_thing)  # type: ignore[attr-defined]


DISABLED = (
    "Compute Engine API has not been used in project 12 before or it is disabled. Enable it by visiting "
    "https://console.developers.google.com/apis/api/compute.googleapis.com/overview?project=12 then retry."
)


@pytest.mark.parametrize(
    ("reason", "said", "kind", "hint"),
    [
        ("forbidden", "Required 'compute.images.create' permission for 'projects/p'", DeniedError, "storageAdmin"),
        (
            "forbidden",
            "ci@p.iam.gserviceaccount.com does not have storage.buckets.get access.",
            DeniedError,
            "storage.",
        ),
        ("forbidden", "Nothing that has a name.", DeniedError, "docs/gce.md"),
        ("accessNotConfigured", DISABLED, DisabledError, "gcloud services enable"),
        ("forbidden", DISABLED, DisabledError, "gcloud services enable"),
        ("forbidden", "This API method requires billing to be enabled.", BillingError, "gcloud billing"),
        ("forbidden", "The project to be billed is associated with a closed billing account.", BillingError, "gcloud"),
        (
            "conditionNotMet",
            "'us' violates constraint 'constraints/gcp.resourceLocations'",
            PolicyError,
            "docs/gce.md",
        ),
        ("conditionNotMet", "Request violates constraint compute.requireShieldedVm.", PolicyError, "--secure-boot"),
        (
            "forbidden",
            'Operation denied by org policy on resource \'v\': ["constraints/compute.managed.vmExternalIpAccess": ""]',
            PolicyError,
            "--gce-internal",
        ),
        (
            "forbidden",
            'Operation denied by custom org policy on resource \'v\': ["customConstraints/custom.labels": "no"]',
            PolicyError,
            "docs/gce.md",
        ),
        (
            "forbidden",
            "Request is prohibited by organization's policy. vpcServiceControlsUniqueIdentifier: VQQn",
            PolicyError,
            "perimeter",
        ),
        ("quotaExceeded", "Quota 'CPUS_ALL_REGIONS' exceeded. Limit: 12.0 globally.", QuotaError, "all regions"),
        ("quotaExceeded", "Quota 'CPUS' exceeded. Limit: 8.0 in region us-east1.", QuotaError, "another region"),
        ("required", "Bucket is a requester pays bucket but no user project provided.", DeniedError, ""),
        (
            "forbidden",
            "Permission denied on 'locations/us-central1-z' (or it may not exist).",
            PlaceError,
            "zones list",
        ),
    ],
)
def test_a_refusal_of_the_cloud_itself_has_a_hint_that_fits(
    session: Session, reason: str, said: str, kind: type[CloudError], hint: str
) -> None:
    """Its host's name has the form of a permission, and stands before what was said; not every 403 is about one."""
    response = requests.Response()
    response.status_code = 403
    error = {"code": 403, "message": said, "errors": [{"reason": reason, "message": said}]}
    response._content = json.dumps({"error": error}).encode()
    response.request = requests.Request("POST", "https://compute.googleapis.com/compute/v1/projects/p").prepare()
    with pytest.raises(kind) as caught:
        session.cloud.ask("asking", lambda: raise_for(response), patience=0.0)
    assert (kind, f"asking: {kind.why}{said.rstrip('.')}") == (type(caught.value), caught.value.message)
    assert hint in str(caught.value.hint)
    assert "googleapis.com comes with" not in str(caught.value.hint)


def raise_for(response: requests.Response) -> None:
    """Raise what Google's library makes of an answer."""
    raise from_http_response(response)  # type: ignore[no-untyped-call]


def test_nobody_listens_is_a_sentence(settings: Settings) -> None:
    """An endpoint of this host where nobody listens is told at once: nobody comes later."""
    cloud = Cloud(Settings.find(endpoint="http://127.0.0.1:1"), Pace(poll=60.0, patience=3600.0))
    with pytest.raises(AbsentError, match="nobody serves"):
        cloud.read("looking", cloud.images.get, {"project": "emulated", "image": "img"})
