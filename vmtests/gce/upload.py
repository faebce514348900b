"""Images: an archive is uploaded, or a disk as one, and Compute Engine makes an image of it."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from vmtests import progress
from vmtests.errors import InputError, from_os
from vmtests.gce.cloud import LONGEST_PAUSE, Cloud, Pace
from vmtests.gce.errors import DeniedError, NotFoundError, UnavailableError
from vmtests.gce.session import Session
from vmtests.gce.things import Kind, Thing
from vmtests.host.architecture import GUEST
from vmtests.image import archive
from vmtests.sizes import GIB, MIB, format_size

if TYPE_CHECKING:
    from google.cloud.storage import Blob

FEATURES = ("UEFI_COMPATIBLE", "GVNIC", "VIRTIO_SCSI_MULTIQUEUE")
"""What Compute Engine may rely on in the guest (`guestOsFeatures` of the API's reference)."""

_CHUNK = 16 * MIB  # of a resumable upload, kept in memory
_CHUNK_SECONDS = 120.0
_LIFECYCLE_DAYS = 1
_IMPORT_SECONDS = 120.0  # for each GiB of a disk, beyond what any operation may take


def upload(session: Session, source: Path, purpose: str, *, disk: bool = False) -> Thing:
    """Upload an archive into the bucket, resumably and with its CRC-32C checked, and return the object.

    A raw `disk` is packed as it is sent: its archive is nowhere on this host. Raises CloudError, HostError when the
    file cannot be read, InputError for a disk that Compute Engine does not take.
    """
    if disk:
        archive.check(source)
    settings = session.settings
    name = f"{session.brand.name(purpose)}.tar.gz"
    thing = Thing(kind=Kind.OBJECT, name=name, project=settings.project, place=settings.bucket)
    what = f"uploading {source.name} to gs://{settings.bucket}"
    _bucket(session)
    blob = session.cloud.storage.bucket(settings.bucket).blob(name, chunk_size=_CHUNK)
    blob.metadata = session.brand.labels()

    def send() -> None:
        try:
            with source.open("rb") as file, progress.step(what) as running:
                size = os.fstat(file.fileno()).st_size
                reached = _Reached()
                watched = _Watched(file, size, running, reached)
                pace = session.cloud.pace
                # Each part is tried again by the library itself; an attempt that failed for good is begun anew, for
                # as long as one gets further than those before it.
                session.cloud.ask(
                    what,
                    lambda: _pack(blob, source, running, reached, pace) if disk else _send(blob, watched, size, pace),
                    gone=lambda: reached.furthest,
                )
        except OSError as error:
            raise from_os(f"{source} cannot be uploaded", error) from error

    session.make(thing, send)
    return thing


def _send(blob: "Blob", file: "_Watched", size: int, pace: Pace) -> None:
    with _intact(blob):
        blob.upload_from_file(file, rewind=True, size=size, **_how(pace))


def _pack(blob: "Blob", disk: Path, running: progress.Step, reached: "_Reached", pace: Pace) -> None:
    # What fails on the way leaves the upload unfinished: no object comes of it, and it is forgotten after a week.
    with _intact(blob), blob.open("wb", chunk_size=_CHUNK, ignore_flush=True, **_how(pace)) as sink:
        archive.write(disk, cast("IO[bytes]", _Counted(sink, reached)), running)


def _how(pace: Pace) -> dict[str, Any]:
    from google.cloud.storage.retry import DEFAULT_RETRY

    retry = DEFAULT_RETRY.with_delay(initial=pace.poll, maximum=LONGEST_PAUSE).with_timeout(pace.patience)
    return {"content_type": "application/gzip", "checksum": "crc32c", "timeout": _CHUNK_SECONDS, "retry": retry}


@contextlib.contextmanager
def _intact(blob: "Blob") -> Iterator[None]:
    from google.cloud.storage.exceptions import DataCorruption

    try:
        yield
    except DataCorruption as error:
        raise UnavailableError(f"gs://{blob.bucket.name}/{blob.name} did not arrive as it was sent") from error


@dataclass(slots=True)
class _Reached:
    """How many bytes the attempt that got furthest has sent."""

    furthest: int = 0


class _Counted:
    """Takes what is packed, and notes how much it is."""

    def __init__(self, sink: IO[bytes], reached: _Reached) -> None:
        self._sink = sink
        self._reached = reached
        self._place = 0

    def write(self, data: bytes, /) -> int:
        """Write."""
        written = self._sink.write(data)
        self._place += len(data)
        self._reached.furthest = max(self._reached.furthest, self._place)
        return written

    def flush(self) -> None:
        """Flush."""
        self._sink.flush()


class _Watched:
    """A file that tells how far it was read."""

    def __init__(self, file: IO[bytes], size: int, running: progress.Step, reached: _Reached) -> None:
        self._file = file
        self._size = size
        self._running = running
        self._reached = reached

    def read(self, size: int = -1, /) -> bytes:
        """Read, and say how far."""
        data = self._file.read(size)
        place = self._file.tell()
        self._reached.furthest = max(self._reached.furthest, place)
        self._running.note(f"{place * 100 // max(self._size, 1)} % of {format_size(self._size)}")
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Seek."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()


def _bucket(session: Session) -> None:
    """Make sure that there is a bucket that forgets what is removed; on this host one is made."""
    cloud, settings = session.cloud, session.settings
    name = settings.bucket

    try:
        found = cloud.ask(
            f"looking for the bucket gs://{name}",
            lambda: cloud.storage.get_bucket(name, retry=None, timeout=cloud.pace.answer),
        )
        if settings.own_bucket:
            _need_own(cloud, name, found.project_number)
        if found.retention_period or found.default_event_based_hold:
            raise InputError(f"the bucket gs://{name} lets nobody remove what is in it", hint="--gce-bucket=NAME")
    except NotFoundError as error:
        if not settings.emulated:
            hint = f"gcloud storage buckets create gs://{name} --project={settings.project}; {lifecycle_advice(name)}"
            raise NotFoundError(f"there is no bucket gs://{name}", hint=hint, code=error.code) from error
        bucket = cloud.storage.bucket(name)
        bucket.add_lifecycle_delete_rule(age=_LIFECYCLE_DAYS)
        what = f"making the bucket gs://{name}"
        cloud.ask(what, lambda: cloud.storage.create_bucket(bucket, retry=None, timeout=cloud.pace.answer))


def _need_own(cloud: Cloud, name: str, number: int | None) -> None:
    """Raise DeniedError for a bucket of another project: names are everybody's, and anybody may have taken this one.

    A project's number is in the name of its default service account ("Service accounts", Compute Engine).
    """
    project = cloud.settings.project
    asked = cloud.read(f"looking at the project {project}", cloud.projects.get, {"project": project})
    own = asked.default_service_account.partition("-")[0]
    if str(number) != own:
        raise DeniedError(
            f"the bucket gs://{name} is not known to be the project's: it is that of project {number}",
            hint=f"--gce-bucket=NAME names another; --gce-bucket={name} takes this one, whoever has made it",
        )


def lifecycle_advice(bucket: str) -> str:
    """Return how uploads that nobody removes are removed after a day."""
    rule = f'{{"rule":[{{"action":{{"type":"Delete"}},"condition":{{"age":{_LIFECYCLE_DAYS}}}}}]}}'
    return f"echo '{rule}' > rule.json && gcloud storage buckets update gs://{bucket} --lifecycle-file=rule.json"


def make_image(session: Session, source: Thing, purpose: str, size: int = 0) -> Thing:
    """Have Compute Engine make an image of an uploaded archive, and return the image; raises CloudError.

    A disk of `size` bytes may take its time.
    """
    from google.cloud import compute_v1

    cloud, project = session.cloud, session.settings.project
    thing = Thing(kind=Kind.IMAGE, name=session.brand.name(purpose), project=project)
    body = compute_v1.Image(
        name=thing.name,
        architecture=GUEST.compute_engine,
        guest_os_features=[compute_v1.GuestOsFeature(type_=feature) for feature in FEATURES],
        labels=session.brand.labels(),
        raw_disk=compute_v1.RawDisk(
            source=f"https://storage.googleapis.com/{source.place}/{source.name}", container_type="TAR"
        ),
    )

    def insert() -> None:
        seconds = cloud.pace.operation + size / GIB * _IMPORT_SECONDS
        cloud.change(f"making the {thing}", cloud.images.insert_unary, {"image_resource": body}, seconds=seconds)

    with progress.step(f"making the {thing}"):
        session.make(thing, insert)
    return thing
