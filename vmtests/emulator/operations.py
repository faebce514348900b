"""Operations: what an API call has begun, done in a thread of its own, and asked for until it is done."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from vmtests.emulator import naming
from vmtests.emulator.faults import Faults, OperationError
from vmtests.emulator.http import ApiError, Handler, Json, Reply, Request, Route, not_found
from vmtests.emulator.listing import aggregated, listed
from vmtests.emulator.naming import Place
from vmtests.emulator.rules import Law
from vmtests.errors import VmtestsError

WAIT_SECONDS = 120.0
"""Seconds that `wait` blocks at most, as the API's reference says."""

_END_SECONDS = 30.0
_REMEMBERED = 5000  # operations


@dataclass(slots=True, kw_only=True)
class Cloud:
    """What all parts of the API share: its address, the lock on its resources, and whether it is closing."""

    base: str
    """The address of Compute v1, with a slash at the end."""
    changed: threading.Condition = field(default_factory=lambda: threading.Condition(threading.RLock()))
    """Held to read or change any resource; notified when one has changed."""
    closing: threading.Event = field(default_factory=threading.Event)
    project_metadata: dict[str, Json] = field(default_factory=dict)
    """The metadata that all instances of a project have, by the project's name."""
    faults: Faults = field(default_factory=Faults)
    law: Law = field(default_factory=Law)
    """What a project may not."""

    def link(self, path: str) -> str:
        """Return the link to a resource by its name from `projects/` on."""
        return self.base + path


