"""What clients and guests ask of the emulator, and what was recorded of the cloud."""

import atexit
import functools
import io
import os
import tempfile
import threading
from contextlib import suppress
from email.message import Message
from pathlib import Path
from unittest import mock

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

_ZONE = b"/compute/v1/projects/p/zones/us-central1-a"


@functools.cache
def _emulator() -> Emulator:
    directory = tempfile.TemporaryDirectory()
    with mock.patch.dict(os.environ, VMTESTS_CACHE=directory.name):
        emulator = Emulator(hypervisor=FakeHypervisor())
        emulator.__enter__()
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
    for one in data.split(b"\n\n\n\n")[:8]:
        with suppress(ApiError):
            request = _request(one)
            # These wait, as they should, or are the emulator's own, for tests.
            if not request.path.endswith("/wait") and not request.path.startswith("/emulator/v1/"):
                emulator.api.answer(request)


_REQUESTS = [
    b"\n\n\n\n".join((
        b'POST /storage/v1/b?project=p\n\n{"name": "bkt"}',
        b"POST /upload/storage/v1/b/bkt/o?uploadType=media&name=a\nContent-Type: text/plain\n\nhello",
        b"GET /storage/v1/b/bkt/o/a?alt=media\nRange: bytes=1-2\n\n",
        b"DELETE /storage/v1/b/bkt/o/a\n\n",
        b"DELETE /storage/v1/b/bkt\n\n",
    )),
    (b"POST /upload/storage/v1/b/bkt/o?uploadType=multipart\nContent-Type: multipart/related; boundary=x\n\n"
    b'--x\r\n\r\n{"name": "a"}\r\n--x\r\nContent-Type: a/b\r\n\r\ndata\r\n--x--\r\n'),
    (b"PUT /upload/storage/v1/b/bkt/o?uploadType=resumable&upload_id=1\nContent-Range: bytes 0-1/2\n"
    b"X-Goog-Hash: crc32c=AAAAAA==,md5=1B2M2Y8AsgTpgAmY7PhCfg==\n\nhi"),
    b"POST " + _ZONE + b'/instances\n\n{"name": "vm", "machineType": "zones/us-central1-a/machineTypes/e2-small", '
    b'"disks": [{"boot": true, "initializeParams": {"sourceImage": "global/images/img"}}], "metadata": {"items": []}}',
    b"POST " + _ZONE + b'/disks\n\n{"name": "d", "sizeGb": "10", "type": "pd-ssd"}\n\n\n\nGET '
    + _ZONE + b"/disks?filter=name%3Dd+AND+sizeGb%3E1&maxResults=1&orderBy=creationTimestamp+desc\n\n",
    (b'POST /compute/v1/projects/p/global/images\n\n{"name": "img", "rawDisk": {"source": '
    b'"https://storage.googleapis.com/bkt/disk.tar.gz"}, "guestOsFeatures": [{"type": "UEFI_COMPATIBLE"}]}'),
    (b"POST /batch/compute/v1\nContent-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: application/http\n"
    b"Content-ID: <a>\n\nGET /compute/v1/projects/p/zones HTTP/1.1\n\n\n--x--\n"),
    b"GET /v2/projects/p/policies/compute.x:getEffectivePolicy\n\n",
]  # fmt: skip


def _metadata(data: bytes) -> None:
    written: dict[str, dict[str, str]] = {"a": {"b": "c"}}
    tree = {"instance": {"attributes": {"a": "b"}, "disks": [{"deviceName": "x"}], "id": 1}, "project": {}}
    server = Metadata(threading.Condition(), lambda: tree, lambda: written, threading.Event())
    request = _request(data)
    if not request.flag("wait_for_change"):
        server.answer(request)
    parse_user(data.decode("utf-8", "replace"))
    parse_hash_header(data.decode("utf-8", "replace"))


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
