"""A real Chromium for pages, which tells all that goes wrong in it and all that it asks for."""

import contextlib
import ctypes
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PATH = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), "")


def _missing() -> str:
    """Return what a page cannot be opened without; Playwright drives the browser by a node that wants the library."""
    missing = [] if PATH else ["chromium"]
    try:
        ctypes.CDLL("libatomic.so.1")
    except OSError:
        missing.append("libatomic1")
    return " ".join(missing)


needed = pytest.mark.skipif(
    bool(_missing()), reason=f"here is not all of a browser, which `make test` installs as root: {_missing()}"
)


@contextlib.contextmanager
def launched() -> Iterator["Browser"]:
    """Give a browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=PATH, args=["--no-sandbox"])
        yield browser
        browser.close()
