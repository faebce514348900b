"""Runs: nothing is made before the ledger knows, and nothing is left."""

import errno
import fcntl
import json
import os
import random
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.gce.conftest import FAST, everything, order
from vmtests.emulator import Emulator
from vmtests.emulator.faults import Fault, FaultKind
from vmtests.errors import HostError
from vmtests.gce import tokens
from vmtests.gce.errors import DeniedError, ExistsError, QuotaError, StockoutError
from vmtests.gce.instance import insert
from vmtests.gce.ledger import Head, Ledger, directory
from vmtests.gce.session import LeftBehindError, Session
from vmtests.gce.settings import Settings
from vmtests.gce.things import EXPIRES_LABEL, OWNER_LABEL, RUN_LABEL, Brand, Kind, Thing
from vmtests.gce.upload import make_image, upload
from vmtests.image import archive
from vmtests.sizes import GIB, MIB


def run(session: Session, packed: Path) -> None:
    """Make one of each kind."""
    image = make_image(session, upload(session, packed, "disk"), "disk")
    insert(session, order(image), session.brand.name("vm"), session.settings.zones)


@pytest.mark.parametrize("end", [None, KeyboardInterrupt, RuntimeError])
def test_everything_is_removed_however_the_run_ends(
    emulator: Emulator, settings: Settings, packed: Path, end: type[BaseException] | None
) -> None:
    """A run that ends, is interrupted or fails leaves neither things nor a ledger."""
    seen: dict[str, list[str]] = {}

    def go() -> None:
        with Session(settings, pace=FAST) as session:
            run(session, packed)
            seen.update(everything(emulator))
            if end is not None:
                raise end

    if end is None:
        go()
    else:
        with pytest.raises(end):
            go()
    assert ["images", "instances", "disks", "objects"] == list(seen)
    assert {} == everything(emulator)
    assert [] == list(directory().iterdir())


