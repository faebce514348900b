"""Every link and picture of the pages that is not of another site leads somewhere, to the heading too."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from tests.docs.blocks import PAGES, ROOT

_MARKDOWN = MarkdownIt("commonmark").enable("table")
_NO_PAGE = {"start.md"}  # it is a part of index.rst


def links(page: Path) -> Iterator[str]:
    """Yield where a page's links lead, and where its pictures are."""
    for token in _MARKDOWN.parse(page.read_text(encoding="utf-8")):
        for part in token.children or ():
            for name in ("href", "src"):
                if (target := part.attrGet(name)) is not None:
                    yield str(target)


def headings(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    tokens = _MARKDOWN.parse(page.read_text(encoding="utf-8"))
    texts = [after.content for token, after in pairwise(tokens) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in texts}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "docs/api.md"], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """A file that is there, and a heading that is in it."""
    lost = []
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in headings(target)):
            lost.append(link)
    assert lost == []


def test_every_page_is_in_the_contents_of_the_site() -> None:
    """index.rst names it, or a pattern of it does."""
    index = (ROOT / "docs/index.rst").read_text(encoding="utf-8")
    named = {path for line in index.splitlines() for path in (ROOT / "docs").glob(f"{line.strip() or '-'}.md")}
    written = {path for path in (ROOT / "docs").rglob("*.md") if path.name not in _NO_PAGE}
    assert written - named == set()
