"""What an issue says of a night that failed: `python -m tests.nightly.issue JUNIT.XML URL TITLE BODY`."""

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

from vmtests.text import printable

_TITLE = 200  # characters; GitHub takes 256
_TOLD = 10
_SENTENCE = 2000
# What pytest puts around the message of a fixture.
_AROUND = re.compile(r'^failed on (?:setup|teardown) with "(.*)"$', re.DOTALL)


def failures(junit: Path) -> list[tuple[str, str]]:
    """Return the name of each test that failed, and why; of a file that is not there, or no XML, nothing."""
    try:
        root = ElementTree.parse(junit).getroot()
    except (OSError, ElementTree.ParseError):
        return []
    found = []
    for case in root.iter("testcase"):
        for bad in (*case.iter("failure"), *case.iter("error")):
            message = _AROUND.sub(r"\1", bad.get("message", ""))
            found.append((case.get("name", ""), message))
    return found


def issue(junit: Path, url: str) -> tuple[str, str]:
    """Return the title, which is the first verdict, and the body, Markdown that shows a guest's words as they are.

    `url` leads to the run.
    """
    found = failures(junit)
    if not found:
        return "nightly-gce: the run ended before a test did", f"No test failed: [its log]({url}) says what did.\n"
    sentence = printable(found[0][1].split("\n", 1)[0], _TITLE)
    told = [f"{name}: {printable(message, _SENTENCE)}" for name, message in found[:_TOLD]]
    if len(found) > _TOLD:
        told.append(f"and {len(found) - _TOLD} more")
    # No line of a guest can end the block: it is indented.
    block = "\n".join(f"    {line}" for line in told)
    return f"nightly-gce: {sentence}"[:_TITLE], f"{block}\n\n[The run]({url}) has the console and the diagnosis.\n"


if __name__ == "__main__":
    title, body = issue(Path(sys.argv[1]), sys.argv[2])
    Path(sys.argv[3]).write_text(title, encoding="utf-8")
    Path(sys.argv[4]).write_text(body, encoding="utf-8")
