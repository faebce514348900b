"""The pages opened in Chromium, light and dark, at the width of a telephone; the guest is hostile in all of them."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page

from tests import browser
from tests.report.test_history import write as write_runs
from tests.report.test_page import HOSTILE, results
from vmtests.cli import main
from vmtests.report import page

pytestmark = browser.needed

Scheme = Literal["light", "dark"]
Open = Callable[[Path, Scheme], Page]

BOOTS = Path(__file__).with_name("boots")

_AT = """document.querySelector(".lines .at")"""

# WCAG 2: of what is written and what is behind it, of all elements with text of their own.
_CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const light = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, share, n) => {
    const v = c[n] / 255;
    return sum + share * (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  }, 0);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = rgba(getComputedStyle(e).backgroundColor);
      if (c[3] === 255) return c;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const e of document.querySelectorAll("h1,h2,p,summary,th,td,li,code,button,label,output,b,a,figcaption,pre")) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) || !e.checkVisibility()) continue;
    const [a, b] = [light(rgba(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(e.tagName + " " + e.className + ": " + e.textContent.slice(0, 40));
  }
  return poor;
}"""


_CROSSED = """() => [...document.querySelectorAll(".mounts .edge")].filter((text) => {
  const box = text.getBBox();
  return [...document.querySelectorAll(".mounts path")].some((path) => {
    const long = path.getTotalLength();
    return [...Array(100).keys()].some((n) => {
      const { x, y } = path.getPointAtLength(long * n / 100);
      return x > box.x && x < box.x + box.width && y > box.y && y < box.y + box.height;
    });
  });
}).map((text) => text.textContent)"""

# Labels of units begin within the waterfall, and end there if they are not wider than all of it.
_WHOLE = """() => {
  const all = [...document.querySelectorAll(".boot[open] .label")];
  return all.length && all.every((text) => {
    const a = text.getBoundingClientRect(), b = text.ownerSVGElement.getBoundingClientRect();
    return a.left >= b.left - 1 && (a.right <= b.right + 1 || a.width > b.width);
  });
}"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One for all tests here."""
    with browser.launched() as found:
        yield found


@pytest.fixture
def open_(chromium: Browser) -> Iterator[Open]:
    """Opens a page on a telephone; at the end nothing was asked for, and no script has complained."""
    wrong: list[str] = []

    def make(path: Path, scheme: Scheme) -> Page:
        tab = chromium.new_page(viewport={"width": 390, "height": 800}, color_scheme=scheme)
        tab.on("console", lambda message: wrong.append(message.text))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("dialog", lambda dialog: wrong.append(dialog.message))
        tab.on("request", lambda request: wrong.append(request.url) if request.url != path.as_uri() else None)
        tab.goto(path.as_uri())
        return tab

    yield make
    assert wrong == []


def stands(tab: Page, scheme: Scheme) -> None:
    """Hold a page to what all have to be: as wide as the screen, of the scheme, and readable."""
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(ground[4:].split(",")[0]) > 128) is (scheme == "light")
    assert tab.evaluate(_CONTRAST) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_report_is_found_ones_way_in(tmp_path: Path, open_: Open, scheme: Scheme) -> None:
    """A click on a stage shows its line, a search finds, the evidence leads to its bar, keys go from bar to bar."""
    tab = open_(page.write(results(tmp_path / "a"), against=results(tmp_path / "then", initrd=4.0)), scheme)
    tab.locator(".stages .s-kernel rect").click()
    assert "Linux version 6.12" in (tab.locator(".lines .at").text_content() or "")
    tab.get_by_role("searchbox").fill("running IN")
    assert tab.locator("output").inner_text() == "1 of 1"
    assert "Running in initrd." in (tab.locator(".lines .at").text_content() or "")
    tab.locator(".lines .evidence button").click()
    assert "failed" in (tab.locator(".bar.on").get_attribute("class") or "")
    tab.locator(".bar.on").focus()
    tab.keyboard.press("+")
    tab.keyboard.press("ArrowUp")
    tab.keyboard.press("Enter")
    assert "sysroot.mount" in (tab.locator(".bar.on").get_attribute("aria-label") or "")
    assert tab.locator(".wide").evaluate("e => e.style.width") == "200%"
    assert HOSTILE in tab.locator(".why").inner_text()
    stands(tab, scheme)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_labels_of_stages_are_whole_or_away(tmp_path: Path, open_: Open, scheme: Scheme) -> None:
    """A stage's name that has no room on a telephone is not shown, until the waterfall is zoomed."""
    tab = open_(page.write(results(tmp_path / "a")), scheme)
    shown = tab.locator(".stages text:visible")
    for n in range(shown.count()):
        text, bar = shown.nth(n).bounding_box(), shown.nth(n).locator("xpath=../../*[name()='rect']").bounding_box()
        assert text is not None
        assert bar is not None
        assert text["x"] + text["width"] <= bar["x"] + bar["width"]
    few = shown.count()
    tab.get_by_role("button", name="+").click()
    assert shown.count() > few


