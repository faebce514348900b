"""A real Chromium for pages, which tells all that goes wrong in it and all that it asks for."""

import contextlib
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PATH = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), "")

needed = pytest.mark.skipif(
    not PATH, reason="there is no Chromium, which `make test` installs as root: apt-get install chromium"
)


@contextlib.contextmanager
def launched() -> Iterator["Browser"]:
    """Give a browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=PATH, args=["--no-sandbox"])
        yield browser
        browser.close()
