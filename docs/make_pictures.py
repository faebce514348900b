"""Writes docs/pictures from recorded boots (`make pictures`); a test says when they show other pages than there are.

What Chromium draws differs from host to host by its fonts, so the digests of the pages are kept beside the pictures,
and compared.
"""

import base64
import hashlib
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests import browser
from vmtests.report import booted, page
from vmtests.report.record import read

HERE = Path(__file__).parent
BOOTS = HERE.parent / "tests/report/boots"
PICTURES = HERE / "pictures"
MADE = PICTURES / "made.json"
WIDE, PHONE = (1200, 820), (390, 844)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture: the page of a recorded boot, alone or against another one, and how it is looked at."""

    name: str
    boot: str
    scheme: Literal["light", "dark"]
    size: tuple[int, int]
    against: str = ""
    diff: str = ""
    scroll: str = ""
    """A selector of what is scrolled to."""

    def page(self) -> str:
        """Return the page."""
        if self.diff:
            one, other = (list(read(BOOTS / name).boots) for name in (self.boot, self.diff))
            found = booted.compare(one, other)
            return page.fill("diff.html.j2", names=(self.boot, self.diff), differences=None, boots=found)
        return page.render(read(BOOTS / self.boot), read(BOOTS / self.against) if self.against else None)


ALL = (
    Picture("good", "nixos", "light", WIDE),
    Picture("good-phone", "nixos", "dark", PHONE),
    Picture("mounts", "nixos", "light", WIDE, scroll="section:has(> .scroll > .mounts)"),
    Picture("root-label-wrong", "root-label-wrong", "light", WIDE),
    Picture("root-label-wrong-phone", "root-label-wrong", "light", PHONE),
    Picture("system-collected", "system-collected", "dark", WIDE),
    Picture("console-phone", "system-collected", "dark", PHONE, scroll=".console"),
    Picture("esp-missing-phone", "esp-missing", "light", PHONE),
    Picture("against", "nixos-overlay-store", "light", WIDE, against="nixos"),
    Picture("diff-phone", "nixos", "dark", PHONE, diff="nixos-overlay-store"),
)


def digests() -> dict[str, str]:
    """Return the digest of each picture's page."""
    return {picture.name: hashlib.sha256(picture.page().encode()).hexdigest()[:16] for picture in ALL}


def draw() -> None:
    """Draw all pictures, as WebP."""
    PICTURES.mkdir(exist_ok=True)
    for old in PICTURES.glob("*.webp"):
        old.unlink()
    with tempfile.TemporaryDirectory() as name, browser.launched() as chromium:
        path = Path(name) / "page.html"
        for picture in ALL:
            path.write_text(picture.page(), encoding="utf-8")
            width, height = picture.size
            tab = chromium.new_page(viewport={"width": width, "height": height}, color_scheme=picture.scheme)
            tab.goto(path.as_uri())
            if picture.scroll:
                tab.locator(picture.scroll).first.evaluate("e => e.scrollIntoView()")
            for _ in range(8):
                tab.evaluate("() => new Promise((done) => requestAnimationFrame(done))")
            shot = tab.context.new_cdp_session(tab).send("Page.captureScreenshot", {"format": "webp", "quality": 60})
            (PICTURES / f"{picture.name}.webp").write_bytes(base64.b64decode(shot["data"]))
            tab.close()
    MADE.write_text(json.dumps(digests(), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if not browser.PATH:
        sys.exit("there is no Chromium: make browser installs it on Debian")
    draw()
