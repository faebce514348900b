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
    INPUT = "input"
    """Whoever asked: a file that is not there, an option that cannot be."""
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


_SPACE = "free some space, or set VMTESTS_CACHE"
_EXHAUSTED = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EROFS: "VMTESTS_CACHE and the results have to be writable",
    errno.EIO: "the disk is broken: dmesg tells",
    errno.EMFILE: "allow more open files: ulimit -n",
    errno.ENFILE: "the whole system has too many open files",
    errno.ENOMEM: "fewer things at once, or a smaller machine",
    errno.EAGAIN: "fewer things at once: processes are used up, see ulimit -u",
}
"""What to do when any call says so, wherever it is made."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_WRONG_PLACE = frozenset(
    {errno.EACCES, errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR,
     errno.EPERM, errno.EROFS}
)  # fmt: skip


def from_os(what: str, error: OSError) -> "HostError":
    """Return the HostError that says `what` could not be done and why; a full disk gets a hint."""
    place = f" ({error.filename})" if error.filename else ""
    hint = _EXHAUSTED.get(error.errno or 0)
    return HostError(f"{what}: {error.strerror}{place}", hint=hint)


def at_named(what: str, error: OSError, hint: str) -> "VmtestsError":
    """Return the error that says `what` could not be done at a place that the caller has named, and why.

    It is an InputError with `hint` where another place is needed, and the host's where its disk is full or broken.
    """
    if error.errno in _WRONG_PLACE:
        return InputError(f"{what}: {error.strerror}", hint=hint)
    return HostError(f"{what}: {error.strerror}", hint="free some space" if error.errno in _FULL else hint)


def of_host(error: BaseException) -> "HostError | None":
    """Return the HostError for what ends anything on a host that has no more to give; None for a bug of ours."""
    if isinstance(error, MemoryError):
        return HostError("this host has no memory left", hint="fewer things at once, or a smaller machine")
    # The standard library's word for a thread that clone(2) refuses.
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return HostError("this host starts no more threads: memory or processes are used up", hint="ulimit -a")
    if isinstance(error, OSError) and error.errno in _EXHAUSTED:
        place = f" ({error.filename})" if error.filename else ""
        return HostError(f"this host gives no more: {error.strerror}{place}", hint=_EXHAUSTED[error.errno])
    return None


class InputError(VmtestsError):
    """What was asked for cannot be: a missing file, an unknown module, a size that is none, a machine that is off."""

    owner = Owner.INPUT


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