class Operations:
    """All operations; `begin` makes one."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._operations: dict[Place, Json] = {}
        self._by_request: dict[tuple[str, str, str], Place] = {}
        self._workers: set[threading.Thread] = set()

    def routes(self) -> Iterator[Route]:
        """The methods of zoneOperations and globalOperations."""
        for name, scope in (
            ("zoneOperations", "projects/{project}/zones/{zone}/operations"),
            ("globalOperations", "projects/{project}/global/operations"),
        ):
            yield Route(f"compute.{name}.list", "GET", scope, self._list)
            yield Route(f"compute.{name}.get", "GET", f"{scope}/{{operation}}", self._get)
            yield Route(f"compute.{name}.delete", "DELETE", f"{scope}/{{operation}}", self._delete)
            yield Route(f"compute.{name}.wait", "POST", f"{scope}/{{operation}}/wait", self._wait)
        template = "projects/{project}/aggregated/operations"
        yield Route("compute.globalOperations.aggregatedList", "GET", template, self._aggregated)

    def once(self, handler: Handler) -> Handler:
        """Return a handler that holds the lock, and answers a `requestId` it knows with what it began then."""

        def handle(request: Request) -> Json | Reply:
            # Before the lock is taken: a body that comes slowly holds up nobody else.
            request = request.read()
            request_id = request.query.get("requestId")
            key = (request.method, request.path, str(request_id))
            with self._cloud.changed:
                if request_id is not None and key in self._by_request:
                    return dict(self._operations[self._by_request[key]])
                answer = handler(request)
                if request_id is not None and isinstance(answer, dict):
                    self._by_request[key] = self._place(request.params["project"], answer)
                return answer

        return handle

    def begin(
        self,
        request: Request,
        action: str,
        target: Place,
        target_id: str,
        work: Callable[[], None],
        *,
        undo: Callable[[], None] | None = None,
    ) -> Json:
        """Begin an operation on `target` and return it; `work` is done in another thread, without the lock.

        What `work` raises as ApiError or OperationError becomes the operation's error; then `undo` is called.
        """
        cloud, zone = self._cloud, target.zone
        number = naming.new_id()
        name = f"operation-{int(time.time() * 1000)}-{int(number):x}"
        place = Place(project=target.project, zone=zone, collection="operations", name=name)
        operation: Json = {
            "kind": "compute#operation",
            "id": number,
            "name": name,
            "operationType": action,
            "targetLink": cloud.link(target.path),
            "targetId": target_id,
            "status": "PENDING",
            "user": "emulator@example.com",
            "progress": 0,
            "insertTime": naming.now(),
            "selfLink": cloud.link(place.path),
        }
        if zone is not None:
            operation["zone"] = cloud.link(f"projects/{target.project}/zones/{zone}")
        worker = threading.Thread(
            target=self._run, args=(request, operation, zone, work, undo), name=name, daemon=True
        )
        with cloud.changed:
            self._operations[place] = operation
            self._workers.add(worker)
            self._forget_oldest()
        worker.start()
        return dict(operation)

    def close(self) -> None:
        """Wait for what is being done; the cloud is closing, so that it ends soon."""
        deadline = time.monotonic() + _END_SECONDS
        for worker in list(self._workers):
            worker.join(max(0.0, deadline - time.monotonic()))

    def _run(
        self,
        request: Request,
        operation: Json,
        zone: str | None,
        work: Callable[[], None],
        undo: Callable[[], None] | None,
    ) -> None:
        cloud = self._cloud
        # What is not caught below is a bug of ours: the operation ends with this, and the thread with a traceback.
        end: Json = _error(OperationError(500, "INTERNAL_ERROR", "Internal error."))
        try:
            self._update(operation, {"status": "RUNNING", "startTime": naming.now()})
            cloud.closing.wait(cloud.faults.delay(request))
            fault = cloud.faults.operation(request, operation["operationType"].rpartition(".")[2], zone)
            if fault is not None:
                raise fault
            work()
            end = {}
        except OperationError as error:
            end = _error(error)
        except ApiError as error:
            end = _error(OperationError(error.status, _code(error), error.message))
        except VmtestsError as error:
            end = _error(OperationError(500, "INTERNAL_ERROR", str(error)))
        finally:
            if end and undo is not None:
                undo()
            self._update(operation, {**end, "status": "DONE", "progress": 100, "endTime": naming.now()})
            self._workers.discard(threading.current_thread())

    def _update(self, operation: Json, change: Json) -> None:
        with self._cloud.changed:
            operation.update(change)
            self._cloud.changed.notify_all()

    def _forget_oldest(self) -> None:
        if len(self._operations) <= _REMEMBERED:
            return
        place = next((place for place, one in self._operations.items() if one["status"] == "DONE"), None)
        if place is None:
            return
        del self._operations[place]
        self._by_request = {key: value for key, value in self._by_request.items() if value != place}

    def _place(self, project: str, operation: Json) -> Place:
        zone = operation.get("zone")
        return Place(
            project=project,
            zone=None if zone is None else zone.rpartition("/")[2],
            collection="operations",
            name=operation["name"],
        )

    def _find(self, request: Request) -> tuple[Place, Json]:
        params = request.params
        place = Place(
            project=params["project"], zone=params.get("zone"), collection="operations", name=params["operation"]
        )
        operation = self._operations.get(place)
        if operation is None:
            # A number takes the place of the name.
            for known, candidate in self._operations.items():
                if candidate["id"] == place.name and (known.project, known.zone) == (place.project, place.zone):
                    return known, candidate
            raise not_found(place.path)
        return place, operation

    def _get(self, request: Request) -> Json:
        with self._cloud.changed:
            return dict(self._find(request)[1])

    def _delete(self, request: Request) -> Reply:
        with self._cloud.changed:
            place, _ = self._find(request)
            del self._operations[place]
            self._by_request = {key: value for key, value in self._by_request.items() if value != place}
        return Reply(status=204)

    def _wait(self, request: Request) -> Json:
        with self._cloud.changed:
            operation = self._find(request)[1]
            self._cloud.changed.wait_for(
                lambda: operation["status"] == "DONE" or self._cloud.closing.is_set(), WAIT_SECONDS
            )
            return dict(operation)

    def _list(self, request: Request) -> Json:
        project, zone = request.params["project"], request.params.get("zone")
        scope = "global" if zone is None else f"zones/{zone}"
        link = self._cloud.link(f"projects/{project}/{scope}/operations")
        return listed(request, "compute#operationList", self._of(project, zone), link)

    def _aggregated(self, request: Request) -> Json:
        project = request.params["project"]
        with self._cloud.changed:
            items = [dict(value) for place, value in self._operations.items() if place.project == project]
        link = self._cloud.link(f"projects/{project}/aggregated/operations")
        return aggregated(request, "compute#operationAggregatedList", "operations", items, link, ["global"])

    def _of(self, project: str, zone: str | None) -> list[Json]:
        with self._cloud.changed:
            return [
                dict(value)
                for place, value in self._operations.items()
                if (place.project, place.zone) == (project, zone)
            ]


class _Nothing:
    def read(self, limit: int = -1, /) -> bytes:
        del limit
        return b""


NO_REQUEST = Request(method="POST", path="", body=_Nothing())
"""What operations come from that nobody asked for."""

_CODES = {404: "RESOURCE_NOT_FOUND", 409: "RESOURCE_ALREADY_EXISTS", 412: "CONDITION_NOT_MET"}
_SENTENCES = {400: "BAD REQUEST", 403: "FORBIDDEN", 404: "NOT FOUND", 409: "CONFLICT", 503: "SERVICE UNAVAILABLE"}


def _code(error: ApiError) -> str:
    if error.reason == "resourceInUseByAnotherResource":
        return "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE"
    return _CODES.get(error.status, "INVALID_USAGE")


def _error(fault: OperationError) -> Json:
    item: Json = {"code": fault.code, "message": fault.message}
    if fault.details:
        item["errorDetails"] = fault.details
    if fault.bare:
        return {"error": {"errors": [item]}}
    return {
        "error": {"errors": [item]},
        "httpErrorStatusCode": fault.status,
        "httpErrorMessage": _SENTENCES.get(fault.status, "INTERNAL SERVER ERROR"),
    }
