"""The catalogue of faults."""

from pathlib import Path

import pytest

from vmtests.errors import InputError, Owner
from vmtests.faults import catalogue as faults

GOOD = 'name = "x"\nbroken = "x"\nsteps = []\nstage = "ready"\n'


def test_there_are_enough_of_each_area() -> None:
    """At least 45 faults, of every area and every owner that a local boot can have."""
    known = faults.catalogue().values()
    assert 45 <= len(known)
    assert {"firmware", "bootloader", "kernel", "stage1", "stage2", "host"} == {fault.area for fault in known}
    assert {None, Owner.IMAGE, Owner.HOST} == {fault.owner for fault in known}


def test_every_fault_says_what_is_broken() -> None:
    """One sentence without a full stop, and at least one step."""
    for fault in faults.catalogue().values():
        assert fault.broken
        assert not fault.broken.endswith(".")
        assert fault.steps


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ("nosuch = 1", "nosuch"),
        ('cause = "made-up"', "cause"),
        ('cause = "no-progress"', "either ready or"),
        ('steps = [{ do = "explode" }]', "explode"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, change: str, field: str) -> None:
    """A file with a mistake is refused with the field's name, and never half-read."""
    key = change.partition(" ")[0]
    lines = [line for line in GOOD.splitlines() if not line.startswith(f"{key} ")]
    path = tmp_path / "area.toml"
    path.write_text("\n".join(["[[fault]]", *lines, change]))
    with pytest.raises(InputError, match=field):
        faults.load(path)


def test_an_unknown_name_is_refused() -> None:
    """Asking for a fault that there is not names it."""
    with pytest.raises(InputError, match="nosuch"):
        faults.named(["esp-missing", "nosuch"])
