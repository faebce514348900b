"""What a run makes in the cloud: names, labels, and when it is to be gone."""

import getpass
import re
import secrets
import time
from collections.abc import Mapping
from enum import StrEnum

import msgspec

RUN_LABEL, EXPIRES_LABEL, OWNER_LABEL = "vmtests-run", "vmtests-expires", "vmtests-owner"
"""Labels of everything that a run makes: its id, the second of the epoch when it may be removed, and whose it is."""

PREFIX = "vmtests"
"""What the name of everything that a run makes begins with."""

LIFETIME = 3600.0
"""Seconds after which what a run made may be removed, and instances remove themselves, unless told otherwise."""

_NO_LABEL = re.compile(r"[^a-z0-9_-]")
_LONGEST = 63  # characters of a name (RFC 1035), and of a label's value ("Labels overview")


class Kind(StrEnum):
    """Kinds of things."""

    OBJECT = "object"
    IMAGE = "image"
    DISK = "disk"
    INSTANCE = "instance"


class Thing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A thing in the cloud; `place` is the zone of an instance or disk, the bucket of an object."""

    kind: Kind
    name: str
    project: str
    place: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.place}/{self.name}" if self.place else f"{self.kind} {self.name}"


class Brand(msgspec.Struct, frozen=True, kw_only=True):
    """Whose things are: the id of a run, for how many seconds they are there, and who made them."""

    run: str
    owner: str
    lifetime: float = LIFETIME

    @classmethod
    def new(cls, lifetime: float = LIFETIME) -> "Brand":
        """Return the brand of a run that begins now."""
        return cls(run=secrets.token_hex(4), lifetime=lifetime, owner=label(_user()))

    def labels(self) -> dict[str, str]:
        """Return the labels of what is made now: an upload before may have taken a part of the run's own time."""
        expires = int(time.time() + self.lifetime)
        return {RUN_LABEL: self.run, EXPIRES_LABEL: str(expires), OWNER_LABEL: self.owner}

    def name(self, purpose: str) -> str:
        """Return a name for what serves `purpose`: lower-case letters, digits and hyphens, as RFC 1035 has it."""
        words = re.sub(r"[^a-z0-9]+", "-", purpose.lower()).strip("-")
        return f"{PREFIX}-{self.run}-{words}"[:_LONGEST].rstrip("-")


def expiry(labels: Mapping[str, str]) -> float | None:
    """Return the second of the epoch when what has these labels may be removed; None when they are not ours."""
    if RUN_LABEL not in labels:
        return None
    try:
        return float(labels[EXPIRES_LABEL])
    except (KeyError, ValueError):
        return 0.0


def label(text: str) -> str:
    """Return `text` as the value of a label."""
    return _NO_LABEL.sub("-", text.lower())[:_LONGEST]


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "nobody"
