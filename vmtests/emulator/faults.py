"""What goes wrong on purpose.

A fault waits until a request or an operation fits it, and is used up after `count` of them. Errors are worded as
Compute Engine words them: by their codes a client has to know whose fault it is and whether another zone helps.
"""

import itertools
import threading
from enum import StrEnum

import msgspec

from vmtests.emulator.http import ApiError, Json, Reply, Request


class FaultKind(StrEnum):
    """The kinds of faults."""

    STOCKOUT = "stockout"
    """`instances.insert` and `start` in `zone` end with ZONE_RESOURCE_POOL_EXHAUSTED."""
    QUOTA = "quota"
    """`instances.insert` ends with QUOTA_EXCEEDED for `metric`."""
    UNAUTHORIZED = "unauthorized"
    """401 before anything is done."""
    FORBIDDEN = "forbidden"
    """403 for a missing `permission` before anything is done."""
    RATE_LIMIT = "rate-limit"
    """403 rateLimitExceeded before anything is done."""
    UNAVAILABLE = "unavailable"
    """503 before anything is done."""
    SLOW = "slow"
    """An operation takes `seconds` longer."""
    OPERATION_ERROR = "operation-error"
    """An operation ends with the error `code`."""
    BARE_ERROR = "bare-error"
    """The same, without httpErrorStatusCode and httpErrorMessage."""
    DROP = "drop"
    """The connection is closed without an answer, after the request was carried out."""
    REFUSE = "refuse"
    """The connection is closed without an answer, and nothing is done."""
    HOLD = "hold"
    """The request is carried out; its answer comes when the fault is removed."""


class Fault(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A fault; `count` None is for ever. `method`, `path` (a part of it) and `zone` narrow what it fits."""

    kind: FaultKind
    count: int | None = None
    method: str | None = None
    path: str = ""
    zone: str | None = None
    seconds: float = 5.0
    code: str = "INTERNAL_ERROR"
    metric: str = "CPUS"
    permission: str = "compute.instances.create"
    id: str = ""
    used: int = 0


_BEFORE = {
    FaultKind.UNAUTHORIZED,
    FaultKind.FORBIDDEN,
    FaultKind.RATE_LIMIT,
    FaultKind.UNAVAILABLE,
    FaultKind.REFUSE,
}
_AFTER = {FaultKind.DROP, FaultKind.HOLD}
_CREATES = {"insert", "start"}


class Faults:
    """The faults that wait, in the order in which they were added; may be used from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._faults: list[Fault] = []
        self._ids = itertools.count(1)
        self._closed = False

    def add(self, fault: Fault) -> Fault:
        """Add a fault and return it with its id."""
        with self._changed:
            added = msgspec.structs.replace(fault, id=str(next(self._ids)), used=0)
            self._faults.append(added)
            return added

    def listed(self) -> list[Fault]:
        """Return the faults, those that are used up too."""
        with self._changed:
            return [msgspec.structs.replace(fault) for fault in self._faults]

    def clear(self, fault_id: str | None = None) -> None:
        """Remove one fault or all of them, and let go what they hold."""
        with self._changed:
            self._faults = [fault for fault in self._faults if fault_id not in {None, fault.id}]
            self._changed.notify_all()

    def close(self) -> None:
        """Remove all faults and take no more."""
        self._closed = True
        self.clear()

    def before(self, request: Request) -> Reply | None:
        """Return the reply that takes the place of carrying out the request; raises ApiError."""
        if (fault := self._take_for(request, _BEFORE)) is None:
            return None
        if fault.kind is FaultKind.REFUSE:
            return Reply(drop=True)
        raise _refusal(fault)

    def after(self, request: Request, reply: Reply) -> Reply:
        """Return the reply that is sent, and wait until it may be."""
        fault = self._take_for(request, _AFTER)
        if fault is None:
            return reply
        if fault.kind is FaultKind.DROP:
            return Reply(drop=True)
        with self._changed:
            self._changed.wait_for(lambda: self._closed or fault not in self._faults)
        return reply

    def delay(self, request: Request) -> float:
        """Return the seconds by which the operation that a request has begun is late."""
        fault = self._take_for(request, {FaultKind.SLOW})
        return 0.0 if fault is None else fault.seconds

    def operation(self, request: Request, action: str, zone: str | None) -> "OperationError | None":
        """Return the error that the operation ends with; `action` is the last part of its type."""
        kinds = {FaultKind.OPERATION_ERROR, FaultKind.BARE_ERROR}
        if action in _CREATES and "/instances" in request.path:
            kinds |= {FaultKind.STOCKOUT, FaultKind.QUOTA}
        fault = self._take_for(request, kinds, zone)
        return None if fault is None else _operation_fault(fault, zone or "")

    def _take_for(self, request: Request, kinds: set[FaultKind], zone: str | None = None) -> Fault | None:
        with self._changed:
            for fault in self._faults:
                if (
                    fault.kind in kinds
                    and (fault.count is None or fault.used < fault.count)
                    and fault.method in {None, request.method}
                    and fault.path in request.path
                    and fault.zone in {None, zone or request.params.get("zone") or _zone_of(request.path)}
                ):
                    fault.used += 1
                    return fault
        return None


def _zone_of(path: str) -> str:
    _, _, rest = path.partition("/zones/")
    return rest.split("/")[0]


class OperationError(Exception):
    """The error of an operation, and whether the fields of HTTP go with it."""

    def __init__(self, status: int, code: str, message: str, *, bare: bool = False, details: list[Json] | None = None):
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.bare = bare
        self.details = details or []


def _refusal(fault: Fault) -> ApiError:
    if fault.kind is FaultKind.UNAUTHORIZED:
        message = (
            "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other "
            "valid authentication credential."
        )
        return ApiError(401, "authError", message)
    if fault.kind is FaultKind.FORBIDDEN:
        info = {"reason": "IAM_PERMISSION_DENIED", "domain": "iam.googleapis.com"}
        detail = {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            **info,
            "metadata": {"permission": fault.permission},
        }
        message = f"Required '{fault.permission}' permission for the resource"
        return ApiError(403, "forbidden", message, details=[detail])
    if fault.kind is FaultKind.RATE_LIMIT:
        message = "Quota exceeded for quota metric 'Queries' and limit 'Queries per minute' of the project."
        return ApiError(403, "rateLimitExceeded", message)
    return ApiError(503, "backendError", "The service is currently unavailable.")


def _operation_fault(fault: Fault, zone: str) -> OperationError:
    if fault.kind is FaultKind.STOCKOUT:
        message = (
            f"The zone '{zone}' does not have enough resources available to fulfill the request. "
            "Try a different zone, or try again later."
        )
        return OperationError(503, "ZONE_RESOURCE_POOL_EXHAUSTED", message)
    if fault.kind is FaultKind.QUOTA:
        region = zone.rpartition("-")[0]
        info = {
            "metricName": f"compute.googleapis.com/{fault.metric.lower()}",
            "limitName": f"{fault.metric}-per-project-region",
            "dimensions": {"region": region},
            "limit": 8.0,
        }
        message = f"Quota '{fault.metric}' exceeded.  Limit: 8.0 in region {region}."
        return OperationError(403, "QUOTA_EXCEEDED", message, details=[{"quotaInfo": info}])
    bare = fault.kind is FaultKind.BARE_ERROR
    return OperationError(500, fault.code, "Internal error. Please try again or contact Google Support.", bare=bare)
