"""Removing what dead runs left: what their ledgers say at once, and by labels what has expired."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from filelock import FileLock

from vmtests.gce.cloud import Cloud
from vmtests.gce.errors import CloudError, NotFoundError
from vmtests.gce.ledger import Ledger
from vmtests.gce.remove import remove
from vmtests.gce.settings import ask_directly
from vmtests.gce.things import PREFIX, RUN_LABEL, Kind, Thing, expiry
from vmtests.resources import cache_dir
from vmtests.text import split_url

_ORDER = (Kind.INSTANCE, Kind.DISK, Kind.IMAGE, Kind.OBJECT)
_PAGE = 500


class Fate(StrEnum):
    """What becomes of a thing that was found."""

    REMOVED = "removed"
    GONE = "gone already"
    WOULD = "would be removed"
    KEPT = "kept until it expires"
    FAILED = "not removed"
    OTHERS = "left alone"
    UNSEEN = "not seen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A thing that was found: by whom, and what became of it; `why` says why it was not removed."""

    thing: Thing
    by: str
    fate: Fate
    why: str = ""

    def __str__(self) -> str:
        return f"{self.thing}: {self.fate} ({self.by}){f': {self.why}' if self.why else ''}"


def reap(cloud: Cloud, now: float, *, dry_run: bool = False) -> Iterator[Found]:
    """Remove what dead runs have left at the endpoint, and what has expired at `now` (second of the epoch).

    A thing that cannot be removed does not keep others from it. Raises CloudError when nothing can be asked for.
    """
    seen: set[Thing] = set()
    # A ledger that another reaper looks at is locked as if its owner lived, and each would leave what both name.
    with FileLock(cache_dir() / "gce-gc.lock"):
        for found in _by_ledgers(cloud, dry_run=dry_run):
            seen.add(found.thing)
            yield found
    for kind in _ORDER:
        for thing, expires in _LISTS[kind](cloud):
            if expires is None:
                yield Found(thing=thing, by="its labels", fate=Fate.UNSEEN, why="the zone did not answer")
                continue
            if thing in seen:
                continue
            if expires > now:
                yield Found(thing=thing, by="its labels", fate=Fate.KEPT)
            elif dry_run:
                yield Found(thing=thing, by="its labels", fate=Fate.WOULD)
            else:
                yield _remove(cloud, thing, by="its labels", unsure=False)


def _by_ledgers(cloud: Cloud, *, dry_run: bool) -> Iterator[Found]:
    for ledger in Ledger.dead():
        endpoint = ledger.head.endpoint
        if endpoint != cloud.settings.endpoint:
            if endpoint is not None and not _answers(endpoint):
                # An emulator that has ended took everything with it.
                for thing in ledger.things:
                    ledger.gone(thing)
            continue
        by = f"the ledger of run {ledger.head.brand.run}"
        if others := sorted({thing.project for thing in ledger.things} - {cloud.settings.project}):
            # Another login may be needed there, and "not found" would mean nothing.
            for thing in ledger.things:
                why = f"it is in the project {others[0]}: vmtests gce gc --gce-project={others[0]}"
                yield Found(thing=thing, by=by, fate=Fate.OTHERS, why=why)
            continue
        shared = ledger.named_by_others()
        for thing in reversed(ledger.things):
            if thing in shared:
                # Another process of the run has it still, and will remove it.
                if not dry_run:
                    ledger.gone(thing)
                continue
            if dry_run:
                yield Found(thing=thing, by=by, fate=Fate.WOULD)
                continue
            found = _remove(cloud, thing, by=by, unsure=ledger.unsure(thing))
            if found.fate is not Fate.FAILED:
                ledger.gone(thing)
            yield found


def _remove(cloud: Cloud, thing: Thing, *, by: str, unsure: bool) -> Found:
    try:
        there = remove(cloud, thing, unsure=unsure)
    except CloudError as error:
        return Found(thing=thing, by=by, fate=Fate.FAILED, why=error.message)
    return Found(thing=thing, by=by, fate=Fate.REMOVED if there else Fate.GONE)


def _answers(endpoint: str) -> bool:
    """Whether an emulator listens there."""
    import requests

    ask_directly(split_url(endpoint).hostname or "")
    try:
        requests.get(f"{endpoint}/emulator/v1/about", timeout=5)
    except requests.ConnectionError:
        return False
    except requests.RequestException:
        return True
    return True


def _instances(cloud: Cloud) -> Iterator[tuple[Thing, float | None]]:
    yield from _aggregated(cloud, Kind.INSTANCE, cloud.instances.aggregated_list, "instances")


def _disks(cloud: Cloud) -> Iterator[tuple[Thing, float | None]]:
    yield from _aggregated(cloud, Kind.DISK, cloud.disks.aggregated_list, "disks")


def _aggregated(
    cloud: Cloud, kind: Kind, method: Callable[..., Any], collection: str
) -> Iterator[tuple[Thing, float | None]]:
    project = cloud.settings.project
    request = {"project": project, "filter": f"labels.{RUN_LABEL}:*"}
    what = f"listing the {collection} of all zones"
    unseen: dict[str, None] = {}
    for page in cloud.ask(what, lambda: list(_call(cloud, method, request).pages)):
        unseen.update(dict.fromkeys(page.unreachables))
        for scope, scoped in page.items.items():
            if scoped.warning.code not in ("", "NO_RESULTS_ON_PAGE"):
                unseen[scope] = None
            for item in getattr(scoped, collection):
                if (expires := expiry(item.labels)) is not None:
                    yield Thing(kind=kind, name=item.name, project=project, place=scope.rpartition("/")[2]), expires
    for place in dict.fromkeys(scope.rpartition("/")[2] for scope in unseen):
        # A list that is not whole ("UNREACHABLE") says nothing about what is missing in it.
        yield Thing(kind=kind, name="*", project=project, place=place), None


def _images(cloud: Cloud) -> Iterator[tuple[Thing, float | None]]:
    project = cloud.settings.project
    request = {"project": project, "filter": f"labels.{RUN_LABEL}:*"}
    for item in cloud.ask("listing the images", lambda: list(_call(cloud, cloud.images.list, request))):
        if (expires := expiry(item.labels)) is not None:
            yield Thing(kind=Kind.IMAGE, name=item.name, project=project), expires


def _objects(cloud: Cloud) -> Iterator[tuple[Thing, float | None]]:
    project, bucket = cloud.settings.project, cloud.settings.bucket
    what = f"listing the objects of gs://{bucket}"

    def listed() -> list[Any]:
        blobs = cloud.storage.list_blobs(bucket, prefix=f"{PREFIX}-", retry=None, timeout=cloud.pace.answer)
        return list(blobs)

    try:
        blobs = cloud.ask(what, listed)
    except NotFoundError:
        return
    for blob in blobs:
        if (expires := expiry(blob.metadata or {})) is not None:
            yield Thing(kind=Kind.OBJECT, name=blob.name, project=project, place=bucket), expires


def _call(cloud: Cloud, method: Callable[..., Any], request: dict[str, Any]) -> Any:
    return method(request={**request, "max_results": _PAGE}, retry=None, timeout=cloud.pace.answer)


_LISTS: dict[Kind, Callable[[Cloud], Iterator[tuple[Thing, float | None]]]] = {
    Kind.INSTANCE: _instances,
    Kind.DISK: _disks,
    Kind.IMAGE: _images,
    Kind.OBJECT: _objects,
}
