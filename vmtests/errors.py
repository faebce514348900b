"""What can go wrong, whose fault it is, and what a person can do about it.

Everything that vmtests raises on purpose is a `VmtestsError`: one sentence, an optional hint, and an owner.
The command line prints it as one line and exits with `exit_code`; a traceback means a bug in vmtests.
"""

import errno
import os
from enum import StrEnum
from pathlib import Path


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
    errno.ENOMEM: "memory is used up: fewer things at once, or a smaller machine",
    # Of clone(2): pthread_create(3) says so too where it finds no memory for a stack.
    errno.EAGAIN: "fewer things at once: memory or processes are used up, see ulimit -a",
    errno.EFBIG: "allow larger files: ulimit -f, and what the file system can hold",
    errno.ENOLCK: "a file system without locks is no place for VMTESTS_CACHE",
}
"""What to do when any call says so, wherever it is made."""

_WORDS = {
    **{
        os.strerror(number): number
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
    },
    "No space left": errno.ENOSPC,
    "Could not allocate": errno.ENOMEM,  # QEMU's
    # ld.so's, of a library that is there (glibc's elf/dl-load.c).
    "failed to map segment": errno.ENOMEM,
    "cannot open shared object file: Error 24": errno.EMFILE,
}
"""How programs, and the loader of libraries, say so of what every one of them needs."""

_ELSEWHERE = "VMTESTS_CACHE, TMPDIR and --vm-results name other places"
_REFUSED = {
    errno.EACCES: f"is it another user's? {_ELSEWHERE}",
    errno.EPERM: f"is it another user's? {_ELSEWHERE}",
    errno.ENAMETOOLONG: "a file system takes 255 bytes of a name: was it meant to be one?",
    errno.ELOOP: "links that lead to themselves lead nowhere",
    **dict.fromkeys((errno.EOPNOTSUPP, errno.EXDEV), f"its file system cannot do that: {_ELSEWHERE}"),
    **dict.fromkeys((errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT), f"what is mounted there is gone: {_ELSEWHERE}"),
}
"""Likewise of files, when nobody has said more of them."""

_OF_THE_KERNEL = ("/proc/", "/sys/", "/dev/")

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


def at_named(what: str, error: OSError, hint: str | None) -> "VmtestsError":
    """Return the error that says `what` could not be done at a place that the caller has named, and why.

    It is an InputError with `hint` where another place is needed, and the host's where its disk is full or broken.
    """
    if error.errno in _WRONG_PLACE:
        return InputError(f"{what}: {error.strerror}", hint=hint)
    return HostError(f"{what}: {error.strerror}", hint="free some space" if error.errno in _FULL else hint)


def hint_of(said: str) -> str | None:
    """Return what to do when a program ends because its host gives no more; None for any other reason."""
    return next((_EXHAUSTED[number] for words, number in _WORDS.items() if words in said), None)


HOST_ERRORS = (OSError, MemoryError, RuntimeError, ValueError, ImportError)
"""What Python raises where `of_host` may find the host at fault."""


def of_host(error: BaseException) -> "HostError | None":
    """Return the HostError for what ends anything on a host that has no more to give; None for a bug of ours."""
    if isinstance(error, MemoryError):
        return HostError("this host has no memory left", hint="fewer things at once, or a smaller machine")
    # The standard library's word for a thread that clone(2) refuses.
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return HostError("this host starts no more threads: memory or processes are used up", hint="ulimit -a")
    # open(2) is not even asked for it; what a contract, an image.json or a marker names can have one.
    if isinstance(error, ValueError) and "embedded null" in str(error):
        return HostError("no file has a name with a NUL in it", hint="look at what names files")
    # The library of a module that is there.
    if isinstance(error, ImportError) and (hint := hint_of(str(error))) is not None:
        return HostError(f"this host gives no more: {error}", hint=hint)
    if not isinstance(error, OSError):
        return None
    place = f" ({error.filename})" if error.filename else ""
    if error.errno in _EXHAUSTED:
        return HostError(f"this host gives no more: {error.strerror}{place}", hint=_EXHAUSTED[error.errno])
    if place and error.errno in _REFUSED:
        return HostError(f"this host refuses: {error.strerror}{place}", hint=_REFUSED[error.errno])
    return _missing(error)


def _missing(error: OSError) -> "HostError | None":
    """Return the HostError for what every program may expect of a host, and what this one lacks."""
    if error.errno != errno.ENOENT:
        return None
    if str(error.filename).startswith(_OF_THE_KERNEL):
        return HostError(f"this host has no {error.filename}", hint="mount /proc, /sys and /dev, as containers do")
    # The standard library's word for that no directory lets it write.
    if "No usable temporary directory" in str(error.strerror):
        return HostError("no directory for temporary files can be written to", hint="set TMPDIR to one")
    if error.filename is None and not has_cwd():
        return HostError("the working directory is gone", hint="cd to one that is there")
    return None


def has_cwd() -> bool:
    """Whether the working directory is there: somebody may have removed it."""
    try:
        Path.cwd()
    except FileNotFoundError:
        return False
    return True


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
