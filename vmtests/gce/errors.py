"""What the cloud refuses, typed by what can be done about it.

`code` has the words of `Operation.error.errors[].code`, or of `error.errors[].reason` in other answers of Compute
Engine's REST API. Cloud Storage and Google's own libraries raise other things for the same.
"""

import re
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from vmtests.errors import Owner, VmtestsError
from vmtests.text import printable

if TYPE_CHECKING:
    from google.cloud.compute_v1.types import Error, Operation

_STOCKOUT = re.compile(r"[A-Z_]*(?:RESOURCE_POOL_EXHAUSTED|STOCKOUT)[A-Z_]*")
# Not the host of an address: the libraries begin with the method and the URL of what was refused.
_PERMISSION = re.compile(r"(?<![\w/.:@-])(?!\w+\.googleapis\.)[a-z]{2,20}\.[A-Za-z]{2,40}\.[A-Za-z]{2,40}(?![\w./-])")
# As urllib3 has it. On this host nobody else comes and serves it a little later.
_REFUSED_HERE = re.compile(r"host='(?:127\.[\d.]+|localhost|\[?::1\]?)'.*Connection refused", re.DOTALL)
_SYSTEM = re.compile(r"\[Errno -?\d{1,4}\] ([^\"')]{1,100})")
_WORDS = 400  # characters of what the cloud says about an error
_UNAUTHENTICATED = 401
_READER = "google.api_core.exceptions"  # the module that reads what an answer says of an error

# What google.api_core puts in front of what was said.
_ASKED = re.compile(r"[A-Z]{3,7} https?://\S+: ")
_NO_TYPE = re.compile(r"[Mm]achine type (?:with name '[^']{1,80}' |specified )?does not exist in (?:this )?zone")
_NO_API = re.compile(r"API has not been used in project|API is not enabled")
_NO_BILLING = re.compile(
    r"[Bb]illing (?:account for the owning project is disabled|to be enabled|has not been enabled)"
    r"|to be billed is associated with an? \w+ billing account"
)
# So Compute Engine answers to the name of a zone or region that there is not.
_NO_PLACE = re.compile(r"Permission denied on 'locations/|Unknown (?:zone|region)\b")
# Those that Google manages have another name for the same, and an organization's own are `custom`.
_CONSTRAINT = re.compile(r"[Cc]onstraint(?:s/|\W{1,2})([a-z]{2,30}(?:\.managed)?\.[A-Za-z]\w{1,60})")
# Of such as CPUS_ALL_REGIONS it says "Limit: 12.0 globally".
_GLOBAL = re.compile(r"\bglobally\b|ALL.REGIONS", re.IGNORECASE)
# VPC Service Controls' own words; no role helps.
_PERIMETER = re.compile(r"prohibited by organization's policy|vpcServiceControlsUniqueIdentifier")

POLICIES: Mapping[str, str] = {
    "compute.disableSerialPortAccess": "with --gce-os-login nobody is let in at the serial port",
    "compute.requireOsLogin": "with --gce-os-login the boot is judged, and nothing is run in the guest",
    "compute.requireShieldedVm": "--secure-boot and --tpm, for which boot loader and kernel must be signed",
    "compute.vmExternalIpAccess": "--gce-internal, from a host that reaches the network",
}
"""What helps against each policy ("Organization policy constraints") that vmtests knows."""

# The smallest predefined role that has the permission ("IAM basic and predefined roles reference").
_ROLES = (
    ("compute.images.", "roles/compute.storageAdmin"),
    ("compute.disks.", "roles/compute.storageAdmin"),
    ("compute.", "roles/compute.instanceAdmin.v1"),
    ("storage.buckets.", "roles/storage.admin"),
    ("storage.", "roles/storage.objectAdmin on the bucket"),
    ("iam.serviceAccounts.", "roles/iam.serviceAccountUser"),
)


class CloudError(VmtestsError):
    """The cloud did not do what it was asked to; `code` is its own word for why."""

    owner = Owner.CLOUD
    retriable: ClassVar[bool] = False
    """Whether the same request may do, a little later."""
    why: ClassVar[str] = ""
    advice: ClassVar[str | None] = None

    def __init__(self, message: str, *, hint: str | None = None, code: str = "") -> None:
        super().__init__(message, hint=hint or self.advice)
        self.code = code


