"""An error is one sentence, maybe with a hint, and has an owner and an exit status."""

import errno

import pytest

from vmtests.errors import GuestError, HostError, ImageError, InputError, Owner, VmtestsError, from_os


def test_hint_follows_the_sentence() -> None:
    """Shown as text, an error ends with its hint."""
    assert str(VmtestsError("it broke", hint="mend it")) == "it broke (hint: mend it)"


def test_without_a_hint_there_is_only_the_sentence() -> None:
    """Shown as text, an error without a hint is its sentence."""
    assert str(VmtestsError("it broke")) == "it broke"


@pytest.mark.parametrize(
    ("kind", "owner", "status"),
    [
        (InputError, Owner.HOST, 2),
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
