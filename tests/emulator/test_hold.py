"""A whole run on Compute Engine is recorded without its secrets, and the emulator is held against the recording."""

import functools
import json
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.gce.conftest import FAST
from vmtests import cli
from vmtests.cli import gce
from vmtests.emulator import Emulator
from vmtests.emulator.api import Api
from vmtests.emulator.fake import FakeHypervisor
from vmtests.emulator.hold import Holder
from vmtests.emulator.http import Reply, Request
from vmtests.gce import record, tokens
from vmtests.gce.cloud import Cloud
from vmtests.gce.lab import GceLab
from vmtests.gce.record import Exchange, Scrubber, read
from vmtests.gce.serialport import PollPace
from vmtests.gce.settings import Settings
from vmtests.sizes import GIB
from vmtests.testing.consoles import recording
from vmtests.testing.images import small_image

PROJECT, NUMBER = "acme-secret-project", "1234567890123"


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """An emulator with machines that only say that they boot."""
    with Emulator(hypervisor=FakeHypervisor()) as made:
        yield made


@pytest.fixture
def settings(emulator: Emulator) -> Settings:
    """Settings for the emulator."""
    return Settings.find(endpoint=emulator.endpoint)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recording of a whole `vmtests gce record`."""
    place = tmp_path_factory.mktemp("recorded")
    disk = small_image(place).path
    os.truncate(disk, GIB)
    fast = functools.partial(GceLab, pace=FAST, poll_pace=PollPace(busy=0.01, quiet=0.02))
    console = recording("reference-ready").console
    with pytest.MonkeyPatch.context() as patch, Emulator(hypervisor=FakeHypervisor(lambda _: console)) as emulator:
        patch.setattr(gce, "GceLab", fast)
        patch.setenv(tokens.VARIABLE, emulator.token)
        where = (f"--gce-endpoint={emulator.endpoint}", f"--gce-project={PROJECT}", "--gce-zone=us-central1-a")
        out = ("--quiet", f"--results={place / 'results'}", f"--to={place / 'night.jsonl'}")
        assert 0 == cli.main(["gce", "record", str(disk), *out, *where])
        text = (place / "night.jsonl").read_text(encoding="utf-8")
        assert emulator.token not in text
    return place / "night.jsonl"


def test_whole_run_is_in_the_recording(recorded: Path) -> None:
    """From the bucket to the removal of all that was made, in its order, in a file that nobody else may read."""
    asked = [f"{one.method} {one.path.partition('?')[0]}" for one in read(recorded)]
    wanted = (
        "POST /upload/storage/v1/b/BUCKET/o",
        "PUT /upload/storage/v1/b/BUCKET/o",
        "POST /compute/v1/projects/PROJECT/global/images",
        "POST /compute/v1/projects/PROJECT/zones/us-central1-a/instances",
    )
    places = [asked.index(request) for request in wanted]
    assert places == sorted(places)
    assert any(request.startswith("DELETE /compute/v1/projects/PROJECT/zones/") for request in asked)
    assert recorded.stat().st_mode & 0o777 == 0o600


def test_nothing_secret_is_in_the_recording(recorded: Path) -> None:
    """No project, no key, no token, no console and no script; the results of the run have the console."""
    text = recorded.read_text(encoding="utf-8")
    for secret in (
        PROJECT,
        "ssh-ed25519",
        "AAAA",
        "Bearer",
        "Linux version",
        "#!/",
        "authorization",
        "vmtests-ready-",
    ):
        assert secret.lower() not in text.lower()
    contents = [one.answer["contents"] for one in read(recorded) if "serialPort?" in one.path]
    assert contents
    assert all(content.endswith(" characters)") for content in contents)


def test_emulator_answers_as_it_did(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Held against its own recording the emulator differs in nothing, whatever time its operations take."""
    assert 0 == cli.main(["emulator", "--hold", str(recorded)])
    said = capsys.readouterr()
    assert said.out == ""
    assert ", 0 differences, 0 left out" in said.err.replace("\n", " ")


