"""What clients and guests ask of the emulator, and what was recorded of the cloud."""

import atexit
import base64
import functools
import hashlib
import io
import os
import secrets
import tempfile
import threading
from contextlib import suppress
from email.message import Message
from pathlib import Path
from unittest import mock

import google_crc32c

from tests.emulator.conftest import Client
from tests.trials.fuzz.limits import Parser
from vmtests.emulator import Emulator
from vmtests.emulator.content import parse_hash_header
from vmtests.emulator.fake import FakeHypervisor
from vmtests.emulator.gateway import parse_user
from vmtests.emulator.http import ApiError, Request
from vmtests.emulator.metadata import Metadata
from vmtests.errors import VmtestsError
from vmtests.gce import record
from vmtests.gce.settings import Settings

_ZONE = b"/compute/v1/projects/proj/zones/us-central1-a"


@functools.cache
def _emulator() -> Emulator:
    directory = tempfile.TemporaryDirectory()
    with mock.patch.dict(os.environ, VMTESTS_CACHE=directory.name):
        emulator = Emulator(hypervisor=FakeHypervisor())
        emulator.__enter__()
    Client(emulator).image()
    atexit.register(directory.cleanup)
    atexit.register(emulator.__exit__, None, None, None)
    return emulator


def _request(data: bytes) -> Request:
    """Read a request as it comes over a line, leniently: method and target, headers, an empty line, the body."""
    head, _, body = data.partition(b"\n\n")
    first, *rest = head.decode("latin-1").split("\n")
    words = first.split()
    headers = Message()
    for line in rest[:50]:
        name, colon, value = line.partition(":")
        if colon and name.isascii() and name.isprintable():
            headers[name] = value.strip()
    target = words[1] if len(words) > 1 else "/"
    return Request.of(words[0] if words else "GET", target, headers, io.BytesIO(body))


def _api(data: bytes) -> None:
    emulator = _emulator()
    wrong: list[object] = []
    with (
        mock.patch.object(threading, "excepthook", wrong.append),
        mock.patch.object(secrets, "token_urlsafe", return_value="u"),  # an upload's id
    ):
        for one in data.split(b"\n\n\n\n")[:8]:
            with suppress(ApiError):
                request = _request(one)
                # These wait, as they should, or are the emulator's own, for tests.
                if not request.path.endswith("/wait") and not request.path.startswith("/emulator/v1/"):
                    emulator.api.answer(request)
        for thread in threading.enumerate():
            if thread.name.startswith("operation-"):
                thread.join(10)
    assert not wrong, wrong


def _joined(*requests: bytes) -> bytes:
    return b"\n\n\n\n".join(requests)


