"""Buckets and objects of Cloud Storage; the content of an object is a file, never in memory."""

import base64
import itertools
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

from vmtests.emulator import naming
from vmtests.emulator.content import Content
from vmtests.emulator.http import ApiError, FilePart, Json, Reply, Request, invalid

_BUCKET_NAME = re.compile(r"[a-z0-9][-_.a-z0-9]{1,220}[a-z0-9]")
_NAME_BYTES = 1024
_PAGE = 1000
_COMPONENTS = 32
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_SOURCES = (
    re.compile(r"gs://(?P<bucket>[^/]+)/(?P<object>.+)"),
    re.compile(r"https?://[^/]+/(?:download/)?storage/v1/b/(?P<bucket>[^/]+)/o/(?P<object>[^?]+).*"),
    re.compile(r"https?://storage\.googleapis\.com/(?P<bucket>[^/]+)/(?P<object>[^?]+)"),
)
# Set by the service, or by nobody: what a client sends of them is not kept.
_BUCKET_OWN = {
    *("kind", "id", "selfLink", "projectNumber", "metageneration", "timeCreated", "updated", "etag"),
    *("generation", "softDeleteTime", "hardDeleteTime", "locationType"),
}
_OBJECT_TAKEN = ("contentType", "cacheControl", "contentDisposition", "contentEncoding", "contentLanguage", "metadata")


@dataclass(slots=True, kw_only=True)
class Stored:
    """An object: its resource, and the file with its content."""

    resource: Json
    path: Path


@dataclass(slots=True, kw_only=True)
class _Bucket:
    resource: Json
    project: str
    objects: dict[str, Stored] = field(default_factory=dict)


