"""What README and docs have one type is what the command line takes."""

import io
import re
import shlex
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path

import pytest

from vmtests import cli

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
_BLOCK = re.compile(r"^```(?:sh|bash|console)?\n(.*?)^```", re.MULTILINE | re.DOTALL)


def calls() -> Iterator[tuple[str, str]]:
    """Yield a page's name and each call of `vmtests` in its blocks of commands, continued lines joined."""
    for page in PAGES:
        for block in _BLOCK.findall(page.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                # Behind a prompt, a pipe, an `&&` or what is set for it; before a comment and a redirection.
                for part in re.split(r"\s[|&]{1,2}\s", line.strip().removeprefix("$ ")):
                    if match := re.match(r"(?:\w+=\S+ )*(?:sudo )?(?:\.venv/bin/)?vmtests (.+)", part):
                        yield page.name, match[1]


@pytest.mark.parametrize(("page", "call"), [pytest.param(*found, id=f"{found[0]}: {found[1]}") for found in calls()])
def test_documented_call_is_one(page: str, call: str) -> None:
    """The parser takes it; `…` and words in capitals stand for the reader's own."""
    words = shlex.split(call, comments=True)
    cut = next((n for n, word in enumerate(words) if re.match(r"\d?>|<", word)), len(words))
    words = [word for word in words[:cut] if word not in {"…", "..."}]
    told = io.StringIO()
    try:
        with redirect_stderr(told):
            cli.parser(words).parse_args(words)
    except SystemExit as ended:
        if ended.code != 0:
            pytest.fail(f"{page}: {call}: {told.getvalue()}")