def test_each_answer_that_differs_is_named(
    recorded: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A field that is missing, one of another type, one more, and another status: each with its method's name."""
    real = Api.answer

    def answer(self: Api, request: Request) -> Reply:
        reply = real(self, request)
        if request.method == "GET" and request.path.endswith("/serialPort"):
            value = json.loads(bytes(reply.body))  # type: ignore[arg-type]
            del value["contents"]
            return Reply.of({**value, "start": 17, "colour": "blue"})
        if request.method == "DELETE" and "/global/images/" in request.path:
            return Reply.of({"error": {"message": "no"}}, status=403)
        return reply

    monkeypatch.setattr(Api, "answer", answer)
    assert 2 == cli.main(["emulator", "--hold", str(recorded)])
    said = capsys.readouterr().out
    wanted = (
        "compute.instances.getSerialPortOutput: the emulator's answer has no .contents (text)",
        "compute.instances.getSerialPortOutput: the emulator's answer has .colour (text), which was not recorded",
        "compute.instances.getSerialPortOutput: .start is number, and was recorded as text",
        "compute.images.delete: 200 was recorded, and the emulator answers with 403 (no)",
    )
    assert [] == [sentence for sentence in wanted if sentence not in said]
    # And who asks for the operation that was never begun is told so, as often as that was asked.
    others = [line for line in said.splitlines() if not any(sentence in line for sentence in wanted)]
    assert others
    assert all("compute.globalOperations." in line for line in others)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"projects/{PROJECT}/zones/a", "projects/PROJECT/zones/a"),
        (f"gs://{PROJECT}-vmtests/x", "gs://BUCKET/x"),
        (f"projects/{NUMBER}/x", "projects/PROJECT/x"),
        (f"consumer 'project_number:{NUMBER}'", "consumer 'project_number:0'"),
        (f"{NUMBER}-compute@developer.gserviceaccount.com did", "somebody@example.com did"),
        ("projects/host-net/global/networks/n", "projects/PROJECT-2/global/networks/n"),
        ("projects/debian-cloud/global/images/i", "projects/debian-cloud/global/images/i"),
        ("Bearer ya29.a0AfH6SM-x_y", "(token)"),
        ("eyJhbGciOi.eyJzdWIi.sig_-", "(token)"),
        ("https://x/y?X-Goog-Signature=abc&z=1", "https://x/y?X-Goog-Signature=(token)&z=1"),
        ("root:ssh-ed25519 AAAAC3Nz me@home", "root:(public key)"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----", "(key)"),
        ("in project 123456789012 before", "in project 0 before"),
        ("overview?project=123456789012 then", "overview?project=0 then"),
        ("project-owners-123456789012", "project-owners-0"),
        ("from 2600:1900:4000:1::5, at 12:34:56, of f0:e1:d2", "from 2001:db8::1, at 12:34:56, of f0:e1:d2"),
        ("violated for organizations/433637338589, folders/12.", "violated for organizations/0, folders/0."),
        ("principal://iam.googleapis.com/x/subject/repo:corp/secret was", "(principal) was"),
        ("regions/r/subnetworks/corp-secret", "regions/r/subnetworks/SUBNETWORK"),
        ("global/networks/corp", "global/networks/NETWORK"),
        ("at 34.123.45.67, from 10.128.0.2", "at 192.0.2.1, from 10.128.0.2"),
    ],
)
def test_what_leads_to_somebody_is_taken_out(text: str, expected: str) -> None:
    """Names become the same stand-ins everywhere; tokens, keys, addresses and numbers of projects are gone."""
    ours = Settings(project=PROJECT, bucket=f"{PROJECT}-vmtests", network="corp", subnetwork="corp-secret")
    scrubber = Scrubber(ours)
    assert scrubber.text(text) == expected


def test_content_is_known_by_its_length() -> None:
    """Of metadata, consoles and screens nothing but the length is kept, wherever they are in an answer."""
    scrubber = Scrubber(Settings(project=PROJECT))
    items: Any = {"metadata": {"items": [{"key": "startup-script", "value": "#!/bin/sh"}]}, "projectNumber": NUMBER}
    assert scrubber.json(items) == {
        "metadata": {"items": [{"key": "startup-script", "value": "(9 characters)"}]},
        "projectNumber": "0",
    }
    assert scrubber.json({"labels": {"vmtests-owner": "jane"}}) == {"labels": {"vmtests-owner": "somebody"}}


