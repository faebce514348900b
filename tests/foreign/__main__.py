"""Makes images as other people make them, has each inspected, and holds what is said to what is there.

python -m tests.foreign DIRECTORY [--boot] [NAME|GROUP]...

Each is inspected by the command, in a process of its own: two seconds of its processor time, 200 MB, no traceback.
With --boot those that can are booted to a login.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Protocol

from vmtests.errors import InputError, VmtestsError

from .cases import BREACH, NOTE, OK, REFUSED, Case, Cases
from .disks import Kitchen
from .formats import Formats
from .kinds import Kinds
from .makers import Makers
from .odd import Odd
from .odd_files import OddFiles

SECONDS, MEGABYTES = 2.0, 200
_UNPACKING = 6.0  # seconds of its processor time for a GiB that has to be unpacked (liblzma: 360 MB/s)
COMMAND = (sys.executable, "-m", "vmtests.cli")


class Group(Protocol):
    """Makes images of one kind."""

    def all(self) -> Iterator[Case]:
        """Yield every case."""


GROUPS: Mapping[str, Callable[[Cases], Group]] = {
    "disks": lambda cases: cases,
    "odd": Odd,
    "makers": Makers,
    "kinds": Kinds,
    "odd-files": OddFiles,
    "formats": Formats,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the command said of an image, and what that cost; `wrong` says what should not be."""

    case: Case
    said: str
    seconds: float
    megabytes: float
    wrong: str
    booted: str = ""


def inspected(case: Case, path: Path) -> Outcome:
    """Inspect an image in a process of its own."""
    with subprocess.Popen(
        [*COMMAND, "inspect", "--json", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        # Both are short; wait4 gives what this one process and its children have used.
        out, complaint = process.communicate()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    status = process.returncode
    told = json.loads(out) if out else {}
    breaches, notes = told.get("breaches", []), told.get("notes", [])
    said = told.get("error", "") or "; ".join([*breaches, *notes]) or " → ".join(told.get("boot", [])) or "ok"
    kind = REFUSED if status == 2 else BREACH if breaches else NOTE if notes else OK
    wrong = ""
    if "Traceback" in complaint:
        wrong = "a traceback"
    elif {OK: 0, NOTE: 0, BREACH: 1, REFUSED: 2}[kind] != status:
        wrong = f"exit status {status}"
    elif kind != case.expected and {kind, case.expected} != {OK, NOTE}:
        wrong = f"{kind}, and not {case.expected}"
    elif case.words and case.words not in out:
        wrong = f"it does not say {case.words!r}"
    return Outcome(case=case, said=said, seconds=used.ru_utime + used.ru_stime, megabytes=used.ru_maxrss / 1000,
                   wrong=wrong)  # fmt: skip


def apart(case: Case, path: Path) -> Outcome:
    """Inspect in a child, so that what it uses is counted alone."""
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        os.close(read)
        found = inspected(case, path)
        with os.fdopen(write, "w") as pipe:
            json.dump([found.said, found.seconds, found.megabytes, found.wrong], pipe)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said, seconds, megabytes, wrong = json.load(pipe)
    os.waitpid(child, 0)
    large = _UNPACKING * 3 if case.name.startswith("zeros") else 0.0
    if not wrong and seconds > SECONDS + large:
        wrong = f"{seconds:.1f} s"
    if not wrong and megabytes > MEGABYTES:
        wrong = f"{megabytes:.0f} MB"
    return Outcome(case=case, said=said, seconds=seconds, megabytes=megabytes, wrong=wrong)


def booted(path: Path, results: Path) -> str:
    """Boot an image and return its verdict in a sentence."""
    done = subprocess.run(
        [*COMMAND, "boot", str(path), "--json", "--quiet", "--results", str(results)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    told = json.loads(done.stdout or "{}")
    return f"{told.get('verdict', 'nothing')}: {told.get('sentence', told.get('error', ''))}"


def row(outcome: Outcome) -> str:
    """Return the outcome as a row of the table."""
    case, mark = outcome.case, f"**{outcome.wrong}**" if outcome.wrong else "right"
    said = outcome.said.replace("|", "\\|").replace("\n", " ")[:160]
    cost = f"{outcome.seconds:.1f} s, {outcome.megabytes:.0f} MB"
    return f"| {case.name} | {case.there} | {said} | {outcome.booted} | {cost} | {mark} |"


def check_names(names: Sequence[str], known: Collection[str]) -> None:
    """Refuse a name that no image and no group has."""
    for name in names:
        if name not in known:
            near = get_close_matches(name, known)
            hint = f"do you mean {' or '.join(near)}?" if near else f"groups: {', '.join(GROUPS)}"
            raise InputError(f"no image or group is called {name}", hint=hint)


def main(directory: Path, names: Sequence[str], *, boot: bool) -> int:
    """Try all, or those that are named, or of a group that is; print a table and return 1 where something is wrong."""
    if directory.name in GROUPS and not directory.exists():
        raise InputError(
            f"{directory} is a group of images", hint=f"give a directory first: results/images {directory}"
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{directory} cannot be made: {error.strerror}", hint="give a directory first") from error
    cases = Cases(Kitchen(directory.absolute()))
    groups = {name: make(cases) for name, make in GROUPS.items()}
    if names:
        check_names(names, {*groups, *(case.name for maker in groups.values() for case in maker.all())})
    columns = ("image", "what is there", "what inspection says", "what booting says", "cost", "")
    header = f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}"
    print(header, flush=True)
    rows, wrong, begun = [header], 0, time.monotonic()
    for group, case in ((group, case) for group, maker in groups.items() for case in maker.all()):
        if names and not {group, case.name} & set(names):
            continue
        path = case.make()
        outcome = apart(case, path)
        if boot and case.boots is not None:
            told = booted(path, directory / "boots" / case.name)
            bad = "" if told.startswith("ready") is case.boots else "booted otherwise"
            outcome = Outcome(case=case, said=outcome.said, seconds=outcome.seconds, megabytes=outcome.megabytes,
                              wrong=outcome.wrong or bad, booted=told)  # fmt: skip
        wrong += bool(outcome.wrong)
        rows.append(row(outcome))
        print(rows[-1], flush=True)
        if path.is_file() and not path.is_symlink() and path.name != "base.raw":
            path.unlink()
    rows.append(f"\n{len(rows) - 1} images, {wrong} wrong, {time.monotonic() - begun:.0f} s")
    print(rows[-1])
    (directory / "table.md").write_text("\n".join(rows) + "\n")
    return 1 if wrong else 0


def parsed(words: Sequence[str]) -> argparse.Namespace:
    """Return what the command line says; `--boot` may stand between directory and names."""
    parser = argparse.ArgumentParser(prog="python -m tests.foreign", description="Makes images, and inspects them.")
    parser.add_argument("directory", type=Path, help="where they are made, and the table is written")
    parser.add_argument("name", nargs="*", help=f"some of them only, or some groups: {', '.join(GROUPS)}")
    parser.add_argument("--boot", action="store_true", help="boot those that can")
    return parser.parse_intermixed_args(words)


if __name__ == "__main__":
    arguments = parsed(sys.argv[1:])
    try:
        sys.exit(main(arguments.directory, arguments.name, boot=arguments.boot))
    except VmtestsError as error:
        sys.exit(f"tests.foreign: {error}")
