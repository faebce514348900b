"""Cloud Storage: buckets, objects, and every way to upload one."""

import base64
import hashlib
import os
from typing import Any

import google_crc32c
import pytest

from tests.emulator.conftest import PROJECT, Client
from vmtests.emulator.content import parse_hash_header
from vmtests.emulator.http import ApiError

UPLOAD = "/upload/storage/v1/b/bkt/o"


@pytest.fixture
def bucket(client: Client) -> Client:
    """A client of an emulator that has a bucket."""
    client.json("POST", f"/storage/v1/b?project={PROJECT}", {"name": "bkt"})
    return client


def checksum(data: bytes) -> str:
    """Return the CRC-32C as Cloud Storage writes it."""
    return base64.b64encode(google_crc32c.value(data).to_bytes(4)).decode()


def content(client: Client, name: str) -> bytes:
    """Return the content of an object."""
    return client.ask("GET", f"/download/storage/v1/b/bkt/o/{name}?alt=media")


@pytest.mark.parametrize("line_end", ["\r\n", "\n"])
@pytest.mark.parametrize("quote", ['"', "'"])
@pytest.mark.parametrize("data", [b"", b"x", b"a\r\n--b--\r\n", b"\r\n\r\n", os.urandom(3 << 20)])
def test_multipart_upload(bucket: Client, data: bytes, quote: str, line_end: str) -> None:
    """What comes as one multipart body, as the Python client and as gcloud write it, is stored byte for byte."""
    boundary = "===bound=="
    head = [f"--{boundary}", "Content-Type: application/json", "", '{"name": "dir/a", "metadata": {"k": "v"}}']
    head += [f"--{boundary}", "Content-Type: text/x", "", ""]
    body = line_end.join(head).encode() + data + f"{line_end}--{boundary}--{line_end}".encode()
    headers = {"Content-Type": f"multipart/related; boundary={quote}{boundary}{quote}"}
    stored = bucket.json("POST", f"{UPLOAD}?uploadType=multipart", body, headers)
    md5 = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
    assert (str(len(data)), md5, checksum(data), "text/x", {"k": "v"}) == tuple(
        stored[name] for name in ("size", "md5Hash", "crc32c", "contentType", "metadata")
    )
    assert data == content(bucket, "dir%2Fa")


def begin(client: Client, path: str = UPLOAD, **headers: str) -> str:
    """Begin a resumable upload and return its address."""
    client.ask("POST", f"{path}?uploadType=resumable&name=big", b"{}", headers)
    assert 200 == client.status
    return str(client.headers["Location"])


@pytest.mark.parametrize("path", [UPLOAD, f"/resumable{UPLOAD}"])
def test_resumable_upload_in_chunks(bucket: Client, path: str) -> None:
    """A resumable upload takes chunks, says how much has come, and ends with the object."""
    data = os.urandom(600 << 10)
    session, first = begin(bucket, path), 512 << 10
    bucket.ask("PUT", session, data[:first], {"Content-Range": f"bytes 0-{first - 1}/{len(data)}"})
    assert (308, f"bytes=0-{first - 1}") == (bucket.status, bucket.headers["Range"])
    bucket.ask("PUT", session, b"", {"Content-Range": "bytes */*"})
    assert (308, f"bytes=0-{first - 1}") == (bucket.status, bucket.headers["Range"])
    last = {"Content-Range": f"bytes {first}-{len(data) - 1}/{len(data)}", "X-Goog-Hash": f"crc32c={checksum(data)}"}
    stored = bucket.json("PUT", session, data[first:], last)
    assert (200, str(len(data)), checksum(data)) == (bucket.status, stored["size"], stored["crc32c"])
    assert data == content(bucket, "big")
    assert stored == bucket.json("PUT", session, b"", {"Content-Range": f"bytes */{len(data)}"})


def test_resumable_upload_at_once(bucket: Client) -> None:
    """A resumable upload may come whole, without a range."""
    stored = bucket.json("PUT", begin(bucket), b"whole")
    assert ("5", b"whole") == (stored["size"], content(bucket, "big"))


def test_resumed_upload_overlaps(bucket: Client) -> None:
    """Bytes that were sent before are taken once; a chunk that leaves a gap is refused."""
    session = begin(bucket)
    bucket.ask("PUT", session, b"abcdef", {"Content-Range": "bytes 0-5/10"})
    bucket.ask("PUT", session, b"ij", {"Content-Range": "bytes 8-9/10"})
    assert 400 == bucket.status
    bucket.ask("PUT", session, b"efghij", {"Content-Range": "bytes 4-9/10"})
    assert b"abcdefghij" == content(bucket, "big")


def test_wrong_checksum_is_refused(bucket: Client) -> None:
    """An upload whose checksum does not fit is refused, and nothing is stored."""
    wrong = {"X-Goog-Hash": f"crc32c={checksum(b'other')}"}
    bucket.json("POST", f"{UPLOAD}?uploadType=media&name=a", b"data", wrong)
    assert 400 == bucket.status
    bucket.ask("PUT", begin(bucket), b"data", wrong)
    assert 400 == bucket.status
    assert "items" not in bucket.json("GET", "/storage/v1/b/bkt/o")


