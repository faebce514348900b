"""Fixtures for following a boot."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from vmtests.boot.follow import Follower
from vmtests.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    """A clock that goes only when told."""
    return ManualClock()


@pytest.fixture
def make(tmp_path: Path, clock: ManualClock) -> Iterator[Callable[..., Follower]]:
    """Makes followers of a machine that was switched on just now, on an idle host."""
    with ExitStack() as stack:

        def follower(**options: Any) -> Follower:
            given = {"clock": clock, "power_on": clock.now, "load": lambda: 1.0, **options}
            return stack.enter_context(Follower(tmp_path / "results", **given))

        yield follower


@pytest.fixture
def follower(make: Callable[..., Follower]) -> Follower:
    """A follower with the default options."""
    return make()
