"""Faults: each is met by the call that it is meant for, in Compute Engine's words, and is used up."""

import http.client
import threading
import urllib.error
from typing import Any

import pytest

from tests.emulator.conftest import ZONAL, Client, instance

FAULTS = "/emulator/v1/faults"


@pytest.fixture
def ready(client: Client) -> Client:
    """A client of an emulator that has an image."""
    client.image()
    return client


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ({"kind": "stockout", "zone": "us-central1-a"}, 503, "ZONE_RESOURCE_POOL_EXHAUSTED"),
        ({"kind": "quota", "metric": "CPUS"}, 403, "QUOTA_EXCEEDED"),
        ({"kind": "operation-error", "code": "INTERNAL_ERROR"}, 500, "INTERNAL_ERROR"),
        ({"kind": "bare-error", "code": "INTERNAL_ERROR"}, None, "INTERNAL_ERROR"),
    ],
)
def test_operation_ends_with_an_error(ready: Client, fault: dict[str, Any], status: int | None, code: str) -> None:
    """A fault of an operation is told by the operation, and the instance is not there; the next one is."""
    ready.json("POST", FAULTS, {**fault, "count": 1})
    failed = ready.instance()
    assert (status, code) == (failed.get("httpErrorStatusCode"), failed["error"]["errors"][0]["code"])
    assert "items" not in ready.json("GET", f"{ZONAL}/instances")
    assert "items" not in ready.json("GET", f"{ZONAL}/disks")
    assert "error" not in ready.instance()


def test_quota_error_names_the_quota(ready: Client) -> None:
    """The error of a quota has the metric, its limit and the region."""
    ready.json("POST", FAULTS, {"kind": "quota", "metric": "SSD_TOTAL_GB", "count": 1})
    info = ready.instance()["error"]["errors"][0]["errorDetails"][0]["quotaInfo"]
    assert ("compute.googleapis.com/ssd_total_gb", {"region": "us-central1"}) == (
        info["metricName"],
        info["dimensions"],
    )


def test_stockout_is_of_one_zone(ready: Client) -> None:
    """A zone without capacity does not keep another from having some."""
    ready.json("POST", FAULTS, {"kind": "stockout", "zone": "us-east1-b"})
    assert "error" not in ready.instance()


@pytest.mark.parametrize(
    ("kind", "status", "reason"),
    [
        ("unauthorized", 401, "authError"),
        ("forbidden", 403, "forbidden"),
        ("rate-limit", 403, "rateLimitExceeded"),
        ("unavailable", 503, "backendError"),
    ],
)
def test_request_is_refused(ready: Client, kind: str, status: int, reason: str) -> None:
    """A refused request is not carried out; what the fault does not fit is, and so is the next one."""
    ready.json("POST", FAULTS, {"kind": kind, "count": 1, "method": "POST", "path": "/instances"})
    ready.json("GET", f"{ZONAL}/instances")
    assert 200 == ready.status
    answer = ready.json("POST", f"{ZONAL}/instances", instance())
    assert (status, reason) == (ready.status, answer["error"]["errors"][0]["reason"])
    assert "items" not in ready.json("GET", f"{ZONAL}/instances")
    ready.json("POST", f"{ZONAL}/instances", instance())
    assert 200 == ready.status


def test_forbidden_names_the_permission(ready: Client) -> None:
    """A 403 says which permission is missing, to people and to programs."""
    ready.json("POST", FAULTS, {"kind": "forbidden", "permission": "compute.instances.list"})
    error = ready.json("GET", f"{ZONAL}/instances")["error"]
    assert "compute.instances.list" in error["message"]
    assert {"permission": "compute.instances.list"} == error["details"][0]["metadata"]


@pytest.mark.parametrize(("kind", "made"), [("drop", 1), ("refuse", 0)])
def test_connection_is_dropped(ready: Client, kind: str, made: int) -> None:
    """A dropped connection leaves the request carried out or not, as was asked for."""
    ready.json("POST", FAULTS, {"kind": kind, "count": 1, "method": "POST", "path": "/instances"})
    with pytest.raises((http.client.HTTPException, urllib.error.URLError, ConnectionError)):
        ready.json("POST", f"{ZONAL}/instances", instance())
    assert made == len(ready.json("GET", f"{ZONAL}/instances").get("items", []))


def test_answer_is_held_until_the_fault_is_removed(ready: Client) -> None:
    """A held request is carried out, and its answer comes when the fault is removed."""
    fault = ready.json("POST", FAULTS, {"kind": "hold", "count": 1, "method": "POST", "path": "/instances"})
    other = Client(ready.emulator)
    waiting = threading.Thread(target=other.json, args=("POST", f"{ZONAL}/instances", instance()))
    waiting.start()
    cloud = ready.emulator.instances._cloud
    with cloud.changed:
        assert cloud.changed.wait_for(lambda: ready.emulator.instances._instances, 10)
    assert (True, 0) == (waiting.is_alive(), other.status)
    ready.ask("DELETE", f"{FAULTS}/{fault['id']}")
    waiting.join(10)
    assert 200 == other.status


def test_faults_are_listed_and_cleared(ready: Client) -> None:
    """Faults are listed with how often they were met, and go when they are cleared; what is none is refused."""
    ready.json("POST", FAULTS, {"kind": "unavailable", "count": 2})
    ready.json("GET", f"{ZONAL}/instances")
    assert [("unavailable", 1)] == [(one["kind"], one["used"]) for one in ready.json("GET", FAULTS)["items"]]
    ready.ask("DELETE", FAULTS)
    assert [] == ready.json("GET", FAULTS)["items"]
    for wrong in ({"kind": "earthquake"}, {"kind": "slow", "secs": 1}, {}):
        ready.json("POST", FAULTS, wrong)
        assert 400 == ready.status
