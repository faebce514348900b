"""What is said to people while something takes its time, and how wide."""

import io

import pytest
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
