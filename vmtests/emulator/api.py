"""All APIs behind one address: Compute v1, Cloud Storage v1, batches, tokens, and the emulator's own."""

import re
from collections.abc import Iterable, Iterator

import msgspec

from vmtests.emulator import batch
from vmtests.emulator.faults import Fault
from vmtests.emulator.http import ApiError, Json, Reply, Request, Route, Router
from vmtests.emulator.instances import Instances
from vmtests.emulator.objects import Objects
from vmtests.emulator.operations import Cloud
from vmtests.emulator.timers import Timers
from vmtests.emulator.uploads import Uploads

_BATCH = re.compile(r"/batch(/(?:compute|storage)/v1)?")
_TOKEN_SECONDS = 3600


def storage_routes(objects: Objects, uploads: Uploads) -> tuple[Iterator[Route], Iterator[Route], Iterator[Route]]:
    """Return the routes of Cloud Storage: plain, of uploads, and of downloads."""

    def plain() -> Iterator[Route]:
        yield Route("storage.buckets.list", "GET", "b", objects.list_buckets)
        yield Route("storage.buckets.insert", "POST", "b", objects.insert_bucket)
        yield Route("storage.buckets.get", "GET", "b/{bucket}", objects.get_bucket)
        yield Route("storage.buckets.patch", "PATCH", "b/{bucket}", objects.patch_bucket)
        yield Route("storage.buckets.delete", "DELETE", "b/{bucket}", objects.delete_bucket)
        yield Route("storage.buckets.getStorageLayout", "GET", "b/{bucket}/storageLayout", objects.layout)
        yield Route("storage.managedFolders.list", "GET", "b/{bucket}/managedFolders", objects.managed_folders)
        yield Route("storage.objects.list", "GET", "b/{bucket}/o", objects.list)
        yield Route("storage.objects.get", "GET", "b/{bucket}/o/{object}", objects.get)
        yield Route("storage.objects.patch", "PATCH", "b/{bucket}/o/{object}", objects.patch)
        yield Route("storage.objects.delete", "DELETE", "b/{bucket}/o/{object}", objects.delete)
        template = "b/{destinationBucket}/o/{destinationObject}/compose"
        yield Route("storage.objects.compose", "POST", template, objects.compose)

    def upload() -> Iterator[Route]:
        yield Route("storage.objects.insert", "POST", "b/{bucket}/o", uploads.post)
        # Further requests of a resumable upload, which discovery documents do not tell of.
        yield Route("storage.objects.insert", "PUT", "b/{bucket}/o", uploads.put)
        yield Route("storage.objects.insert", "DELETE", "b/{bucket}/o", uploads.delete)

    def download() -> Iterator[Route]:
        yield Route("storage.objects.get", "GET", "b/{bucket}/o/{object}", objects.download)

    return plain(), upload(), download()


class Api:
    """Answers every request that reaches the emulator's address."""

    def __init__(
        self,
        cloud: Cloud,
        compute: Iterable[Route],
        storage: tuple[Iterable[Route], Iterable[Route], Iterable[Route]],
        admin: Iterable[Route],
    ) -> None:
        self._cloud = cloud
        plain, upload, download = storage
        self.routers = (
            Router(("/compute/v1/", "/compute/beta/"), [*compute, *cloud.law.network_routes()]),
            Router(("/storage/v1/",), plain),
            Router(("/upload/storage/v1/", "/resumable/upload/storage/v1/"), upload),
            Router(("/download/storage/v1/",), download),
            Router(("/v2/",), cloud.law.policy_routes()),
        )
        self._admin = Router(("/emulator/v1/",), admin)

    def answer(self, request: Request) -> Reply:
        """Answer a request; errors become replies."""
        try:
            if _BATCH.fullmatch(request.path):
                return batch.answer(request, self.answer)
            if found := self._admin.find(request):
                return _reply(found[0].handler(found[1]))
            if (early := self._cloud.faults.before(request)) is not None:
                return early
            reply = self._route(request)
        except ApiError as error:
            reply = error.reply()
        except OSError as error:
            reply = ApiError(500, "backendError", f"Internal error: {error.strerror}").reply()
        return self._cloud.faults.after(request, reply)

    def _route(self, request: Request) -> Reply:
        if request.path == "/token" and request.method == "POST":
            return _token(request)
        for router in self.routers:
            if found := router.find(request):
                self._cloud.law.permit(*found)
                return _reply(found[0].handler(found[1]))
        raise ApiError(404, "notFound", f"Not Found: the emulator has no {request.method} {request.path}")


def _reply(answer: Json | Reply) -> Reply:
    return answer if isinstance(answer, Reply) else Reply.of(answer)


def _token(request: Request) -> Reply:
    """Give a token for whatever is asserted: the emulator lets everybody in."""
    request.body.read()
    return Reply.of({"access_token": "ya29.emulator", "expires_in": _TOKEN_SECONDS, "token_type": "Bearer"})


class Admin:
    """The emulator's own API, below `/emulator/v1/`: faults, and what a cloud does to its customers."""

    def __init__(self, cloud: Cloud, instances: Instances, timers: Timers, about: Json) -> None:
        self._cloud = cloud
        self._instances = instances
        self._timers = timers
        self._facts = about

    def routes(self) -> Iterator[Route]:
        """The methods, whose ids are in no discovery document."""
        yield Route("emulator.get", "GET", "about", self._about)
        yield Route("emulator.faults.list", "GET", "faults", self._faults)
        yield Route("emulator.faults.insert", "POST", "faults", self._add)
        yield Route("emulator.faults.clear", "DELETE", "faults", self._clear)
        yield Route("emulator.faults.delete", "DELETE", "faults/{fault}", self._clear)
        yield from self._cloud.law.routes()
        yield Route("emulator.clock.advance", "POST", "clock", self._advance)
        yield Route("emulator.instances.preempt", "POST", "instances/{instance}/preempt", self._preempt)
        yield Route("emulator.instances.wrapSerial", "POST", "instances/{instance}/wrapSerial", self._wrap)

    def _about(self, request: Request) -> Json:
        del request
        return self._facts

    def _faults(self, request: Request) -> Json:
        del request
        return {"items": [msgspec.to_builtins(fault) for fault in self._cloud.faults.listed()]}

    def _add(self, request: Request) -> Json:
        try:
            fault = msgspec.convert(request.json(), Fault)
        except msgspec.ValidationError as error:
            raise ApiError(400, "invalid", f"Not a fault: {error}") from error
        answer: Json = msgspec.to_builtins(self._cloud.faults.add(fault))
        return answer

    def _clear(self, request: Request) -> Reply:
        self._cloud.faults.clear(request.params.get("fault"))
        return Reply(status=204)

    def _advance(self, request: Request) -> Json:
        seconds = request.json().get("seconds")
        if not isinstance(seconds, int | float) or seconds < 0:
            raise ApiError(400, "invalid", "The clock goes forward only: seconds is a number of seconds.")
        self._timers.advance(seconds)
        return {}

    def _preempt(self, request: Request) -> Json:
        self._instances.preempt(self._instances.named(request.params["instance"]))
        return {}

    def _wrap(self, request: Request) -> Json:
        self._instances.wrap_serial(self._instances.named(request.params["instance"]))
        return {}