_CRC = base64.b64encode(google_crc32c.value(b"hi").to_bytes(4))
_MD5 = base64.b64encode(hashlib.md5(b"hi", usedforsecurity=False).digest())
_UPLOAD = b"/upload/storage/v1/b/bkt/o?uploadType="
_REQUESTS = [
    _joined(
        b'POST /storage/v1/b?project=p\n\n{"name": "own"}',
        b"POST /upload/storage/v1/b/own/o?uploadType=media&name=a\nContent-Type: text/plain\n\nhello",
        b"GET /storage/v1/b/own/o/a?alt=media\nRange: bytes=1-2",
        b"GET /storage/v1/b/own/o?prefix=a&maxResults=1",
        b"DELETE /storage/v1/b/own/o/a",
        b"DELETE /storage/v1/b/own",
    ),
    (b"POST " + _UPLOAD + b"multipart\nContent-Type: multipart/related; boundary=x\n\n"
    b'--x\r\nContent-Type: a/b\r\n\r\n{"name": "a"}\r\n--x\r\nContent-Type: a/b\r\n\r\ndata\r\n--x--\r\n'),
    _joined(
        b"POST " + _UPLOAD + b'resumable&name=a\nX-Upload-Content-Length: 2\n\n{"metadata": {"a": "b"}}',
        b"PUT " + _UPLOAD + b"resumable&upload_id=u\nContent-Range: bytes 0-1/2\nX-Goog-Hash: crc32c="
        + _CRC + b",md5=" + _MD5 + b"\n\nhi",
    ),
    _joined(
        b"POST " + _ZONE + b'/instances\n\n{"name": "vm", "machineType": "zones/us-central1-a/machineTypes/e2-small", '
        b'"disks": [{"boot": true, "initializeParams": {"sourceImage": "global/images/img"}}], "metadata": '
        b'{"items": [{"key": "a", "value": "b"}]}, "networkInterfaces": [{"accessConfigs": [{}]}], '
        b'"scheduling": {"provisioningModel": "SPOT"}, "labels": {"a": "b"}, "tags": {"items": ["x"]}}',
        b"GET " + _ZONE + b"/instances/vm/serialPort?port=1&start=0",
        b"DELETE " + _ZONE + b"/instances/vm",
    ),
    _joined(
        b"POST " + _ZONE + b'/disks\n\n{"name": "d", "sizeGb": "10", "type": "pd-ssd"}',
        b"GET " + _ZONE + b"/disks?filter=name%3Dd+AND+sizeGb%3E1&maxResults=1&orderBy=creationTimestamp+desc",
        b"DELETE " + _ZONE + b"/disks/d",
    ),
    _joined(
        b'POST /compute/v1/projects/proj/global/images\n\n{"name": "own", "rawDisk": {"source": '
        b'"https://storage.googleapis.com/bkt/disk.tar.gz"}, "guestOsFeatures": [{"type": "UEFI_COMPATIBLE"}]}',
        b"GET /compute/v1/projects/proj/global/images/own",
        b"DELETE /compute/v1/projects/proj/global/images/own",
    ),
    (b"POST /batch/compute/v1\nContent-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: application/http\n"
    b"Content-ID: <a>\n\nGET /compute/v1/projects/proj/zones HTTP/1.1\n\n\n--x--\n"),
    b"GET /v2/projects/p/policies/compute.x:getEffectivePolicy\n\n",
]  # fmt: skip


def _metadata(data: bytes) -> None:
    written: dict[str, dict[str, str]] = {"a": {"b": "c"}}
    tree = {"instance": {"attributes": {"a": "b"}, "disks": [{"deviceName": "x"}], "id": 1}, "project": {}}
    server = Metadata(threading.Condition(), lambda: tree, lambda: written, threading.Event())
    request = _request(data)
    for call in (
        lambda: None if request.flag("wait_for_change") else server.answer(request),
        lambda: parse_user(data.decode("utf-8", "replace")),
        lambda: parse_hash_header(data.decode("utf-8", "replace")),
    ):
        with suppress(ApiError):
            call()


_ASKED = [
    b"GET /computeMetadata/v1/instance/disks/0/?recursive=true&alt=text\nMetadata-Flavor: Google\n\n",
    b"PUT /computeMetadata/v1/instance/guest-attributes/a/b\nMetadata-Flavor: Google\n\nvalue",
    b"p.us-central1-a.vm.root.port=1.replay-lines=20",
    b"crc32c=AAAAAA==,md5=1B2M2Y8AsgTpgAmY7PhCfg==",
]


def _recording(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        (path := Path(directory, "recording")).write_bytes(data)
        with suppress(VmtestsError):
            record.read(path)
    scrubber = record.Scrubber(Settings.find(endpoint="http://127.0.0.1:1", project="secret-project"))
    scrubber.body(data, None)
    said = scrubber.text(data.decode("utf-8", "replace"))
    scrubber.headers({"location": said[:2000]})


_RECORDED = [
    (
        b'{"vmtests": "a recording of Compute Engine", "version": 1}\n{"method": "GET", "path": "/p", '
        b'"status": 200, "answer": {"a": [1]}, "t": 0.1}\n'
    ),
    b'{"email": "somebody@example.org", "projects/secret-project": "10.0.0.1 8.8.8.8 ya29.a", "projectNumber": "1"}',
    b"https://compute.googleapis.com/compute/v1/projects/secret-project/zones?key=x&upload_id=y",
]

CLOUDS = {
    "the emulator's API": Parser(call=_api, good=lambda: _REQUESTS, slow=True),
    "metadata server": Parser(call=_metadata, good=lambda: _ASKED, may=(ApiError,)),
    "recordings of the cloud": Parser(call=_recording, good=lambda: _RECORDED, found=(b"https://[x/?upload_id=y",)),
}
"""By what they read."""
