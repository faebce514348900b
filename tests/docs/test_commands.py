"""Every command that README and docs show is run, here or by `make commands`, or a comment says why not."""

import io
import json
import re
import shlex
import tomllib
from contextlib import redirect_stderr
from itertools import takewhile
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.docs import stage
from tests.docs.blocks import PAGES, Block, Who, blocks
from vmtests import cli
from vmtests.testing.images import small_image

_SECONDS = 900.0  # each takes a second or two; on a host whose processors others have, minutes

BLOCKS = blocks()
RUN = [block for block in BLOCKS if any(command.who is Who.TEST for command in block.commands)]


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small disk of our layout."""
    return small_image(tmp_path_factory.mktemp("disk")).path


@pytest.mark.parametrize("block", RUN, ids=lambda block: block.name)
def test_commands_of_a_block_do_what_they_are_shown_for(block: Block, tmp_path: Path, disk: Path) -> None:
    """Typed one after the other, each ends with 0, or with the exit status that its comment tells."""
    stage.prepare(tmp_path, disk)
    for command in block.commands:
        if command.who is Who.TEST:
            _, wrong = stage.run(command, tmp_path, seconds=_SECONDS)
            assert not wrong, f"{block.name}: {wrong}"


def test_marks_of_blocks_name_their_commands() -> None:
    """A comment about a command that is no longer there is taken away with it."""
    assert {block.name: block.idle for block in BLOCKS if block.idle} == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_stand_in_blocks(page: Path) -> None:
    """None is hidden from these tests by being indented."""
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"^(?: {4}|\t)(?:vmtests|pytest|make|pip|git) .*", text, re.MULTILINE) == []


def test_commands_of_ours_that_are_not_run_here_are_taken_by_the_command_line() -> None:
    """What `vmtests` is told in them are words that it knows."""
    told = [command.text for block in BLOCKS for command in block.commands if command.who is not Who.TEST]
    calls = [shlex.split(text, comments=True) for text in told]
    ours = [
        call[n + 1 :]
        for call in calls
        for n, word in enumerate(call)
        if word == "vmtests" and (n == 0 or call[n - 1] == "|")
    ]
    assert len(ours) > 10
    for words in ours:
        call = list(takewhile(lambda word: word != "|", words))
        with redirect_stderr(io.StringIO()) as said:
            try:
                cli.parser(call).parse_args(call)
            except SystemExit:
                pytest.fail(f"vmtests {shlex.join(call)}: {said.getvalue()}")


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
