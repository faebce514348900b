"""Shared by the tests of the emulator: one with fake machines, a client, and an image archive."""

import gzip
import json
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from vmtests.emulator import Emulator
from vmtests.emulator.fake import FakeHypervisor
from vmtests.sizes import GIB

PROJECT, ZONE = "proj", "us-central1-a"
ZONAL = f"/compute/v1/projects/{PROJECT}/zones/{ZONE}"
GLOBAL = f"/compute/v1/projects/{PROJECT}/global"


class Client:
    """Asks an emulator, and keeps what it answers."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.status = 0
        self.headers = Message()

    def ask(self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> bytes:
        """Return the body of the answer; its status and headers are in `status` and `headers`."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        url = path if path.startswith("http") else f"{self.emulator.endpoint}{path}"
        request = urllib.request.Request(
            url,
            data=data,
            method=method,
            headers={"Authorization": f"Bearer {self.emulator.token}", **(headers or {})},
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                self.status, self.headers = answer.status, answer.headers
                content: bytes = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                self.status, self.headers = error.code, error.headers
                content = error.read()
        return content

    def json(self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> Any:
        """Return the JSON of the answer."""
        return json.loads(self.ask(method, path, body, headers) or b"null")

    def done(self, operation: Mapping[str, Any]) -> Any:
        """Wait for an operation and return it."""
        return self.json("POST", f"{operation['selfLink']}/wait", b"")

    def upload(self, name: str, data: bytes, bucket: str = "bkt") -> Any:
        """Store an object, in a bucket that is made if need be."""
        self.json("POST", f"/storage/v1/b?project={PROJECT}", {"name": bucket})
        return self.json("POST", f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}", data)

    def image(self, name: str = "img", **fields: object) -> Any:
        """Make an image of an empty disk."""
        self.upload("disk.tar.gz", archive())
        source = "https://storage.googleapis.com/bkt/disk.tar.gz"
        body = {
            "name": name,
            "guestOsFeatures": [{"type": "UEFI_COMPATIBLE"}],
            "rawDisk": {"source": source, "containerType": "TAR"},
            **fields,
        }
        return self.done(self.json("POST", f"{GLOBAL}/images", body))

    def instance(self, name: str = "vm", query: str = "", **fields: object) -> Any:
        """Make an instance and wait for the operation."""
        return self.done(self.json("POST", f"{ZONAL}/instances{query}", instance(name, **fields)))


def instance(name: str = "vm", **fields: object) -> dict[str, Any]:
    """Return the body of an insertion."""
    return {
        "name": name,
        "machineType": f"zones/{ZONE}/machineTypes/e2-small",
        "disks": [{"boot": True, "autoDelete": True, "initializeParams": {"sourceImage": "global/images/img"}}],
        "networkInterfaces": [{"accessConfigs": [{"type": "ONE_TO_ONE_NAT"}]}],
        **fields,
    }


def archive(member: str = "disk.raw", size: int = GIB) -> bytes:
    """Return an archive as Compute Engine takes it, with an empty disk in one sparse piece of a byte."""
    info = tarfile.TarInfo(member)
    info.type = tarfile.GNUTYPE_SPARSE
    info.size = 0
    head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    # The real size, and no piece (tar(5), old GNU format).
    head[483:495] = b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11)
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return gzip.compress(bytes(head) + bytes(1024))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for all tests of the emulator."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def hypervisor() -> FakeHypervisor:
    """Machines that only say that they boot."""
    return FakeHypervisor()


@pytest.fixture
def emulator(hypervisor: FakeHypervisor, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """An emulator with fake machines."""
    monkeypatch.setenv("VMTESTS_CACHE", str(cache))
    with Emulator(hypervisor=hypervisor) as made:
        yield made


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of an emulator with an image, for all tests of a file that change nothing in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VMTESTS_CACHE", str(tmp_path_factory.mktemp("shared")))
        with Emulator(hypervisor=FakeHypervisor()) as made:
            client = Client(made)
            client.image()
            yield client


@pytest.fixture
def client(emulator: Emulator) -> Client:
    """A client of the emulator."""
    return Client(emulator)
