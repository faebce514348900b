"""`vmtests sbom`."""

import argparse
import json
from collections import Counter
from pathlib import Path

from rich.text import Text

from vmtests import progress
from vmtests.host import outputs, tools
from vmtests.image import sbom
from vmtests.text import inert_quoted, printable


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "image", nargs="?", default="reference", metavar="IMAGE", help="`reference` (the default), or a disk's path"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write it there, and not to standard output")
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what an image is made of."""
    if arguments.out is not None:
        outputs.check(arguments.out, "--out")
    toolbox = tools.find()
    named = Path(arguments.image)
    own = arguments.image == "reference" and not named.exists()
    bill = sbom.of_reference(toolbox) if own else sbom.of_disk(named, toolbox)
    name = printable(named.name)
    text = json.dumps(bill.to_json(name), indent=2, ensure_ascii=False) + "\n"
    if arguments.out is None:
        print(inert_quoted(text), end="")
    else:
        outputs.write(arguments.out, text, "--out")
    kinds = Counter(part.kind for part in bill.parts)
    told = (
        ", ".join(f"{count} of {kind}" for kind, count in sorted(kinds.items())) or "no package that is written down"
    )
    progress.stderr().print(Text(f"{name}: {told}"))
    for left in bill.left_out:
        progress.stderr().print(Text(f"left out: {left}"))
    return 0
