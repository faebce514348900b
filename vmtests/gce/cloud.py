"""The APIs of Compute Engine and Cloud Storage, as the rest of vmtests asks them.

Three traps of google-cloud-compute 1.57 are gone round here. `ExtendedOperation` polls the public endpoint, whatever
endpoint was given, and takes an error without a status of HTTP for a success: so the `*_unary` methods are called, and
operations are waited for here. Methods that read retry for ten minutes, whatever `timeout` says: so none retries by
itself, and `Pace.patience` is how long.
"""

import functools
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from vmtests.gce.errors import NotFoundError, SlowError, UnavailableError, of_exception, of_operation
from vmtests.gce.settings import Settings
from vmtests.host.lazy import lazy

if TYPE_CHECKING:
    from google.cloud import compute_v1
    from google.cloud.storage import Client

T = TypeVar("T")

LONGEST_PAUSE = 8.0
"""Seconds between two attempts at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long to wait, in seconds.

    `poll`: between two looks at an operation. `patience`: how long what may succeed later is tried again.
    `answer`: for one answer. `operation`: until an operation ends. `grace`: until something shows up that may have
    been made although the answer was lost.
    """

    poll: float = 1.0
    patience: float = 60.0
    answer: float = 30.0
    operation: float = 600.0
    grace: float = 10.0


class Cloud:
    """Clients that are made when they are needed; may be used from any thread.

    All methods raise a CloudError, whatever Google's libraries raise.
    """

    def __init__(self, settings: Settings, pace: Pace | None = None) -> None:
        self.settings = settings
        self.pace = pace or Pace()

    # Clients.

    @lazy
    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"credentials": self.settings.credentials()}
        if self.settings.endpoint is not None:
            options["client_options"] = {"api_endpoint": self.settings.endpoint}
        return options

    @lazy
    def instances(self) -> "compute_v1.InstancesClient":
        """Instances."""
        from google.cloud import compute_v1

        return compute_v1.InstancesClient(**self._options)

    @lazy
    def images(self) -> "compute_v1.ImagesClient":
        """Images."""
        from google.cloud import compute_v1

        return compute_v1.ImagesClient(**self._options)

    @lazy
    def disks(self) -> "compute_v1.DisksClient":
        """Disks."""
        from google.cloud import compute_v1

        return compute_v1.DisksClient(**self._options)

    @lazy
    def machine_types(self) -> "compute_v1.MachineTypesClient":
        """Machine types."""
        from google.cloud import compute_v1

        return compute_v1.MachineTypesClient(**self._options)

    @lazy
    def projects(self) -> "compute_v1.ProjectsClient":
        """Projects."""
        from google.cloud import compute_v1

        return compute_v1.ProjectsClient(**self._options)

    @lazy
    def networks(self) -> "compute_v1.NetworksClient":
        """Networks."""
        from google.cloud import compute_v1

        return compute_v1.NetworksClient(**self._options)

    @lazy
    def subnetworks(self) -> "compute_v1.SubnetworksClient":
        """Subnetworks."""
        from google.cloud import compute_v1

        return compute_v1.SubnetworksClient(**self._options)

    @lazy
    def zone_operations(self) -> "compute_v1.ZoneOperationsClient":
        """Operations in zones."""
        from google.cloud import compute_v1

        return compute_v1.ZoneOperationsClient(**self._options)

    @lazy
    def global_operations(self) -> "compute_v1.GlobalOperationsClient":
        """Operations on what is in no zone."""
        from google.cloud import compute_v1

        return compute_v1.GlobalOperationsClient(**self._options)

    @lazy
    def storage(self) -> "Client":
        """Buckets and objects."""
        from google.cloud.storage import Client

        client = Client(project=self.settings.project, **self._options)
        # With it the library (3.17, say) looks at buckets whenever it likes, in threads of its own: requests that
        # nobody ordered would be in recordings, after the end of a run, and refused to who may not see buckets.
        client._bucket_metadata_cache = None  # noqa: SLF001 - its variable of the environment leaves one such thread
        return client

    # Calls.

    def ask(
        self,
        what: str,
        call: Callable[[], T],
        *,
        patience: float | None = None,
        gone: Callable[[], int] = lambda: 0,
    ) -> T:
        """Return what `call` returns; what may do a little later is tried again for `patience` seconds.

        They begin anew whenever an attempt has got further, as `gone` tells it.
        """
        patience = self.pace.patience if patience is None else patience
        deadline, furthest = time.monotonic() + patience, gone()
        pause = self.pace.poll
        while True:
            try:
                return call()
            except _raised() as error:
                cloud_error = of_exception(what, error)
                if cloud_error is None:
                    raise
                if (now := gone()) > furthest:
                    furthest, deadline, pause = now, time.monotonic() + patience, self.pace.poll
                if not cloud_error.retriable or time.monotonic() + pause > deadline:
                    raise cloud_error from error
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def read(self, what: str, method: Callable[..., T], request: Any, *, patience: float | None = None) -> T:
        """Return the answer of a method that reads."""
        return self.ask(what, lambda: method(request=request, retry=None, timeout=self.pace.answer), patience=patience)

    def change(
        self,
        what: str,
        method: "Callable[..., compute_v1.Operation]",
        request: dict[str, Any],
        *,
        seconds: float | None = None,
    ) -> int:
        """Ask for a change by a `*_unary` method, wait until it is done, for `seconds` at most, and return of what.

        That is the number that what was changed has in the cloud; another thing of its name has another. Each attempt
        has the same `requestId`: what was begun, though nobody heard of it, is not begun again.
        """
        request = {"project": self.settings.project, "request_id": str(uuid.uuid4()), **request}
        operation = self.read(what, method, request)
        if not operation.name:
            raise UnavailableError(f"{what}: {UnavailableError.why}its answer is no operation")
        self.wait(what, operation, project=request["project"], zone=request.get("zone"), seconds=seconds)
        return operation.target_id

    def wait(
        self,
        what: str,
        operation: "compute_v1.Operation",
        *,
        project: str,
        zone: str | None = None,
        seconds: float | None = None,
    ) -> None:
        """Wait for an operation; raises the error that it ended with, SlowError when it takes too long."""
        from google.cloud import compute_v1

        deadline = time.monotonic() + (seconds or self.pace.operation)
        request = {"project": project, "operation": operation.name}
        method: Callable[..., compute_v1.Operation] = self.global_operations.get
        if zone is not None:
            request["zone"] = zone
            method = self.zone_operations.get
        pause = self.pace.poll / 16
        while operation.status != compute_v1.Operation.Status.DONE:
            if time.monotonic() > deadline:
                raise SlowError(f"{what}: the operation {operation.name} did not end in time")
            time.sleep(pause)
            pause = min(2 * pause, self.pace.poll)
            try:
                operation = self.read(what, method, request)
            except NotFoundError as gone:
                # Nothing is said by that of what was to be changed.
                raise SlowError(f"{what}: how the operation ended is not known any more: {gone.message}") from gone
        if (error := of_operation(what, operation)) is not None:
            raise error


@functools.cache
def _raised() -> tuple[type[Exception], ...]:
    """Return what Google's libraries raise when a cloud does not do what it is asked to."""
    import requests
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
    from google.protobuf.json_format import ParseError  # type: ignore[import-untyped]

    # For an answer that is no JSON, such as a proxy's page, and for one of an error that is another JSON than theirs.
    unread = ParseError, UnicodeDecodeError, AttributeError, TypeError, RecursionError
    return GoogleAPIError, GoogleAuthError, requests.RequestException, InvalidResponse, DataCorruption, *unread