def test_unknown_upload_is_not_found(bucket: Client) -> None:
    """An upload that is unknown or was cancelled is 404, so that a client begins anew."""
    bucket.ask("PUT", f"{UPLOAD}?uploadType=resumable&upload_id=old", b"x")
    assert 404 == bucket.status
    session = begin(bucket)
    bucket.ask("DELETE", session)
    assert 499 == bucket.status
    bucket.ask("PUT", session, b"x")
    assert 404 == bucket.status


def test_generation_is_a_condition(bucket: Client) -> None:
    """`ifGenerationMatch=0` stores only what is not there; a generation that has gone is not found."""
    url = f"{UPLOAD}?uploadType=media&name=a"
    first = bucket.json("POST", f"{url}&ifGenerationMatch=0", b"1")
    bucket.json("POST", f"{url}&ifGenerationMatch=0", b"2")
    assert 412 == bucket.status
    second = bucket.json("POST", f"{url}&ifGenerationMatch={first['generation']}", b"3")
    bucket.json("GET", f"/storage/v1/b/bkt/o/a?generation={first['generation']}")
    assert (404, True) == (bucket.status, int(second["generation"]) > int(first["generation"]))


@pytest.mark.parametrize(
    ("asked", "got", "shown"),
    [
        ("bytes=2-4", b"234", "bytes 2-4/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=-2", b"89", "bytes 8-9/10"),
        ("bytes=5-99", b"56789", "bytes 5-9/10"),
    ],
)
def test_ranges(bucket: Client, asked: str, got: bytes, shown: str) -> None:
    """A range of an object is given as asked for."""
    bucket.upload("a", b"0123456789")
    data = bucket.ask("GET", "/storage/v1/b/bkt/o/a?alt=media", headers={"Range": asked})
    assert (206, got, shown) == (bucket.status, data, bucket.headers["Content-Range"])


def test_lists_have_folders_and_pages(bucket: Client) -> None:
    """Objects are listed by prefix, in pages, and a delimiter makes folders of them."""
    for name in ("a/1", "a/2", "b", "c"):
        bucket.upload(name, b"")

    def names(query: str) -> tuple[list[str], Any, Any]:
        answer = bucket.json("GET", f"/storage/v1/b/bkt/o?{query}")
        items = [item["name"] for item in answer.get("items", [])]
        return items, answer.get("prefixes"), answer.get("nextPageToken")

    assert (["b", "c"], ["a/"], None) == names("delimiter=%2F")
    assert (["a/1", "a/2"], None, None) == names("prefix=a%2F")
    assert (["a/1", "a/2", "b"], None, "b") == names("maxResults=3")
    assert (["c"], None, None) == names("maxResults=3&pageToken=b")
    assert (["a/1", "a/2", "b", "c"], None, None) == names("maxResults=0")


def test_composed_object(bucket: Client) -> None:
    """Objects are joined in order; the whole has its own checksum, whatever gcloud says of it, and their count."""
    for name, data in (("1", b"one"), ("2", b"two")):
        bucket.upload(name, data)
    body = {
        "sourceObjects": [{"name": "2"}, {"name": "1"}],
        "destination": {"contentType": "text/x", "crc32c": "AAAAAA=="},
    }
    made = bucket.json("POST", "/storage/v1/b/bkt/o/dir%2Fall/compose", body)
    assert (2, checksum(b"twoone"), "text/x") == (made["componentCount"], made["crc32c"], made["contentType"])
    assert b"twoone" == content(bucket, "dir%2Fall")


def test_bucket_with_objects_stays(bucket: Client) -> None:
    """A bucket is deleted only when it is empty, and made only once."""
    bucket.upload("a", b"")
    bucket.ask("DELETE", "/storage/v1/b/bkt")
    assert 409 == bucket.status
    bucket.json("POST", f"/storage/v1/b?project={PROJECT}", {"name": "bkt"})
    assert 409 == bucket.status
    bucket.ask("DELETE", "/storage/v1/b/bkt/o/a")
    bucket.ask("DELETE", "/storage/v1/b/bkt")
    bucket.json("GET", "/storage/v1/b/bkt")
    assert 404 == bucket.status


def test_replaced_and_deleted_objects_leave_no_file(bucket: Client, cache: Any) -> None:
    """The content of an object that is replaced or deleted is removed from the disk."""
    for data in (b"1", b"2"):
        bucket.upload("a", data)
    (directory,) = (cache / "emulator").glob("*/objects")
    assert 1 == len(list(directory.iterdir()))
    bucket.ask("DELETE", "/storage/v1/b/bkt/o/a")
    assert [] == list(directory.iterdir())


def test_checksum_that_is_no_base64_is_refused() -> None:
    """Whatever is in the header: one that is no ASCII, too."""
    for said in ("md5=?", "md5=é"):
        with pytest.raises(ApiError, match="x-goog-hash"):
            parse_hash_header(said)
