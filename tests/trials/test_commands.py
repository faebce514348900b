"""Every command that README and docs show is run, here or by `make commands`, or a comment says why not."""

from pathlib import Path

import pytest

from tests.docs import stage
from tests.docs.blocks import Block, Who, blocks
from vmtests.testing.images import small_image

_SECONDS = 900.0  # each takes a second or two; on a host whose processors others have, minutes

RUN = [block for block in blocks() if any(command.who is Who.TRIAL for command in block.commands)]


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small disk of our layout."""
    return small_image(tmp_path_factory.mktemp("disk")).path


@pytest.mark.parametrize("block", RUN, ids=lambda block: block.name)
def test_commands_of_a_block_do_what_they_are_shown_for(block: Block, tmp_path: Path, disk: Path) -> None:
    """Typed one after the other, each ends with 0, or with the exit status that its comment tells."""
    stage.prepare(tmp_path, disk)
    for command in block.commands:
        if command.who is Who.TRIAL:
            _, wrong = stage.run(command, tmp_path, seconds=_SECONDS)
            assert not wrong, f"{block.name}: {wrong}"
