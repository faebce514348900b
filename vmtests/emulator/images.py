"""Images: made of an archive in Cloud Storage, as Compute Engine makes them; their blocks are shared by all disks."""

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vmtests.emulator import naming
from vmtests.emulator.http import ApiError, Json, Request, Route, invalid, not_found
from vmtests.emulator.listing import listed
from vmtests.emulator.naming import Place, check_fingerprint, check_name, parse_link, set_labels
from vmtests.emulator.objects import Objects, Stored
from vmtests.emulator.operations import Cloud, Operations
from vmtests.errors import InputError
from vmtests.image.unpack import compute_engine
from vmtests.sizes import GIB, format_size

_TAKEN = ("description", "family", "guestOsFeatures", "licenses", "architecture", "shieldedInstanceInitialState")


@dataclass(slots=True, kw_only=True)
class Image:
    """An image: its resource, and its raw disk, which is whole once the image is READY."""

    place: Place
    resource: Json
    path: Path


class Images:
    """All images; their disks are files in `directory`."""

    def __init__(self, cloud: Cloud, operations: Operations, objects: Objects, directory: Path) -> None:
        self._cloud = cloud
        self._operations = operations
        self._objects = objects
        self._directory = directory
        self._numbers = itertools.count()
        self._images: dict[Place, Image] = {}

    def routes(self) -> Iterator[Route]:
        """The methods of images."""
        template, once = "projects/{project}/global/images", self._operations.once
        yield Route("compute.images.list", "GET", template, self._list)
        yield Route("compute.images.insert", "POST", template, once(self._insert))
        yield Route("compute.images.get", "GET", f"{template}/{{image}}", self._get)
        yield Route("compute.images.delete", "DELETE", f"{template}/{{image}}", once(self._delete))
        yield Route("compute.images.setLabels", "POST", f"{template}/{{resource}}/setLabels", once(self._set_labels))
        yield Route("compute.images.getFromFamily", "GET", f"{template}/family/{{family}}", self._from_family)

    def ready(self, link: object, project: str) -> Image:
        """Return the image that a link names, to make a disk of; raises ApiError."""
        place = parse_link(link, "images", project=project)
        with self._cloud.changed:
            if place.name.startswith("family/"):
                image = self._newest(place.project, place.name.partition("/")[2])
            else:
                image = self._find(place)
            if image.resource["status"] != "READY":
                raise ApiError(400, "resourceNotReady", f"The resource '{image.place.path}' is not ready")
            return image

    def _find(self, place: Place) -> Image:
        if (image := self._images.get(place)) is not None:
            return image
        for other in self._images.values():
            if other.place.project == place.project and other.resource["id"] == place.name:
                return other
        raise not_found(place.path)

    def _newest(self, project: str, family: str) -> Image:
        found = [
            image
            for place, image in self._images.items()
            if place.project == project and image.resource.get("family") == family
        ]
        if not found:
            raise not_found(f"projects/{project}/global/images/family/{family}")
        return max(found, key=lambda image: str(image.resource["creationTimestamp"]))

    def _place(self, request: Request, name: str) -> Place:
        return Place(project=request.params["project"], zone=None, collection="images", name=name)

    def _insert(self, request: Request) -> Json:
        given = request.json()
        place = self._place(request, check_name(given.get("name")))
        if place in self._images:
            raise ApiError(409, "alreadyExists", f"The resource '{place.path}' already exists")
        image = Image(
            place=place,
            resource={
                "kind": "compute#image",
                "id": naming.new_id(),
                "creationTimestamp": naming.now(),
                "name": place.name,
                "selfLink": self._cloud.link(place.path),
                "sourceType": "RAW",
                "status": "PENDING",
                **{name: given[name] for name in _TAKEN if given.get(name)},
            },
            path=self._directory / f"{next(self._numbers)}.raw",
        )
        set_labels(image.resource, given.get("labels"))
        fill = self._filler(given, image)
        self._images[place] = image

        def work() -> None:
            try:
                fill()
            except InputError as error:
                raise invalid("resource.rawDisk.source", given["rawDisk"]["source"], error.message) from error
            with self._cloud.changed:
                image.resource["status"] = "READY"

        return self._operations.begin(
            request, "insert", place, image.resource["id"], work, undo=lambda: self._forget(image)
        )

    def _filler(self, given: Json, image: Image) -> Callable[[], None]:
        """Return what makes the disk of an image; raises ApiError where there is no source."""
        raw = given.get("rawDisk")
        if isinstance(raw, dict):
            stored = self._objects.source(raw.get("source"))
            image.resource["rawDisk"] = {"source": raw.get("source"), "containerType": "TAR"}
            # Held open: the object may be deleted while it is read.
            descriptor = os.open(stored.path, os.O_RDONLY | os.O_CLOEXEC)
            return lambda: self._unpack(image, stored, descriptor)
        if source := given.get("sourceImage"):
            other = self.ready(source, image.place.project)
            image.resource["sourceImage"] = other.resource["selfLink"]
            image.resource["sourceImageId"] = other.resource["id"]
            return lambda: self._share(image, other)
        raise invalid("resource.rawDisk", None, "one of rawDisk and sourceImage is needed here")

    def _unpack(self, image: Image, stored: Stored, descriptor: int) -> None:
        try:
            target = os.open(image.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                # The checks are what the page on requirements for imported images says.
                compute_engine(Path(stored.resource["bucket"], stored.resource["name"]), descriptor, target)
                size = os.lseek(target, 0, os.SEEK_END)
            finally:
                os.close(target)
        finally:
            os.close(descriptor)
        if size % GIB:
            raise InputError(f"the disk has {format_size(size)}, which is not a whole number of GiB")
        with self._cloud.changed:
            image.resource["diskSizeGb"] = str(size // GIB)
            image.resource["archiveSizeBytes"] = stored.resource["size"]

    def _share(self, image: Image, other: Image) -> None:
        os.link(other.path, image.path)
        with self._cloud.changed:
            for name in ("diskSizeGb", "archiveSizeBytes"):
                image.resource[name] = other.resource[name]
            for name in ("guestOsFeatures", "architecture"):
                if name in other.resource:
                    image.resource.setdefault(name, other.resource[name])

    def _forget(self, image: Image) -> None:
        with self._cloud.changed:
            self._images.pop(image.place, None)
        image.path.unlink(missing_ok=True)

    def _get(self, request: Request) -> Json:
        with self._cloud.changed:
            return dict(self._find(self._place(request, request.params["image"])).resource)

    def _from_family(self, request: Request) -> Json:
        with self._cloud.changed:
            return dict(self._newest(request.params["project"], request.params["family"]).resource)

    def _delete(self, request: Request) -> Json:
        image = self._find(self._place(request, request.params["image"]))
        image.resource["status"] = "DELETING"
        return self._operations.begin(
            request, "delete", image.place, image.resource["id"], lambda: self._forget(image)
        )

    def _set_labels(self, request: Request) -> Json:
        given = request.json()
        image = self._find(self._place(request, request.params["resource"]))
        check_fingerprint(given.get("labelFingerprint"), image.resource["labelFingerprint"])
        set_labels(image.resource, given.get("labels"))
        return self._operations.begin(request, "setLabels", image.place, image.resource["id"], lambda: None)

    def _list(self, request: Request) -> Json:
        project = request.params["project"]
        with self._cloud.changed:
            items = [dict(image.resource) for place, image in self._images.items() if place.project == project]
        return listed(request, "compute#imageList", items, self._cloud.link(f"projects/{project}/global/images"))
