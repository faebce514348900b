"""Which project, zones and bucket are used, and where the APIs are."""

import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from vmtests.errors import InputError
from vmtests.gce import tokens
from vmtests.sizes import whole
from vmtests.text import printable

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

DEFAULT_ZONES = ("us-central1-a", "us-central1-b", "us-central1-c", "us-central1-f")
"""Zones that are tried in this order where none is named."""

INSTANCES = 8
"""Instances that a run has at a time, unless told otherwise."""

_MOST = 1000
_EMULATED_PROJECT = "emulated"
_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_NAME = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")
_NETWORK = re.compile(
    r"(?:projects/[a-z0-9.:-]{1,80}/(?:global|regions/[a-z0-9-]{1,40})/(?:sub)?networks/)?[a-z][-a-z0-9]{0,62}"
)
_ZONE = re.compile(r"[a-z]+-[a-z]+[0-9]+-(?:ai[0-9]+)?[a-z]")  # "AI zones" have names such as us-central1-ai1a
_PROJECT = re.compile(r"(?:[a-z0-9.-]+:)?[a-z][a-z0-9-]{0,61}[a-z0-9]?")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A project, its zones in the order in which they are tried, a bucket, and an endpoint other than the cloud's.

    Then what all instances have: `network` and `subnetwork` by name, or as a link from `projects/` on (Shared VPC);
    `internal` ones have no external address; `spot` ones are cheaper and may be taken away; `disk_type` where the
    machine type's own is not wanted; `os_login` leaves logins to OS Login, so that nothing is run in the guest.
    `limit` is how many there may be at a time. A `bucket` that nobody has named, `own_bucket`, has to be the
    project's.
    """

    project: str
    zones: tuple[str, ...] = DEFAULT_ZONES
    bucket: str = ""
    own_bucket: bool = False
    endpoint: str | None = None
    network: str = ""
    subnetwork: str = ""
    internal: bool = False
    spot: bool = False
    disk_type: str = ""
    os_login: bool = False
    limit: int = INSTANCES

    @classmethod
    def find(
        cls,
        *,
        project: str | None = None,
        zones: Sequence[str] = (),
        bucket: str | None = None,
        endpoint: str | None = None,
        network: str | None = None,
        subnetwork: str | None = None,
        internal: bool = False,
        spot: bool = False,
        disk_type: str | None = None,
        os_login: bool = False,
        limit: int | None = None,
    ) -> Self:
        """Return what is given, filled up from `VMTESTS_GCE_{PROJECT,ZONES,BUCKET,ENDPOINT}` and defaults.

        The project may also be GOOGLE_CLOUD_PROJECT, or that of the credentials. Raises InputError for what is
        missing or cannot be, and CredentialsError when nobody is logged in.
        """
        environment = os.environ
        endpoint = _endpoint(endpoint or environment.get("VMTESTS_GCE_ENDPOINT") or "")
        found = [word for zone in zones for word in zone.split(",") if word]
        found = found or [word for word in environment.get("VMTESTS_GCE_ZONES", "").split(",") if word]
        project = project or environment.get("VMTESTS_GCE_PROJECT") or environment.get("GOOGLE_CLOUD_PROJECT")
        if not project:
            project = _own_project() if endpoint is None else _EMULATED_PROJECT
        bucket = bucket or environment.get("VMTESTS_GCE_BUCKET")
        own_bucket = not bucket
        # A bucket with a dot in its name has to be a domain that was proved to be one's own ("Bucket naming").
        bucket = bucket or f"{re.sub('[:.]', '-', project)}-vmtests"
        _check("zone", _ZONE, *found)
        _check("project", _PROJECT, project)
        _check("bucket", _BUCKET, bucket)
        _check("network", _NETWORK, *filter(None, (network, subnetwork)))
        _check("type of disk", _NAME, *filter(None, (disk_type,)))
        return cls(
            project=project, zones=tuple(found) or DEFAULT_ZONES, bucket=bucket, own_bucket=own_bucket,
            endpoint=endpoint,
            network=network or "", subnetwork=subnetwork or "", internal=internal, spot=spot,
            disk_type=disk_type or "", os_login=os_login, limit=limit or INSTANCES,
        )  # fmt: skip

    @property
    def emulated(self) -> bool:
        """Whether the APIs are on this host, where nothing costs money and nobody has to log in."""
        return self.endpoint is not None

    def credentials(self) -> "Credentials":
        """Return the credentials of the environment, or an emulator's token where the APIs are on this host.

        Raises CredentialsError.
        """
        from google.oauth2.credentials import Credentials as Token

        if self.endpoint is None:
            return _default()[0]
        return Token(tokens.find(self.endpoint))  # type: ignore[no-untyped-call]


def _default() -> "tuple[Credentials, str | None]":
    import google.auth
    from google.auth.exceptions import GoogleAuthError

    from vmtests.gce.errors import of_exception

    try:
        found: tuple[Credentials, str | None] = google.auth.default(scopes=_SCOPES)
    except GoogleAuthError as error:
        raise of_exception("logging in", error) or error from error
    return found


def _own_project() -> str:
    if project := _default()[1]:
        return project
    raise InputError("no project is named", hint="--gce-project, VMTESTS_GCE_PROJECT or GOOGLE_CLOUD_PROJECT")


def _endpoint(url: str) -> str | None:
    """Return the address of an emulator, None for the cloud's own; nobody elsewhere is talked to."""
    if not url:
        return None
    shown = printable(url)
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise InputError(f"{shown} is no endpoint: {error}", hint="http://127.0.0.1:PORT") from error
    if parts.scheme != "http" or parts.path.strip("/") or parts.query:
        raise InputError(f"{shown} is no endpoint", hint="http://127.0.0.1:PORT, as `vmtests emulator` prints it")
    if not _is_loopback(host):
        raise InputError(f"the endpoint {shown} is not on this host", hint="without one the cloud is used")
    ask_directly(host)
    return url.rstrip("/")


def ask_directly(host: str) -> None:
    """Have this process ask `host`, which is this one, and no proxy that the environment names for the world.

    A proxy could not reach it, and would be handed its token (requests.utils.should_bypass_proxies).
    """
    for name in ("no_proxy", "NO_PROXY"):
        direct = [word for word in os.environ.get(name, "").split(",") if word]
        if host not in direct:
            os.environ[name] = ",".join((*direct, host))


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def count(text: str | None) -> int | None:
    """Return a number of instances that was given as text; raises InputError."""
    if text is None:
        return None
    if not 0 < (number := whole(text) or 0) <= _MOST:
        raise InputError(f"{printable(text)!r} is no number of instances", hint=f"from 1 to {_MOST}")
    return number


def _check(kind: str, pattern: re.Pattern[str], *names: str) -> None:
    for name in names:
        if not pattern.fullmatch(name):
            raise InputError(f"{printable(name)!r} is no name of a {kind}")
