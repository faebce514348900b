"""Images: what is taken, and what is refused."""

from pathlib import Path

import pytest

from tests.emulator.conftest import GLOBAL, PROJECT, Client, archive
from vmtests.sizes import GIB, MIB


def test_image_has_the_size_of_its_disk(client: Client) -> None:
    """An image made of an archive is READY, as large as the disk in it, and found by its family."""
    client.image(family="fam", labels={"run": "r1"})
    image = client.json("GET", f"{GLOBAL}/images/family/fam")
    assert ("img", "READY", "1", {"run": "r1"}) == tuple(
        image[name] for name in ("name", "status", "diskSizeGb", "labels")
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (archive(member="other.raw"), "disk.raw"),
        (archive(size=GIB + MIB), "whole number of GiB"),
        (b"no archive", "damaged"),
        (archive()[:40], "truncated"),
    ],
    ids=["other member", "no whole GiB", "no gzip", "cut off"],
)
def test_wrong_archive_is_refused(client: Client, data: bytes, said: str) -> None:
    """An archive that Compute Engine would not import ends the operation with an error, and leaves no image."""
    client.upload("bad.tar.gz", data)
    body = {"name": "img", "rawDisk": {"source": "gs://bkt/bad.tar.gz"}}
    operation = client.done(client.json("POST", f"{GLOBAL}/images", body))
    assert 400 == operation["httpErrorStatusCode"]
    assert said in operation["error"]["errors"][0]["message"]
    assert "items" not in client.json("GET", f"{GLOBAL}/images")


@pytest.mark.parametrize(
    "source",
    [
        "gs://bkt/disk.tar.gz",
        "https://storage.googleapis.com/bkt/disk.tar.gz",
        "https://www.googleapis.com/storage/v1/b/bkt/o/disk.tar.gz",
        "http://127.0.0.1:1/storage/v1/b/bkt/o/disk.tar.gz",
    ],
)
def test_source_is_named_in_any_form(client: Client, source: str) -> None:
    """The archive is found by every form of link that clients send."""
    assert "error" not in client.image(rawDisk={"source": source})


def test_missing_source_is_refused_at_once(client: Client) -> None:
    """An image of an object that is not there is refused before anything is begun."""
    client.json("POST", f"{GLOBAL}/images", {"name": "img", "rawDisk": {"source": "gs://bkt/none"}})
    assert 404 == client.status
    client.json("POST", f"{GLOBAL}/images", {"name": "img"})
    assert 400 == client.status


def test_deleted_image_leaves_no_file(client: Client, cache: Path) -> None:
    """The blocks of an image go with it, unless a disk shares them."""
    client.image()
    files = list((cache / "emulator").rglob("*.raw"))
    assert 1 == len(files)
    disk = {"name": "d", "sourceImage": f"projects/{PROJECT}/global/images/img"}
    zone = f"/compute/v1/projects/{PROJECT}/zones/us-central1-a"
    client.done(client.json("POST", f"{zone}/disks", disk))
    client.done(client.json("DELETE", f"{GLOBAL}/images/img"))
    (left,) = (cache / "emulator").rglob("*.raw")
    assert GIB == left.stat().st_size
    client.done(client.json("DELETE", f"{zone}/disks/d"))
    assert not list((cache / "emulator").rglob("*.raw"))
