"""Disks: qcow2 files that share the blocks of their image."""

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vmtests.emulator import naming
from vmtests.emulator.catalog import zone_scopes
from vmtests.emulator.http import ApiError, Json, Request, Route, invalid, not_found
from vmtests.emulator.hypervisor import Hypervisor
from vmtests.emulator.images import Images
from vmtests.emulator.listing import aggregated, listed
from vmtests.emulator.naming import Place, check_fingerprint, check_name, parse_link, set_labels
from vmtests.emulator.operations import Cloud, Operations
from vmtests.emulator.zones import zone_exists
from vmtests.sizes import GIB

_EMPTY_GB = 500  # what Compute Engine makes where neither a size nor an image is given
_MOST_GB = 65536


@dataclass(slots=True, kw_only=True)
class Disk:
    """A disk: its resource, its file, which is there once it is READY, and the image that it shares blocks with."""

    place: Place
    resource: Json
    path: Path
    image: Path | None
    size: int


class Disks:
    """All disks; their files are in `directory`."""

    def __init__(
        self, cloud: Cloud, operations: Operations, images: Images, hypervisor: Hypervisor, directory: Path
    ) -> None:
        self._cloud = cloud
        self._operations = operations
        self._images = images
        self._hypervisor = hypervisor
        self._directory = directory
        self._numbers = itertools.count()
        self._disks: dict[Place, Disk] = {}

    def routes(self) -> Iterator[Route]:
        """The methods of disks."""
        template, once = "projects/{project}/zones/{zone}/disks", self._operations.once
        yield Route("compute.disks.list", "GET", template, self._list)
        yield Route("compute.disks.insert", "POST", template, once(self._insert))
        yield Route("compute.disks.get", "GET", f"{template}/{{disk}}", self._get)
        yield Route("compute.disks.delete", "DELETE", f"{template}/{{disk}}", once(self._delete))
        yield Route("compute.disks.setLabels", "POST", f"{template}/{{resource}}/setLabels", once(self._set_labels))
        yield Route("compute.disks.aggregatedList", "GET", "projects/{project}/aggregated/disks", self._aggregated)

    def reserve(self, place: Place, given: Json) -> Disk:
        """Take the name of a disk and return it, without a file yet; the lock is held. Raises ApiError."""
        if place.zone is None or not zone_exists(place.zone):
            raise not_found(f"projects/{place.project}/zones/{place.zone}")
        check_name(place.name)
        if place in self._disks:
            raise ApiError(409, "alreadyExists", f"The resource '{place.path}' already exists")
        source = given.get("sourceImage")
        image = None if source is None else self._images.ready(source, place.project)
        least = 0 if image is None else int(image.resource["diskSizeGb"])
        size = _size_gb(given.get("diskSizeGb", given.get("sizeGb")), least)
        zone_link = self._cloud.link(f"projects/{place.project}/zones/{place.zone}")
        kind = str(given.get("diskType") or given.get("type") or "pd-standard").rpartition("/")[2]
        resource: Json = {
            "kind": "compute#disk",
            "id": naming.new_id(),
            "creationTimestamp": naming.now(),
            "name": place.name,
            "sizeGb": str(size),
            "zone": zone_link,
            "status": "CREATING",
            "selfLink": self._cloud.link(place.path),
            "type": f"{zone_link}/diskTypes/{kind}",
            "physicalBlockSizeBytes": "4096",
        }
        set_labels(resource, given.get("labels"))
        if image is not None:
            resource["sourceImage"] = image.resource["selfLink"]
            resource["sourceImageId"] = image.resource["id"]
            for name in ("guestOsFeatures", "licenses", "architecture"):
                if name in image.resource:
                    resource[name] = image.resource[name]
        path = self._directory / f"{next(self._numbers)}.qcow2"
        disk = Disk(place=place, resource=resource, path=path, image=None, size=size * GIB)
        if image is not None:
            # A name of its own for the same file: the image may be deleted, and its blocks stay while they are used.
            disk.image = path.with_suffix(".raw")
            os.link(image.path, disk.image)
        self._disks[place] = disk
        return disk

    def make(self, disk: Disk) -> None:
        """Make the file of a disk that was reserved; without the lock."""
        self._hypervisor.make_disk(disk.path, disk.image, disk.size)
        with self._cloud.changed:
            disk.resource["status"] = "READY"
            self._cloud.changed.notify_all()

    def remove(self, disk: Disk) -> None:
        """Delete a disk, file and name."""
        with self._cloud.changed:
            self._disks.pop(disk.place, None)
        for path in filter(None, (disk.path, disk.image)):
            path.unlink(missing_ok=True)

    def find(self, place: Place) -> Disk:
        """Return a disk by its name or number; raises ApiError."""
        with self._cloud.changed:
            if (disk := self._disks.get(place)) is not None:
                return disk
            for other in self._disks.values():
                same = (other.place.project, other.place.zone) == (place.project, place.zone)
                if same and other.resource["id"] == place.name:
                    return other
        raise not_found(place.path)

    def linked(self, link: object, *, project: str, zone: str) -> Disk:
        """Return the disk that a link names; raises ApiError."""
        return self.find(parse_link(link, "disks", project=project, zone=zone))

    def _place(self, request: Request, name: str) -> Place:
        return Place(project=request.params["project"], zone=request.params["zone"], collection="disks", name=name)

    def _insert(self, request: Request) -> Json:
        given = request.json()
        if source := request.query.get("sourceImage"):
            given["sourceImage"] = source
        disk = self.reserve(self._place(request, check_name(given.get("name"))), given)

        return self._operations.begin(
            request,
            "insert",
            disk.place,
            disk.resource["id"],
            lambda: self.make(disk),
            undo=lambda: self.remove(disk),
        )

    def _get(self, request: Request) -> Json:
        with self._cloud.changed:
            return dict(self.find(self._place(request, request.params["disk"])).resource)

    def _delete(self, request: Request) -> Json:
        disk = self.find(self._place(request, request.params["disk"]))
        if users := disk.resource.get("users"):
            message = f"The disk resource '{disk.place.path}' is already being used by '{users[0]}'"
            raise ApiError(400, "resourceInUseByAnotherResource", message)
        return self._operations.begin(request, "delete", disk.place, disk.resource["id"], lambda: self.remove(disk))

    def _set_labels(self, request: Request) -> Json:
        given = request.json()
        disk = self.find(self._place(request, request.params["resource"]))
        check_fingerprint(given.get("labelFingerprint"), disk.resource["labelFingerprint"])
        set_labels(disk.resource, given.get("labels"))
        return self._operations.begin(request, "setLabels", disk.place, disk.resource["id"], lambda: None)

    def _list(self, request: Request) -> Json:
        project, zone = request.params["project"], request.params["zone"]
        with self._cloud.changed:
            items = [
                dict(disk.resource)
                for place, disk in self._disks.items()
                if (place.project, place.zone) == (project, zone)
            ]
        return listed(request, "compute#diskList", items, self._cloud.link(f"projects/{project}/zones/{zone}/disks"))

    def _aggregated(self, request: Request) -> Json:
        project = request.params["project"]
        with self._cloud.changed:
            items = [dict(disk.resource) for place, disk in self._disks.items() if place.project == project]
        link = self._cloud.link(f"projects/{project}/aggregated/disks")
        return aggregated(
            request,
            "compute#diskAggregatedList",
            "disks",
            items,
            link,
            zone_scopes(),
            unreachable=self._cloud.law.rules.unreachable,
        )


def _size_gb(value: object, least: int) -> int:
    """Return the size of a disk in GiB; raises ApiError."""
    if value is None:
        return least or _EMPTY_GB
    try:
        size = int(str(value))
    except ValueError as error:
        raise invalid("resource.disks.diskSizeGb", value, "it is not a number") from error
    if not max(1, least) <= size <= _MOST_GB:
        raise invalid("resource.disks.diskSizeGb", value, f"must be from {max(1, least)} to {_MOST_GB}")
    return size
