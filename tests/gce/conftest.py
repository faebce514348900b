"""Shared by the tests of Compute Engine: an emulator whose machines only say that they boot, and real clients."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.emulator.conftest import archive
from vmtests.emulator import Emulator
from vmtests.emulator.fake import FakeHypervisor
from vmtests.gce import tokens
from vmtests.gce.cloud import Cloud, Pace
from vmtests.gce.instance import Instance, Order, insert
from vmtests.gce.session import Session
from vmtests.gce.settings import Settings
from vmtests.gce.things import Thing
from vmtests.gce.upload import make_image, upload
from vmtests.resources import cache_dir
from vmtests.sizes import GIB

FAST = Pace(poll=0.01, patience=1.0, answer=10.0, operation=10.0, grace=0.03)
ZONES = ("us-central1-a", "us-central1-b")


@pytest.fixture(scope="session")
def real_cache() -> Path:
    """The cache of this run, with its tools, found before any test takes another."""
    return cache_dir()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMTESTS_CACHE", str(tmp_path / "cache"))
    for name in ("PROJECT", "ZONES", "BUCKET", "ENDPOINT"):
        monkeypatch.delenv(f"VMTESTS_GCE_{name}", raising=False)


@pytest.fixture
def hypervisor() -> FakeHypervisor:
    """Machines that only say that they boot."""
    return FakeHypervisor()


@pytest.fixture
def emulator(hypervisor: FakeHypervisor) -> Iterator[Emulator]:
    """An emulator with fake machines."""
    with Emulator(hypervisor=hypervisor) as made:
        yield made


@pytest.fixture
def settings(emulator: Emulator) -> Settings:
    """Settings for the emulator."""
    return Settings.find(endpoint=emulator.endpoint, zones=ZONES)


@pytest.fixture
def cloud(settings: Settings) -> Cloud:
    """The clients of somebody else, who looks."""
    return Cloud(settings, FAST)


@pytest.fixture
def session(settings: Settings) -> Iterator[Session]:
    """A run that waits for nothing longer than it must."""
    with Session(settings, pace=FAST) as made:
        yield made


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """An archive with an empty disk."""
    path = tmp_path / "disk.tar.gz"
    path.write_bytes(archive())
    return path


@pytest.fixture
def image(session: Session, packed: Path) -> Thing:
    """An image that was made of it."""
    return make_image(session, upload(session, packed, "disk"), "disk")


def order(image: Thing) -> Order:
    """Return an order of an instance."""
    return Order(
        image=f"projects/{image.project}/global/images/{image.name}",
        machine="e2-small",
        disk_size=2 * GIB,
        lifetime=3600.0,
        metadata={"ssh-keys": "root:ssh-ed25519 AAAA"},
    )


@pytest.fixture
def instance(session: Session, image: Thing) -> Instance:
    """An instance that runs."""
    return insert(session, order(image), session.brand.name("vm"), session.settings.zones)


def everything(emulator: Emulator) -> dict[str, list[str]]:
    """Return the names of all that there is, by kind."""
    base = f"{emulator.endpoint}/compute/v1/projects/emulated"
    found: dict[str, list[str]] = {"images": _names(f"{base}/global/images")}
    for kind in ("instances", "disks"):
        scopes = _get(f"{base}/aggregated/{kind}").get("items", {})
        found[kind] = [item["name"] for scope in scopes.values() for item in scope.get(kind, [])]
    buckets = _names(f"{emulator.endpoint}/storage/v1/b?project=emulated")
    found["objects"] = [name for bucket in buckets for name in _names(f"{emulator.endpoint}/storage/v1/b/{bucket}/o")]
    return {kind: names for kind, names in found.items() if names}


def _names(url: str) -> list[str]:
    return [item["name"] for item in _get(url).get("items", [])]


def _get(url: str) -> Any:
    base = "/".join(url.split("/")[:3])
    with urllib.request.urlopen(urllib.request.Request(url, headers=tokens.headers(base)), timeout=10) as answer:
        return json.load(answer)
