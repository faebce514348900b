"""Foreign text in messages."""

from hypothesis import given
from hypothesis import strategies as st

from vmtests.text import printable, split_url


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


def test_url_that_is_none_has_no_parts() -> None:
    """What somebody else calls a URL may be none: a header of an answer, a line of a ledger."""
    assert split_url("https://[x/?upload_id=y") == ("", "", "", "", "")
    assert split_url("https://a/b?c=d").query == "c=d"
