"""An error is one sentence, maybe with a hint, and has an owner and an exit status."""

import pytest

from vmtests.errors import GuestError, HostError, ImageError, InputError, Owner, VmtestsError


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
