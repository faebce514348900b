"""A small image, built once."""

from pathlib import Path

import pytest

from vmtests.testing import SmallImage, small_image


@pytest.fixture
def patient(tmp_path: Path) -> SmallImage:
    """A small image, to be broken."""
    return small_image(tmp_path)