@pytest.mark.parametrize("boot", ["nixos", "system-collected"])
def test_labels_of_units_are_where_they_have_room(tmp_path: Path, open_: Open, boot: str) -> None:
    """On a telephone none is cut that need not be, nor when the waterfall is zoomed and back again."""
    tab = open_(page.write(shutil.copytree(BOOTS / boot, tmp_path / boot)), "light")
    for press in ("", "0", "+", "0"):
        if press:
            tab.locator(".chart").press(press)
        tab.wait_for_function(_WHOLE)


def test_no_line_between_mounts_goes_through_a_word(tmp_path: Path, open_: Open) -> None:
    """What a line is for stands beside it."""
    tab = open_(page.write(shutil.copytree(BOOTS / "nixos", tmp_path / "nixos")), "light")
    assert tab.evaluate(_CROSSED) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_trends_are_readable(tmp_path: Path, open_: Open, scheme: Scheme) -> None:
    """The page of many runs, of an image with a hostile name, one of whose stages has become slower."""
    rng = random.Random(3)
    directory = write_runs(tmp_path / "runs", 40, initrd=lambda n: (10 + rng.random()) * (1.3 if n >= 20 else 1.0))
    for path in directory.glob("*/booted.json"):
        path.write_text(json.dumps({"image": HOSTILE, "machine": "kvm"}))
    assert main(["report", "--history", str(directory), "--no-slower"]) == 1
    tab = open_(directory / "trends.html", scheme)
    assert HOSTILE in tab.locator("h2").first.inner_text()
    assert tab.locator("tr.slower").count() == 1
    text = tab.locator(".trend text").first.bounding_box()
    assert text is not None
    assert text["height"] > 8
    stands(tab, scheme)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_difference_is_readable(tmp_path: Path, open_: Open, scheme: Scheme) -> None:
    """The page of `vmtests diff`, of two boots whose units have hostile names."""
    one, other = results(tmp_path / "a"), results(tmp_path / "b", initrd=30.0, hostile=f"{HOSTILE}2")
    assert main(["diff", str(one), str(other), "--html", str(tmp_path / "diff.html")]) == 0
    tab = open_(tmp_path / "diff.html", scheme)
    assert HOSTILE in (tab.locator(".differences").first.text_content() or "")
    assert "without booting" not in tab.locator("header").inner_text()  # what two boots left has no images
    assert tab.locator("th", has_text="initrd").count() > 0
    stands(tab, scheme)


def test_evidence_is_in_sight_below_lines_that_wrap(tmp_path: Path, open_: Open) -> None:
    """On a telephone, whose lines are as high as their words need, the page opens where the evidence is."""
    place = results(tmp_path / "a")
    lines = (place / "console.jsonl").read_text().splitlines()
    long = [json.dumps({"boot": 1, "t": 4, "stage": "kernel", "source": "console", "text": "word " * 300})] * 40
    (place / "console.jsonl").write_text("\n".join([*lines[:2], *long, *lines[2:]]) + "\n")
    tab = open_(page.write(place), "light")
    tab.locator(".console").evaluate("e => e.scrollIntoView()")
    inside = "e => { const l = e.parentNode, a = e.getBoundingClientRect(), b = l.getBoundingClientRect();"
    tab.wait_for_function(f"() => ({inside} return a.top >= b.top && a.bottom <= b.bottom }})({_AT})", timeout=20_000)
