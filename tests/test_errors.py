"""An error is one sentence, maybe with a hint, and has an owner and an exit status."""

import errno
from pathlib import Path

import pytest

from vmtests.errors import (
    GuestError,
    HostError,
    ImageError,
    InputError,
    Owner,
    VmtestsError,
    at_named,
    from_os,
    hint_of,
    of_host,
)


def test_hint_follows_the_sentence() -> None:
    """Shown as text, an error ends with its hint."""
    assert str(VmtestsError("it broke", hint="mend it")) == "it broke (hint: mend it)"


def test_without_a_hint_there_is_only_the_sentence() -> None:
    """Shown as text, an error without a hint is its sentence."""
    assert str(VmtestsError("it broke")) == "it broke"


@pytest.mark.parametrize(
    ("kind", "owner", "status"),
    [
        (InputError, Owner.INPUT, 2),
        (HostError, Owner.HOST, 2),
        (ImageError, Owner.IMAGE, 1),
        (GuestError, Owner.IMAGE, 1),
        (VmtestsError, Owner.FRAMEWORK, 2),
    ],
)
def test_exit_status_tells_image_from_host(kind: type[VmtestsError], owner: Owner, status: int) -> None:
    """What the image did exits with 1, what the user or the host did with 2."""
    error = kind("x")
    assert (error.owner, error.exit_code) == (owner, status)


def test_full_disk_gets_a_hint_and_other_errors_of_the_system_do_not() -> None:
    """An error of the operating system names the file; only a full disk is told to be made emptier."""
    full = from_os("no image", OSError(errno.ENOSPC, "No space left on device"))
    assert (full.message, full.hint is None) == ("no image: No space left on device", False)
    denied = from_os("no image", PermissionError(errno.EACCES, "Permission denied", "/x"))
    assert (denied.message, denied.hint) == ("no image: Permission denied (/x)", None)


@pytest.mark.parametrize(
    ("number", "kind", "hint"),
    [
        (errno.ENOTDIR, InputError, "name another"),
        (errno.EACCES, InputError, "name another"),
        (errno.ENOSPC, HostError, "free some space"),
        (errno.EIO, HostError, "name another"),
    ],
)
def test_place_that_was_named_is_its_callers_unless_the_disk_is_full(
    number: int, kind: type[VmtestsError], hint: str
) -> None:
    """What cannot be written where somebody wanted it is no fault of the host, which can help a full disk only."""
    error = at_named("out cannot be written", OSError(number, "why"), "name another")
    assert (type(error), error.message, error.hint) == (kind, "out cannot be written: why", hint)


@pytest.mark.parametrize(
    ("error", "said", "hint"),
    [
        (OSError(errno.EACCES, "Permission denied", "/c/x.lock"), "refuses: Permission denied (/c/x.lock)", "another"),
        (OSError(errno.EOPNOTSUPP, "Not supported", "/c/x"), "refuses: Not supported (/c/x)", "file system"),
        (OSError(errno.ESTALE, "Stale file handle", "/c"), "refuses: Stale file handle (/c)", "mounted"),
        (OSError(errno.EFBIG, "File too large"), "gives no more: File too large", "ulimit -f"),
        (OSError(errno.ENOLCK, "No locks available"), "gives no more: No locks available", "VMTESTS_CACHE"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/proc/meminfo"), "has no /proc/meminfo", "mount /proc"),
        (
            FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"),
            "no directory for temporary files",
            "TMPDIR",
        ),
        (OSError(errno.ENAMETOOLONG, "File name too long", "/x"), "refuses: File name too long (/x)", "255"),
        (ValueError("embedded null byte"), "with a NUL", "names files"),
        (MemoryError(), "no memory left", "smaller"),
        (RuntimeError("can't start new thread"), "no more threads", "ulimit"),
        (ImportError("/x.so: failed to map segment from shared object"), "gives no more", "smaller"),
    ],
)
def test_host_that_lacks_something_is_told_wherever_it_shows(error: Exception, said: str, hint: str) -> None:
    """What no program of ours foresees in its place is the host's all the same, by one sentence with a hint."""
    host = of_host(error)
    assert host is not None
    assert said in host.message
    assert hint in str(host.hint)


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("qemu-img: /x: Too many open files", "ulimit -n"),
        ("bwrap: Cannot allocate memory", "smaller"),
        ("qemu-img: x: Could not allocate metadata caches", "memory"),
        ("qemu: qemu_thread_create: Resource temporarily unavailable", "memory or processes"),
    ],
)
def test_tool_that_lacks_what_every_program_needs_is_not_blamed(said: str, hint: str) -> None:
    """What a tool says of its host gets the hint that helps there; what it says of itself gets none."""
    assert hint in str(hint_of(said))
    assert hint_of("qemu-img: symbol lookup error") is None


def test_working_directory_that_was_removed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who stands in a directory that is gone is told so."""
    (gone := tmp_path / "gone").mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(FileNotFoundError) as caught:
        Path("x").absolute()
    assert "working directory is gone" in str(of_host(caught.value))


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file", "/x"),
        OSError(errno.EPERM, "why"),
        RuntimeError("bug"),
        ValueError("bug"),
    ],
)
def test_anything_else_is_a_bug_of_ours(error: Exception) -> None:
    """What says nothing of the host is not blamed on it."""
    assert of_host(error) is None