class StockoutError(CloudError):
    """The zone has no machine of this type just now: another zone may have one."""

    why = "the zone has no such machine left: "
    advice = "name more zones, or come back later"


class UnsupportedError(CloudError):
    """The zone has no machines of this type at all: another zone may have some."""

    why = "the zone has no machines of this type: "
    advice = "gcloud compute machine-types list --zones=ZONE says what it has"


class PolicyError(CloudError):
    """A policy of the organization forbids it."""

    why = "a policy of the organization forbids it: "
    advice = "docs/gce.md says which options go with which policy"


class QuotaError(CloudError):
    """The project's quota is used up: no other zone of the region helps."""

    why = "the quota is used up: "
    advice = "ask for more quota, or name zones of another region"


class DeniedError(CloudError):
    """A permission is missing."""

    why = "not permitted: "
    advice = "docs/gce.md lists the roles that are needed"


class DisabledError(CloudError):
    """The project does not use the API."""

    why = "the project does not use the API: "
    advice = "gcloud services enable compute.googleapis.com storage.googleapis.com"


class PlaceError(CloudError):
    """There is no such zone or region, or none that this login may know of."""

    why = "no such place: "
    advice = "gcloud compute zones list says which zones there are"


class BillingError(CloudError):
    """Nobody pays for the project."""

    why = "nobody pays for the project: "
    advice = "gcloud billing projects link PROJECT --billing-account=ACCOUNT"


class CredentialsError(CloudError):
    """Nobody is logged in, or the login is not valid any more."""

    why = "the credentials are not accepted: "
    advice = "gcloud auth application-default login, or GOOGLE_APPLICATION_CREDENTIALS"


class NotFoundError(CloudError):
    """There is no such thing."""


class ExistsError(CloudError):
    """There is such a thing already."""


class BusyError(CloudError):
    """It is being made, used or changed just now."""

    retriable = True


class RateError(CloudError):
    """Too many requests in too short a time."""

    retriable = True
    why = "too many requests: "
    advice = "come back in a minute"


class UnavailableError(CloudError):
    """The service, or the way to it, does not work just now."""

    retriable = True
    why = "the service does not answer as it should: "
    advice = "come back later, and look at the network"


class AbsentError(UnavailableError):
    """Nothing serves the address on this host: that of an emulator that has ended, say."""

    retriable = False
    why = "nobody serves this address: "
    advice = "vmtests emulator serves one, and says which"


class SlowError(CloudError):
    """An operation did not end in time, or nobody knows any more how."""


_KINDS: Mapping[str, type[CloudError]] = {
    "accessnotconfigured": DisabledError,
    "accountdisabled": BillingError,
    "alreadyexists": ExistsError,
    "autherror": CredentialsError,
    "backenderror": UnavailableError,
    "conflict": ExistsError,
    "forbidden": DeniedError,
    "iam_permission_denied": DeniedError,
    "notfound": NotFoundError,
    "permission_denied": DeniedError,
    "permissions_error": DeniedError,
    "quota_exceeded": QuotaError,
    "quotaexceeded": QuotaError,
    "ratelimitexceeded": RateError,
    "resource_already_exists": ExistsError,
    "unsupported_operation": UnsupportedError,
    "resource_in_use_by_another_resource": BusyError,
    "resource_not_found": NotFoundError,
    "resource_not_ready": BusyError,
    "resourceinusebyanotherresource": BusyError,
    "resourcenotready": BusyError,
    "userratelimitexceeded": RateError,
}
_STATUSES: Mapping[int, type[CloudError]] = {
    _UNAUTHENTICATED: CredentialsError,
    403: DeniedError,
    404: NotFoundError,
    409: ExistsError,
    429: RateError,
    500: UnavailableError,
    502: UnavailableError,
    503: UnavailableError,
    504: UnavailableError,
}
_BY_WORDS: tuple[tuple[re.Pattern[str], type[CloudError]], ...] = (
    (_CONSTRAINT, PolicyError),
    (_PERIMETER, PolicyError),
    (_NO_TYPE, UnsupportedError),
    (_NO_API, DisabledError),
    (_NO_BILLING, BillingError),
    (_NO_PLACE, PlaceError),
)


