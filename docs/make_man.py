"""Writes docs/vmtests.1 from the parser of the command line (`make docs`); a test says when it is out of date."""

import os
import re
import sys
from pathlib import Path

from argparse_manpage.manpage import Manpage

from vmtests.cli import command

PAGE = Path(__file__).parent / "vmtests.1"


def page() -> str:
    """Return the man page."""
    os.environ["COLUMNS"] = "100"
    made = Manpage(
        command.parser(list(command.COMMANDS)),
        {"prog": "vmtests", "project_name": "vmtests", "manual_title": "vmtests", "manual_section": 1, "date": ""},
    )
    # A date of its own would make it another page each day; whatis(1) reads the name's line.
    text = re.sub(r'^(\.TH \S+ "1") "[^"]*"', r'\1 ""', str(made), count=1)
    return (
        text.replace(
            ".SH NAME\nvmtests\n", ".SH NAME\nvmtests \\- prove, by booting it, that a disk image boots\n", 1
        ).rstrip()
        + "\n"
    )


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(None if PAGE.read_text() == page() else f"{PAGE} is not what the command line says: make docs")
    PAGE.write_text(page())
