"""Names, ids, links, times and fingerprints as Compute Engine has them."""

import base64
import hashlib
import json
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

from vmtests.emulator.http import ApiError, Json, invalid

_NAME = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1035, as the API's reference says
_LABEL_KEY = re.compile(r"[a-z][-_a-z0-9]{0,62}")
_LABEL_VALUE = re.compile(r"[-_a-z0-9]{0,63}")
_LABELS = 64
_METADATA_LIMIT = 512 << 10  # bytes, of all values together
_URL_SAFE = str.maketrans("+/", "-_")
_PACIFIC = timezone(timedelta(hours=-8))
_ORIGIN = re.compile(r"https?://[^/]+/")
_VERSION = re.compile(r"compute/(?:v1|beta)/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a resource is: its project, its zone (None for what is global), its collection and its name.

    A project itself has none of the last two.
    """

    project: str
    zone: str | None
    collection: str
    name: str

    @property
    def path(self) -> str:
        """The name from `projects/` on."""
        if not self.collection:
            return f"projects/{self.project}"
        scope = "global" if self.zone is None else f"zones/{self.zone}"
        return f"projects/{self.project}/{scope}/{self.collection}/{self.name}"


def check_name(name: object) -> str:
    """Return a resource's name; raises ApiError when it can be none."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise invalid("resource.name", name, f"must be a match of regex '{_NAME.pattern}'")
    return name


def check_labels(labels: object) -> dict[str, str]:
    """Return labels; raises ApiError when they break Compute Engine's rules for labels."""
    if labels is None:
        return {}
    if not isinstance(labels, dict) or len(labels) > _LABELS:
        raise invalid("resource.labels", "…", f"at most {_LABELS} labels may be given")
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key) or not isinstance(value, str) or not _LABEL_VALUE.fullmatch(value):
            why = (
                "keys and values have lowercase letters, digits, '-' and '_', at most 63, and keys begin with a letter"
            )
            raise invalid("resource.labels", f"{key}={value}", why)
    return dict(labels)


def parse_link(link: object, collection: str, *, project: str, zone: str | None = None) -> Place:
    """Read a link to a resource of `collection`, whole or partial, on any host.

    `projects/P/zones/Z/C/N`, `zones/Z/C/N`, `global/C/N` and plain `N` are taken, the missing parts from `project` and
    `zone`; for images `family/F` is the name. Raises ApiError.
    """
    if not isinstance(link, str) or not link:
        raise invalid("resource", link, f"a link to one of the {collection} is needed")
    parts = _VERSION.sub("", _ORIGIN.sub("", link).lstrip("/"), count=1).split("/")
    if parts[0] == "projects" and len(parts) > 2:
        project, parts = parts[1], parts[2:]
    if parts[0] == "zones" and len(parts) > 2:
        zone, parts = parts[1], parts[2:]
    elif parts[0] == "global":
        zone, parts = None, parts[1:]
    if parts[:1] == [collection]:
        parts = parts[1:]
    name = "/".join(parts)
    if len(parts) != (2 if parts[:1] == ["family"] else 1) or not name:
        raise invalid("resource", link, f"the link is malformed: one to {collection} is needed")
    return Place(project=project, zone=zone, collection=collection, name=name)


def new_id() -> str:
    """Return a number for a resource, as the string that uint64 fields are sent as."""
    return str(secrets.randbelow(1 << 62) + (1 << 62))


def project_number(project: str) -> int:
    """Return the number of a project, always the same for the same name."""
    return int.from_bytes(hashlib.sha256(project.encode()).digest()[:5]) % 900_000_000_000 + 100_000_000_000


def now() -> str:
    """Return the time as Compute Engine writes it."""
    return timestamp(0.0)


def timestamp(ahead: float) -> str:
    """Return the time `ahead` seconds from now as Compute Engine writes it: RFC 3339, with California's offset."""
    return (datetime.now(_PACIFIC) + timedelta(seconds=ahead)).isoformat(timespec="milliseconds")


def storage_now() -> str:
    """Return the time as Cloud Storage writes it: RFC 3339, in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def fingerprint(value: object) -> str:
    """Return the fingerprint of a value, by which a client says which one it has changed; base64, safe in an URL."""
    digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()
    return base64.urlsafe_b64encode(digest[:8]).decode()


def check_fingerprint(given: object, known: str) -> None:
    """Raise ApiError unless a change was made to what is there now."""
    # It is of the type `bytes`: clients send it back in either alphabet of RFC 4648.
    if not isinstance(given, str) or given.translate(_URL_SAFE) != known:
        message = "Either no fingerprint was given or it is not that of the resource as it is now."
        raise ApiError(412, "conditionNotMet", message)


def set_labels(resource: Json, labels: object) -> None:
    """Give a resource labels and their fingerprint; raises ApiError."""
    checked = check_labels(labels)
    resource.pop("labels", None)
    if checked:
        resource["labels"] = checked
    resource["labelFingerprint"] = fingerprint(checked)


def metadata_of(given: object) -> Json:
    """Return metadata with its fingerprint; raises ApiError."""
    items = given.get("items") or [] if isinstance(given, dict) else []
    if given is not None and not isinstance(given, dict):
        raise ApiError(400, "invalid", "Invalid value for field 'metadata'.")
    keys = [item.get("key") if isinstance(item, dict) else None for item in items]
    if not all(isinstance(key, str) and key for key in keys) or len(set(keys)) != len(keys):
        message = "Invalid value for field 'metadata.items': every item has a key, and no two have the same."
        raise ApiError(400, "invalid", message)
    if sum(len(str(item.get("value", "")).encode()) for item in items) > _METADATA_LIMIT:
        raise ApiError(400, "invalid", "Invalid value for field 'metadata': it has more than 512 KiB.")
    kept = [{"key": item["key"], "value": str(item.get("value", ""))} for item in items]
    answer: Json = {"kind": "compute#metadata", "fingerprint": fingerprint(kept)}
    if kept:
        answer["items"] = kept
    return answer


def attributes_of(metadata: Json) -> dict[str, str]:
    """Return the values of metadata by their keys."""
    return {item["key"]: item["value"] for item in metadata.get("items", [])}