def test_things_are_removed_in_reverse(
    settings: Settings, packed: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was made last is removed first."""
    removed: list[str] = []
    real = Session.remove

    def remove(self: Session, thing: Thing) -> None:
        removed.append(str(thing.kind))
        real(self, thing)

    monkeypatch.setattr(Session, "remove", remove)
    with Session(settings, pace=FAST) as session:
        run(session, packed)
    assert ["instance", "image", "object"] == removed


def test_everything_has_its_labels_and_a_time_limit(
    emulator: Emulator, settings: Settings, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instance, disk, image and object say whose they are and when they expire; the instance ends by itself."""
    with Session(settings, pace=FAST) as session:
        stored = upload(session, packed, "disk")
        begun = time.time()
        monkeypatch.setattr(time, "time", lambda: begun + 5000)  # for so long it was sent
        insert(session, order(make_image(session, stored, "disk")), session.brand.name("vm"), session.settings.zones)
        instance = next(iter(emulator.instances._instances.values()))
        image = session.cloud.images.get(project="emulated", image=session.brand.name("disk"))
        name = f"{session.brand.name('disk')}.tar.gz"
        blob: Any = session.cloud.storage.get_bucket(settings.bucket).get_blob(name)
        labels = [instance.resource["labels"], instance.disk.resource["labels"], dict(image.labels), blob.metadata]
    assert [{RUN_LABEL, EXPIRES_LABEL, OWNER_LABEL}] * 4 == [set(one) for one in labels]
    assert [(session.brand.run, session.brand.owner)] * 4 == [(one[RUN_LABEL], one[OWNER_LABEL]) for one in labels]
    *later, sent = [float(one[EXPIRES_LABEL]) - begun for one in labels]
    assert [8600] * 3 == [round(one, -1) for one in later]
    assert sent <= 3600
    scheduling = instance.resource["scheduling"]
    assert ("DELETE", "3600") == (scheduling["instanceTerminationAction"], scheduling["maxRunDuration"]["seconds"])
    features = {feature.type_ for feature in image.guest_os_features}
    assert {"UEFI_COMPATIBLE", "GVNIC", "VIRTIO_SCSI_MULTIQUEUE"} == features


def test_stockout_is_a_reason_for_the_next_zone(
    emulator: Emulator, session: Session, image: Thing, capsys: pytest.CaptureFixture[str]
) -> None:
    """A zone without such machines is passed over, and that is said; nothing is left in it."""
    emulator.faults.add(Fault(kind=FaultKind.STOCKOUT, zone="us-central1-a"))
    made = insert(session, order(image), session.brand.name("vm"), session.settings.zones)
    assert "us-central1-b" == made.thing.place
    assert "trying us-central1-b" in capsys.readouterr().err
    assert 1 == len(everything(emulator)["disks"])


def test_stockout_everywhere_is_an_error(emulator: Emulator, session: Session, image: Thing) -> None:
    """When no zone has one, the last zone's error is told."""
    emulator.faults.add(Fault(kind=FaultKind.STOCKOUT))
    with pytest.raises(StockoutError, match="us-central1-b"):
        insert(session, order(image), session.brand.name("vm"), session.settings.zones)


def test_quota_is_no_reason_for_the_next_zone(emulator: Emulator, session: Session, image: Thing) -> None:
    """A used-up quota ends the attempt in the first zone."""
    emulator.faults.add(Fault(kind=FaultKind.QUOTA, count=1))
    with pytest.raises(QuotaError):
        insert(session, order(image), session.brand.name("vm"), session.settings.zones)


@pytest.fixture
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of what chunks usually are, so that less makes several."""
    monkeypatch.setattr("vmtests.gce.upload._CHUNK", 4 * MIB)


@pytest.mark.usefixtures("_small_chunks")
def test_upload_in_several_chunks_arrives_whole(emulator: Emulator, session: Session, tmp_path: Path) -> None:
    """A file of several chunks is uploaded resumably, also when a chunk's answer is lost, and arrives as it was."""
    session.cloud.pace = replace(FAST, patience=20.0)
    data = bytes(range(256)) * (10 << 12)
    (path := tmp_path / "big.tar.gz").write_bytes(data)
    emulator.faults.add(Fault(kind=FaultKind.UNAVAILABLE, method="PUT", path="/upload", count=1))
    thing = upload(session, path, "big")
    assert data == downloaded(emulator, thing)


def downloaded(emulator: Emulator, thing: Thing) -> bytes:
    """Return an object's bytes."""
    url = f"{emulator.endpoint}/download/storage/v1/b/{thing.place}/o/{thing.name}?alt=media"
    with urllib.request.urlopen(
        urllib.request.Request(url, headers=tokens.headers(emulator.endpoint)), timeout=10
    ) as answer:
        return bytes(answer.read())


@pytest.mark.usefixtures("_small_chunks")
def test_disk_is_packed_on_its_way_into_the_bucket(emulator: Emulator, session: Session, tmp_path: Path) -> None:
    """A disk arrives as the archive that a file would hold, several chunks of it, also when a chunk is sent again."""
    session.cloud.pace = replace(FAST, patience=20.0)
    disk = tmp_path / "disk.raw"
    with disk.open("wb") as file:
        file.write(random.Random(1).randbytes(10 * MIB))
        file.truncate(GIB)
    emulator.faults.add(Fault(kind=FaultKind.UNAVAILABLE, method="PUT", path="/upload", count=1))
    thing = upload(session, disk, "big", disk=True)
    assert [disk] == [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix in {".gz", ".raw"}]
    archive.pack(disk, tmp_path / "file.tar.gz")
    assert (tmp_path / "file.tar.gz").read_bytes() == downloaded(emulator, thing)


@pytest.mark.usefixtures("_small_chunks")
def test_disk_that_cannot_be_read_to_its_end_leaves_no_object(
    emulator: Emulator, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half an archive is not taken for one: the upload is given up."""
    disk = tmp_path / "disk.raw"
    with disk.open("wb") as file:
        file.write(random.Random(1).randbytes(10 * MIB))
        file.truncate(GIB)
    real = os.pread

    def broken(descriptor: int, length: int, place: int) -> bytes:
        if place >= 9 * MIB:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(descriptor, length, place)

    monkeypatch.setattr(os, "pread", broken)
    with pytest.raises(HostError, match=r"disk.raw cannot be uploaded: Input/output error"):
        upload(session, disk, "big", disk=True)
    assert "objects" not in everything(emulator)


def test_bucket_of_somebody_else_is_not_taken_for_ours(emulator: Emulator, settings: Settings, packed: Path) -> None:
    """Its name is everybody's: who knows the project's may have made it first, and would get the disk."""
    body = json.dumps({"name": settings.bucket}).encode()
    headers = {"Authorization": f"Bearer {emulator.token}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{emulator.endpoint}/storage/v1/b?project=another", body, headers)
    urllib.request.urlopen(request).close()
    with Session(settings, pace=FAST) as session, pytest.raises(DeniedError, match="not known to be") as caught:
        upload(session, packed, "disk")
    assert f"--gce-bucket={settings.bucket} takes this one" in str(caught.value.hint)
    assert "objects" not in everything(emulator)
    named = Settings.find(endpoint=emulator.endpoint, bucket=settings.bucket)
    with Session(named, pace=FAST) as session:
        upload(session, packed, "disk")


def test_thing_of_a_name_that_the_run_has_is_refused_and_the_first_stays_known(
    emulator: Emulator, settings: Settings, packed: Path
) -> None:
    """Names are cut, and two may become the same: the first is still the run's, which removes it."""
    with Session(settings, pace=FAST) as session:
        source = upload(session, packed, "disk")
        make_image(session, source, "disk")
        with pytest.raises(ExistsError, match="was made by this run already"):
            make_image(session, source, "disk")
    assert {} == everything(emulator)


def test_all_is_removed_though_the_ledger_cannot_be_written(
    emulator: Emulator, settings: Settings, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a disk that is full all the others go too, and the ledger still knows what there was."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def go() -> None:
        with Session(settings, pace=FAST) as session, monkeypatch.context() as patch:
            run(session, packed)
            session._stack.callback(patch.undo)
            patch.setattr("vmtests.gce.ledger.os.fsync", full)
            patch.undo = lambda: None  # type: ignore[method-assign]

    with pytest.raises(LeftBehindError, match="No space left"):
        go()
    assert {} == everything(emulator)
    assert 1 == len(list(directory().iterdir()))


def test_line_that_a_full_disk_has_cut_takes_no_other_with_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next begins on a line of its own."""
    head = Head(brand=Brand.new(), endpoint=None)
    things = [Thing(kind=Kind.DISK, name=name, project="p", place="z") for name in "abc"]
    real, room = os.write, [3]

    def short(descriptor: int, data: bytes) -> int:
        if not room:
            return real(descriptor, data)
        if (left := room.pop()) == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room.append(0)
        return real(descriptor, data[:left])

    with Ledger.new(head) as ledger:
        ledger.will(things[0])
        monkeypatch.setattr("vmtests.gce.ledger.os.write", short)
        with pytest.raises(HostError, match="No space left"):
            ledger.will(things[1])
        ledger.will(things[2])
        path = ledger.path
    assert [things[0], things[2]] == [thing for dead in Ledger.dead() for thing in dead.things]
    assert path.exists()


def test_ledger_that_is_removed_before_it_is_locked_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """`gce gc` takes one without a lock for a dead run's; what is written to it then nobody would find."""
    real, seen = fcntl.flock, list[int]()

    def late(descriptor: int, how: int) -> None:
        if not seen:
            (path,) = directory().iterdir()
            path.unlink()
        seen.append(how)
        real(descriptor, how)

    monkeypatch.setattr("vmtests.gce.ledger.fcntl.flock", late)
    with Ledger.new(Head(brand=Brand.new(), endpoint=None)) as ledger:
        assert ledger.path.exists()
        assert 2 == len(seen)


def test_what_could_not_be_removed_is_said(
    emulator: Emulator, settings: Settings, packed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that cannot remove a thing removes the others, names it and how to remove it, and keeps its ledger."""
    emulator.faults.add(Fault(kind=FaultKind.FORBIDDEN, method="DELETE", path="/images/"))
    with (
        pytest.raises(LeftBehindError, match=r"not removed: removing the image .*gce gc"),
        Session(settings, pace=FAST) as session,
    ):
        run(session, packed)
    assert (["images"], 1) == (list(everything(emulator)), len(list(directory().iterdir())))

    def interrupted() -> None:
        with Session(settings, pace=FAST) as session:
            run(session, packed)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "not removed: removing the image" in capsys.readouterr().err