class Objects:
    """All buckets with their objects; may be used from any thread. Contents are files in `directory`."""

    def __init__(self, directory: Path, endpoint: str) -> None:
        self._directory = directory
        self._base = f"{endpoint}/storage/v1/"
        self._download = f"{endpoint}/download/storage/v1/"
        self._lock = threading.RLock()
        self._buckets: dict[str, _Bucket] = {}
        self._numbers = itertools.count()
        self._generation = 0

    def new_content(self) -> Content:
        """Return an empty content, to be written and then put."""
        return Content(self._directory / f"{next(self._numbers)}")

    # Buckets.

    def insert_bucket(self, request: Request) -> Json:
        """Make a bucket (`storage.buckets.insert`)."""
        given = request.json()
        name = given.get("name")
        if not isinstance(name, str) or not _BUCKET_NAME.fullmatch(name):
            raise ApiError(400, "invalid", f"Invalid bucket name: '{name}'")
        project = request.query.get("project", "")
        with self._lock:
            if name in self._buckets:
                message = "Your previous request to create the named bucket succeeded and you already own it."
                raise ApiError(409, "conflict", message)
            now = naming.storage_now()
            resource: Json = {
                **{key: value for key, value in given.items() if key not in _BUCKET_OWN},
                "kind": "storage#bucket",
                "id": name,
                "selfLink": f"{self._base}b/{name}",
                "projectNumber": str(naming.project_number(project)),
                "metageneration": "1",
                "location": str(given.get("location", "US")).upper(),
                "storageClass": given.get("storageClass", "STANDARD"),
                "timeCreated": now,
                "updated": now,
                "etag": "CAE=",
            }
            self._buckets[name] = _Bucket(resource=resource, project=project)
            return dict(resource)

    def get_bucket(self, request: Request) -> Json:
        """Return a bucket (`storage.buckets.get`)."""
        with self._lock:
            return dict(self._bucket(request).resource)

    def layout(self, request: Request) -> Json:
        """Return how a bucket is laid out (`storage.buckets.getStorageLayout`)."""
        with self._lock:
            resource = self._bucket(request).resource
        return {
            "kind": "storage#storageLayout",
            "bucket": resource["name"],
            "location": resource["location"],
            "locationType": "multi-region" if len(resource["location"]) <= len("ASIA") else "region",
            "hierarchicalNamespace": {"enabled": False},
        }

    def managed_folders(self, request: Request) -> Json:
        """List the managed folders of a bucket, of which there are none (`storage.managedFolders.list`)."""
        with self._lock:
            self._bucket(request)
        return {"kind": "storage#managedFolders"}

    def patch_bucket(self, request: Request) -> Json:
        """Change a bucket (`storage.buckets.patch`); what is null is removed."""
        given = request.json()
        with self._lock:
            resource = self._bucket(request).resource
            _change(resource, {key: value for key, value in given.items() if key not in _BUCKET_OWN | {"name"}})
            return dict(resource)

    def list_buckets(self, request: Request) -> Json:
        """List the buckets of a project (`storage.buckets.list`)."""
        prefix = request.query.get("prefix", "")
        with self._lock:
            found = [
                dict(bucket.resource)
                for name, bucket in sorted(self._buckets.items())
                if name.startswith(prefix) and bucket.project == request.query.get("project", "")
            ]
        return {"kind": "storage#buckets", **({"items": found} if found else {})}

    def delete_bucket(self, request: Request) -> Reply:
        """Delete an empty bucket (`storage.buckets.delete`)."""
        with self._lock:
            if self._bucket(request).objects:
                raise ApiError(409, "conflict", "The bucket you tried to delete is not empty.")
            del self._buckets[request.params["bucket"]]
        return Reply(status=204)

    # Objects.

    def get(self, request: Request) -> Json | Reply:
        """Return an object, or with `alt=media` its content (`storage.objects.get`)."""
        if request.query.get("alt") == "media":
            return self.download(request)
        with self._lock:
            return dict(self._object(request).resource)

    def download(self, request: Request) -> Reply:
        """Return the content of an object, or the range of it that is asked for."""
        with self._lock:
            stored = self._object(request)
            resource = stored.resource
        size = int(resource["size"])
        headers = {
            "Content-Type": resource.get("contentType", "application/octet-stream"),
            "X-Goog-Hash": f"crc32c={resource['crc32c']}"
            + (f",md5={resource['md5Hash']}" if "md5Hash" in resource else ""),
            "X-Goog-Generation": resource["generation"],
            "ETag": resource["etag"],
            "Accept-Ranges": "bytes",
        }
        match = _RANGE.fullmatch(request.headers.get("Range", ""))
        if match is None or not any(match.groups()):
            return Reply(headers=headers, body=FilePart(path=stored.path, offset=0, length=size))
        first, last = match.groups()
        start = int(first) if first else max(0, size - int(last))
        end = min(int(last) + 1, size) if first and last else size
        if start >= end:
            raise ApiError(416, "requestedRangeNotSatisfiable", "The requested range cannot be satisfied.")
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        return Reply(status=206, headers=headers, body=FilePart(path=stored.path, offset=start, length=end - start))

    def patch(self, request: Request) -> Json:
        """Change what is said of an object (`storage.objects.patch`)."""
        given = request.json()
        with self._lock:
            resource = self._object(request).resource
            _change(resource, {key: value for key, value in given.items() if key in _OBJECT_TAKEN})
            return dict(resource)

    def list(self, request: Request) -> Json:
        """List the objects of a bucket (`storage.objects.list`), with prefix, delimiter and pages."""
        prefix, delimiter = request.query.get("prefix", ""), request.query.get("delimiter", "")
        asked = request.number("maxResults", _PAGE)
        if asked < 0:
            raise invalid("maxResults", asked, "it is negative")
        limit = min(asked or _PAGE, _PAGE)
        items: list[Json] = []
        prefixes: set[str] = set()
        answer: Json = {"kind": "storage#objects"}
        with self._lock:
            names = sorted(name for name in self._bucket(request).objects if name.startswith(prefix))
            for name in names:
                if name <= request.query.get("pageToken", ""):
                    continue
                head, found, _ = name.removeprefix(prefix).partition(delimiter) if delimiter else (name, "", "")
                if found:
                    prefixes.add(prefix + head + delimiter)
                elif len(items) == limit:
                    answer["nextPageToken"] = items[-1]["name"]
                    break
                else:
                    items.append(dict(self._buckets[request.params["bucket"]].objects[name].resource))
        if items:
            answer["items"] = items
        if prefixes:
            answer["prefixes"] = sorted(prefixes)
        return answer

    def delete(self, request: Request) -> Reply:
        """Delete an object (`storage.objects.delete`)."""
        with self._lock:
            stored = self._object(request)
            _preconditions(request, stored)
            del self._buckets[request.params["bucket"]].objects[request.params["object"]]
            stored.path.unlink(missing_ok=True)
        return Reply(status=204)

    def compose(self, request: Request) -> Json:
        """Join objects of a bucket to one (`storage.objects.compose`)."""
        given = request.json()
        bucket, name = request.params["destinationBucket"], request.params["destinationObject"]
        sources = given.get("sourceObjects")
        if not isinstance(sources, list) or not 0 < len(sources) <= _COMPONENTS:
            raise ApiError(400, "required", f"From 1 to {_COMPONENTS} source objects are needed.")
        parts = [self.find(bucket, str(source.get("name")), source.get("generation")) for source in sources]
        content = self.new_content()
        try:
            for part in parts:
                with part.path.open("rb") as file:
                    content.take(file)
            components = sum(int(part.resource.get("componentCount", 1)) for part in parts)
            destination = given.get("destination") or {}
            return self.put(request, bucket, name, destination, content, components=components)
        except BaseException:
            content.discard()
            raise

    def put(
        self, request: Request, bucket: str, name: object, given: Json, content: Content, *, components: int = 0
    ) -> Json:
        """Make an object of a whole content and return it; raises ApiError, and the content is then the caller's."""
        if not isinstance(name, str) or not 0 < len(name.encode()) <= _NAME_BYTES:
            raise ApiError(400, "required", "Required parameter: name")
        with self._lock:
            home = self._bucket_named(bucket)
            before = home.objects.get(name)
            _preconditions(request, before)
            # Microseconds, and never the same twice.
            self._generation = max(self._generation + 1, time.time_ns() // 1000)
            generation, now = str(self._generation), naming.storage_now()
            link = f"b/{bucket}/o/{quote(name, safe='')}"
            resource: Json = {
                **{key: given[key] for key in _OBJECT_TAKEN if key in given},
                "kind": "storage#object",
                "id": f"{bucket}/{name}/{generation}",
                "selfLink": self._base + link,
                "mediaLink": f"{self._download}{link}?generation={generation}&alt=media",
                "name": name,
                "bucket": bucket,
                "generation": generation,
                "metageneration": "1",
                "storageClass": home.resource["storageClass"],
                "size": str(content.size),
                "crc32c": content.crc32c,
                "etag": base64.b64encode(generation.encode()).decode(),
                "timeCreated": now,
                "updated": now,
                "timeFinalized": now,
                "timeStorageClassUpdated": now,
                **({"componentCount": components} if components else {"md5Hash": content.md5}),
            }
            content.close()
            home.objects[name] = Stored(resource=resource, path=content.path)
            if before is not None:
                before.path.unlink(missing_ok=True)
            return dict(resource)

    def find(self, bucket: str, name: str, generation: object = None) -> Stored:
        """Return an object; raises ApiError."""
        with self._lock:
            stored = self._bucket_named(bucket).objects.get(name)
            if stored is None or generation not in {None, "", stored.resource["generation"]}:
                raise ApiError(404, "notFound", f"No such object: {bucket}/{name}")
            return stored

    def source(self, link: object) -> Stored:
        """Return the object that a link names, in any of the forms that `rawDisk.source` has; raises ApiError."""
        for pattern in _SOURCES:
            if isinstance(link, str) and (match := pattern.fullmatch(link)):
                return self.find(match["bucket"], unquote(match["object"]))
        raise ApiError(400, "invalid", f"Invalid value for field 'resource.rawDisk.source': '{link}'.")

    def _bucket(self, request: Request) -> _Bucket:
        return self._bucket_named(request.params["bucket"])

    def _bucket_named(self, name: str) -> _Bucket:
        if (bucket := self._buckets.get(name)) is None:
            raise ApiError(404, "notFound", "The specified bucket does not exist.")
        return bucket

    def _object(self, request: Request) -> Stored:
        return self.find(request.params["bucket"], request.params["object"], request.query.get("generation"))


def _change(resource: Json, change: Json) -> None:
    for key, value in change.items():
        if value is None:
            resource.pop(key, None)
        elif isinstance(value, dict) and isinstance(resource.get(key), dict):
            merged = {**resource[key], **value}
            resource[key] = {name: one for name, one in merged.items() if one is not None}
        else:
            resource[key] = value
    resource["metageneration"] = str(int(resource["metageneration"]) + 1)
    resource["updated"] = naming.storage_now()


def _preconditions(request: Request, stored: Stored | None) -> None:
    generation = "0" if stored is None else stored.resource["generation"]
    tests: dict[str, Callable[[str], bool]] = {
        "ifGenerationMatch": lambda wanted: wanted == generation,
        "ifGenerationNotMatch": lambda wanted: wanted != generation,
        "ifMetagenerationMatch": lambda wanted: stored is not None and wanted == stored.resource["metageneration"],
    }
    for name, test in tests.items():
        if (wanted := request.query.get(name)) is not None and not test(wanted):
            message = "At least one of the pre-conditions you specified did not hold."
            raise ApiError(412, "conditionNotMet", message)