def of_operation(what: str, operation: "Operation") -> CloudError | None:
    """Return the error that an operation ended with, None when it ended well.

    Some operations have an error and no status of HTTP. The client library takes them for successes; here the list
    of errors counts.
    """
    for error in operation.error.errors:
        return _error(what, error.code, error.message, quota=_quota(error))
    if status := operation.http_error_status_code:
        return _error(what, "", operation.http_error_message or f"HTTP status {status}", status=status)
    return None


def of_exception(what: str, error: Exception) -> CloudError | None:
    """Return what an exception of Google's libraries means; None for one that is a bug of ours."""
    import requests
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError, TransportError
    from google.protobuf.json_format import ParseError  # type: ignore[import-untyped]

    if isinstance(error, exceptions.RetryError) and isinstance(error.cause, Exception):
        return of_exception(what, error.cause)
    if isinstance(error, exceptions.GoogleAPICallError):
        reasons = [str(item["reason"]) for item in error.errors if isinstance(item, dict) and item.get("reason")]
        permission = str((error.metadata or {}).get("permission", ""))
        status = None if error.code is None else int(error.code)
        return _error(what, (reasons or [""])[0], error.message or "", status=status, permission=permission)
    if isinstance(error, ParseError | UnicodeDecodeError):
        return UnavailableError(f"{what}: {UnavailableError.why}{printable(str(error), _WORDS)}")
    if any(frame.f_globals.get("__name__") == _READER for frame, _ in traceback.walk_tb(error.__traceback__)):
        return UnavailableError(f"{what}: {UnavailableError.why}it tells of an error in a form that nobody knows")
    if isinstance(error, TransportError | requests.RequestException):
        # urllib3 tells whole object graphs; the system's own words are at the end.
        words = _SYSTEM.findall(said := str(error))
        kind = AbsentError if _REFUSED_HERE.search(said) else UnavailableError
        return kind(f"{what}: {kind.why}{printable(words[-1] if words else said, _WORDS)}")
    if isinstance(error, GoogleAuthError):
        return _error(what, "authError", str(error))
    # What google.cloud.storage raises when an upload is refused.
    if isinstance(status := getattr(getattr(error, "response", None), "status_code", None), int):
        return _error(what, "", str(error), status=status)
    return None


def _error(
    what: str, code: str, message: str, *, status: int | None = None, quota: str = "", permission: str = ""
) -> CloudError:
    message = _ASKED.sub("", " ".join(message.split()), count=1)
    kind = StockoutError if _STOCKOUT.fullmatch(code) else _KINDS.get(code.lower())
    kind = next((meant for pattern, meant in _BY_WORDS if pattern.search(message)), kind)
    if kind is None or (kind is DeniedError and status == _UNAUTHENTICATED):
        kind = _STATUSES.get(status or 0, CloudError)
    said = printable(message or code, _WORDS).rstrip(".")
    hint = None
    if policy := _CONSTRAINT.search(message):
        hint = POLICIES.get(policy[1].replace(".managed.", "."))
    elif _PERIMETER.search(message):
        hint = "it is VPC Service Controls: come from inside the perimeter, or have its owner let this login in"
    elif kind is QuotaError and _GLOBAL.search(message):
        hint = "ask for more quota; it is that of all regions together"
    elif kind is DeniedError:
        found = _PERMISSION.search(message)
        hint = _role(permission or (found[0] if found else ""))
    return kind(f"{what}: {kind.why}{said}{quota}", hint=hint, code=code)


def _role(permission: str) -> str | None:
    for prefix, role in _ROLES:
        if permission.startswith(prefix):
            return f"the permission {printable(permission)} comes with {role}"
    return None


def _quota(error: "Error") -> str:
    """Return which quota an error is about, in brackets."""
    for detail in error.error_details:
        info: Any = detail.quota_info
        if info.limit_name:
            where = ", ".join(f"{key} {value}" for key, value in info.dimensions.items())
            return printable(f" ({info.limit_name}, limit {info.limit:g}{f', {where}' if where else ''})", _WORDS)
    return ""
