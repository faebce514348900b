"""What is said to people while something takes its time, and how wide."""

import io

import pytest
from rich.table import Table
from rich.text import Text

from vmtests import progress


@pytest.mark.parametrize("columns", ["0", "00", "-5", "²", "9" * 5000, "", "80 ", "12"])
def test_no_size_of_a_terminal_silences_an_error(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """COLUMNS and LINES may be anything: what is said is seen, whole."""
    for name in ("COLUMNS", "LINES"):
        monkeypatch.setenv(name, columns)
    console = progress.stderr()
    console.file = io.StringIO()
    console.print(Text("vmtests: none does not exist"))
    assert console.file.getvalue() == "vmtests: none does not exist\n"


def test_nothing_that_is_printed_acts_on_the_terminal() -> None:
    """Whatever a name, an answer or an exception has in it: the only sequences are those of our own colours."""
    console = progress.console()
    console.file = io.StringIO()
    evil = "a\x1b[2J\x9b2J\u202e\rb\nc"
    table = Table(box=None)
    table.add_row(Text(evil, "red"))
    for shown in (evil, Text(evil), Text.assemble("x ", (evil, "green")), table):
        console.print(shown)
    assert console.file.getvalue().replace("\n", "").isprintable()
    assert console.file.getvalue().count("a\\x1b[2J\\x9b2J\\u202e") == 3


def test_nothing_that_is_printed_is_an_order_to_ci() -> None:
    """Also where a line was wrapped: a runner reads the console of a guest as any other line."""
    console = progress.console()
    console.file, console.width = io.StringIO(), 20
    console.print(Text("12.5 initrd ##vso[task.complete]"))
    console.print(Text("a line that is long ::error::x"))
    console.print(Text("x" * 20 + "::error::x"))
    assert "##vso[" not in console.file.getvalue()
    assert not [line for line in console.file.getvalue().splitlines() if line.startswith("::")]
