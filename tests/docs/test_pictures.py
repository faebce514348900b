"""The pictures in the pages show what the report is now, are small, and each is shown somewhere."""

import json
import re
from html import unescape

from textual.binding import Binding

from docs import make_cockpit, make_pictures
from tests.docs.blocks import ROOT
from vmtests.cockpit.app import CockpitApp

_BYTES = 150_000


def test_pictures_are_of_the_pages_as_they_are() -> None:
    """Whoever changes the report, or the reading of a boot, draws them again."""
    assert json.loads(make_pictures.MADE.read_text()) == make_pictures.digests(), "make pictures"


def test_pictures_are_those_that_are_made_and_are_small() -> None:
    """No other, and none that a telephone waits for."""
    found = {path.stem: path.stat().st_size for path in make_pictures.PICTURES.glob("*.webp")}
    assert set(found) == {picture.name for picture in make_pictures.ALL}
    assert max(found.values()) < _BYTES


def test_every_picture_is_shown() -> None:
    """None lies there unseen."""
    shown = "".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
    assert [p.name for p in make_pictures.ALL if f"pictures/{p.name}.webp" not in shown] == []


def test_recording_of_the_cockpit_shows_its_keys() -> None:
    """Whoever changes them records it again (`make cockpit`)."""
    shown = unescape(re.sub("<[^>]*>", "", make_cockpit.OUT.read_text(encoding="utf-8"))).replace(" ", "")
    keys = [b for b in CockpitApp.BINDINGS if isinstance(b, Binding) and b.show]
    assert "".join(f"{b.key}{b.description}" for b in keys).replace(" ", "") in shown
