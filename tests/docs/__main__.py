"""Run what the pages show and `make trials` does not: commands that boot machines.

    python -m tests.docs [--list] [PAGE...]

It is typed in a fresh copy of the repository, with a real disk where the small one stands in the tests. Each command
is told with its seconds; the status is 1 where one ends other than it should.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from textwrap import indent

from tests.docs import stage
from tests.docs.blocks import ROOT, Block, Who, blocks

_SECONDS = 3600.0
_SAID = 4000  # characters, of the end


def main() -> int:
    """Run the commands of all pages, or of those named; return 0 when all ended as they should."""
    parser = argparse.ArgumentParser(prog="make commands", description="Run the pages' commands that boot machines.")
    parser.add_argument("--list", action="store_true", help="print every command, and who runs it")
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="as docs/tutorial.md")
    arguments = parser.parse_args()
    chosen = [b for b in blocks() if not arguments.pages or b.name.partition(":")[0] in arguments.pages]
    if arguments.list:
        for block in chosen:
            for command in block.commands:
                print(f"{block.name}: {command.who}: {command.text}{f'   ({command.why})' if command.why else ''}")
        return 0
    bad = 0
    with tempfile.TemporaryDirectory(prefix="commands-", dir=_results()) as name:
        place = Path(name)
        disk = place / "made.raw"
        subprocess.run(
            ["vmtests", "build", "--out", str(disk)], check=True, env=dict(stage.environment(place)), stdout=sys.stderr
        )
        for number, page in enumerate(sorted({block.page for block in chosen})):
            mine = [block for block in chosen if block.page == page]
            if any(command.who is Who.MACHINE for block in mine for command in block.commands):
                bad += _page(mine, place / str(number), disk)
    print("all ended as they should" if not bad else f"{bad} did not")
    return int(bool(bad))


def _page(mine: list[Block], place: Path, disk: Path) -> int:
    """Run a page from its beginning: what it shows later may need what it made before."""
    place.mkdir()
    stage.tracked(place)
    stage.prepare(place, disk)
    # Of the copy, as a reader has it: another pytest does not take the copy's conftest.py for its own.
    environment = dict(stage.environment(place))
    subprocess.run(["make", ".venv/.installed"], cwd=place, check=True, env=environment, stdout=sys.stderr)
    bad = 0
    for block in mine:
        for command in block.commands:
            if command.who is not Who.NOBODY:
                began = time.monotonic()
                said, wrong = stage.run(command, place, seconds=_SECONDS)
                bad += bool(wrong)
                took = f"{time.monotonic() - began:.0f} s"
                print(f"{'WRONG' if wrong else 'right'} {block.name} ({took}): {wrong or command.text}", flush=True)
                if said and not wrong:
                    print(indent(said[-_SAID:], "    "), flush=True)
    return bad


def _results() -> Path:
    place = ROOT / "results"
    place.mkdir(exist_ok=True)
    return place


if __name__ == "__main__":
    sys.exit(main())
