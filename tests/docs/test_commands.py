"""What README and docs show as code is code; commands are run by `make trials` or `make commands`."""

import io
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stderr
from itertools import groupby, takewhile
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.docs.blocks import PAGES, Block, blocks
from vmtests.cli import command

BLOCKS = blocks()


def calls() -> Iterator[tuple[str, list[str]]]:
    """Yield a page's name and the words of each call of `vmtests` in its commands."""
    for block in BLOCKS:
        for one in block.commands:
            shell = shlex.shlex(one.text.replace("\\\n", " ").removeprefix("$ "), posix=True, punctuation_chars=True)
            shell.commenters, shell.whitespace_split = "", True
            words = list(takewhile(lambda word: not word.startswith("#"), shell))
            for operator, part in groupby(words, lambda word: set(word) <= set("|&;")):
                called = list(takewhile(lambda word: word[0] not in "<>", part))
                # Behind what is set for it.
                while called and ("=" in called[0] or called[0] == "sudo"):
                    del called[0]
                if not operator and called and Path(called[0]).name == "vmtests":
                    yield block.page.name, called[1:]


def test_marks_of_blocks_name_their_commands() -> None:
    """A comment about a command that is no longer there is taken away with it."""
    assert {block.name: block.idle for block in BLOCKS if block.idle} == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_stand_in_blocks(page: Path) -> None:
    """None is hidden from these tests by being indented."""
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"^(?: {4}|\t)(?:vmtests|pytest|make|pip|git) .*", text, re.MULTILINE) == []


@pytest.mark.parametrize(
    ("page", "call"), [pytest.param(page, call, id=f"{page}: {shlex.join(call)}") for page, call in calls()]
)
def test_call_of_ours_is_one(page: str, call: list[str]) -> None:
    """The parser takes it, whoever runs it; `…` and words in capitals stand for the reader's own."""
    words = [word for word in call if word not in {"…", "..."}]
    with redirect_stderr(io.StringIO()) as said:
        try:
            command.parser(words).parse_args(words)
        except SystemExit as ended:
            if ended.code != 0:
                pytest.fail(f"{page}: {shlex.join(call)}: {said.getvalue()}")


@pytest.mark.parametrize(
    "block", [b for b in BLOCKS if b.language in {"python", "toml", "json", "yaml"}], ids=lambda block: block.name
)
def test_blocks_of_other_languages_are_well_formed(block: Block) -> None:
    """What is shown of Python, TOML, JSON and YAML can be read by those."""
    match block.language:
        case "python":
            compile(block.text, block.name, "exec")
        case "toml":
            tomllib.loads(block.text)
        case "json":
            json.loads(block.text)
        case _:
            YAML(typ="safe", pure=True).load(block.text)