def test_recording_ends_with_the_disk_and_the_run_goes_on(
    emulator: Emulator, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be written down is asked for all the same, and what was made is removed."""
    path = tmp_path / "night.jsonl"
    cloud = Cloud(settings, FAST)
    with record.recording(path, settings):
        cloud.read("looking", cloud.projects.get, {"project": "emulated"})
        before = path.stat().st_size
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, limits[1]))
        try:
            assert cloud.read("looking", cloud.projects.get, {"project": "emulated"}).name == "emulated"
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, old)
        cloud.read("looking", cloud.projects.get, {"project": "emulated"})
    assert 1 == len(read(path))
    assert "the recording ends here: File too large" in capsys.readouterr().err


HEAD = '{"vmtests": "a recording of Compute Engine", "version": 1}'


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"method": "GET", "path": "@169.254.169.254/latest/api/token"}, "is no exchange"),
        ({"method": "GET", "path": "/latest/api/token"}, "is no exchange"),
        ({"method": "GET", "path": "/compute/v1/a b"}, "is no exchange"),
        ({"method": "BREW", "path": "/compute/v1/x"}, "is no exchange"),
        ({"method": "GET", "path": "/compute/v1/x", "sent": {"content-type": "a\nb"}}, "cannot be asked"),
    ],
)
def test_recording_asks_the_emulator_and_nobody_else(
    line: dict[str, Any], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A recording is sent by somebody: what it has us do is what the APIs are asked for."""
    path = tmp_path / "odd.jsonl"
    last = {"method": "GET", "path": "/compute/v1/projects/PROJECT", "status": 404}
    path.write_text("\n".join([HEAD, json.dumps({**line, "status": 200}), json.dumps(last)]), encoding="utf-8")
    assert 2 == cli.main(["emulator", "--hold", str(path)])
    said = capsys.readouterr()
    assert words in said.err
    assert "Traceback" not in said.err


def test_names_of_a_recording_are_put_in_once(emulator: Emulator) -> None:
    """What was put in is not looked at again, and what is no name is not learned."""
    holder = Holder(emulator)
    for name, ours in (("", "x"), ("operat", "operation-1"), ("operation-1", "operation-2"), ("ation-", "x" * 100)):
        holder._learn(name, ours)
    assert "/operation-1ion-9/operation-2" == holder._here("/operation-9/operation-1")


def test_recording_ends_with_the_last_whole_line(recorded: Path, tmp_path: Path) -> None:
    """Of a run that was killed all but the last line can be read."""
    cut = tmp_path / "cut.jsonl"
    cut.write_text(recorded.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    assert read(cut) == read(recorded)[:-1]


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]\n", b"\xff\xfe", b'{"vmtests": 1, "version": 99}\n'])
def test_what_is_no_recording_is_a_sentence(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another file, or one that is not there, is bad input."""
    path = tmp_path / "other"
    path.write_bytes(content)
    assert 2 == cli.main(["emulator", "--hold", str(path)])
    assert 2 == cli.main(["emulator", "--hold", str(tmp_path / "none")])
    assert "Traceback" not in capsys.readouterr().err


def test_recording_that_is_there_stays(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No recording is written over, and nothing is asked before that is said; requests is as it was afterwards."""
    before, send = recorded.read_bytes(), requests.Session.send
    assert 2 == cli.main(["gce", "record", "reference", f"--to={recorded}", "--gce-endpoint=http://127.0.0.1:1"])
    assert "is there already" in capsys.readouterr().err
    assert (recorded.read_bytes(), requests.Session.send) == (before, send)


def test_busy_cloud_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An answer that never came, or was `try again`, is nothing to hold anybody against."""
    path = tmp_path / "busy.jsonl"
    busy = [
        Exchange(method="GET", path="/compute/v1/projects/PROJECT/zones", status=status) for status in (0, 429, 503)
    ]
    lines = [
        {"vmtests": "a recording", "version": 1},
        *({"method": b.method, "path": b.path, "status": b.status} for b in busy),
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert 0 == cli.main(["emulator", "--hold", str(path)])
    assert "0 requests, 0 differences, 3 left out" in capsys.readouterr().err.replace("\n", " ")
