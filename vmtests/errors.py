"""What can go wrong, whose fault it is, and what a person can do about it.

Everything that vmtests raises on purpose is a `VmtestsError`: one sentence, an optional hint, and an owner.
The command line prints it as one line and exits with `exit_code`; a traceback means a bug in vmtests.
"""

import errno
from enum import StrEnum


class Owner(StrEnum):
    """Who has to act on a failure."""

    IMAGE = "image"
    HOST = "host"
    FRAMEWORK = "framework"
    CLOUD = "cloud"


class VmtestsError(Exception):
    """A failure with a sentence for people, an optional hint, and an owner."""

    owner = Owner.FRAMEWORK
    exit_code = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} (hint: {self.hint})" if self.hint else self.message


def from_os(what: str, error: OSError) -> "HostError":
    """Return the HostError that says `what` could not be done and why; a full disk gets a hint."""
    place = f" ({error.filename})" if error.filename else ""
    hint = "free some space, or set VMTESTS_CACHE" if error.errno in {errno.ENOSPC, errno.EDQUOT} else None
    return HostError(f"{what}: {error.strerror}{place}", hint=hint)


class InputError(VmtestsError):
    """What the user gave cannot be used: a missing file, an unknown module, a size that is none."""

    owner = Owner.HOST


class HostError(VmtestsError):
    """The host lacks something: a tool, disk space, permission, a network."""

    owner = Owner.HOST


class ImageError(VmtestsError):
    """The image is at fault."""

    owner = Owner.IMAGE
    exit_code = 1


class GuestError(VmtestsError):
    """The guest runs, but does not answer as it should."""

    owner = Owner.IMAGE
    exit_code = 1
