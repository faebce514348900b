"""Foreign text in messages."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmtests.text import inert, inert_quoted, printable, split_url


def test_long_text_is_cut() -> None:
    """Text over the limit is cut, and one sees that it was."""
    assert printable("x" * 1000, limit=10) == "x" * 10 + "…"


def test_control_characters_are_escaped() -> None:
    """Terminal sequences and bidirectional controls are shown, not obeyed."""
    assert printable("\x1b[2J\u202ea\n") == r"\x1b[2J\u202ea\n"


@given(st.text(st.characters(codec=None)))
def test_nothing_unprintable_is_left(text: str) -> None:
    """Whatever the text, lone surrogates too, the result is printable."""
    assert printable(text).isprintable()


@pytest.mark.parametrize(
    "order",
    [
        "::error::x",
        "  ::set-output name=a::b",
        "::stop-commands::token",
        "::add-mask file=a:b,x=::c",
        "x ##vso[task.complete result=Succeeded]",
        "##[add-mask]x",
        "##teamcity[testFinished name='x']",
        "##VSO[task.complete]",
        "###[x]",
    ],
)
def test_no_line_is_an_order_to_a_runner(order: str) -> None:
    """As GitHub Actions, Azure Pipelines and TeamCity read them; a person still reads the same."""
    said = inert(f"before\n{order}\nafter")
    assert not re.search(r"##\[|##vso\[|##teamcity\[|^\s*::\S", said, re.MULTILINE)
    assert said.replace(" ", "") == f"before\n{order}\nafter".replace(" ", "")
    assert inert(said) == said


@pytest.mark.parametrize(
    "text",
    ["std::vec::x", "core::panicking::panic", "inet6 ::1/128", "::ffff:10.0.0.1", "## a title", "a ## [b]", "::"],
)
def test_what_is_no_order_stays(text: str) -> None:
    """Names of C++ and Rust, addresses, headings."""
    assert inert(text) == text


@given(st.dictionaries(st.text("#v[:so"), st.text("#v[:so")))
def test_json_without_orders_means_the_same(value: dict[str, str]) -> None:
    """Programs that read it get what they always got."""
    said = inert_quoted(json.dumps(value))
    assert json.loads(said) == value
    assert inert(said) == said


def test_url_that_is_none_has_no_parts() -> None:
    """What somebody else calls a URL may be none: a header of an answer, a line of a ledger."""
    assert split_url("https://[x/?upload_id=y") == ("", "", "", "", "")
    assert split_url("https://a/b?c=d").query == "c=d"
