"""`vmtests bisect`."""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

from rich.text import Text

from vmtests import contract as contracts
from vmtests import progress
from vmtests.cli.common import add_accel, add_contract, add_hardware, add_json, add_results, hardware, print_json
from vmtests.errors import HostError, InputError, Owner, VmtestsError
from vmtests.host import outputs
from vmtests.host.results import new_directory
from vmtests.host.sandbox import watched
from vmtests.machine.hardware import Hardware
from vmtests.qemu.lab import Lab
from vmtests.report import history
from vmtests.report.bisect import Bisection, Word
from vmtests.report.history import Budget
from vmtests.resources import PARSED_LIMIT, read_named
from vmtests.text import printable
from vmtests.vm import Heartbeat

_SKIP = 125  # git-bisect(1), "bisect run"
_ABORT = 128
_KEPT = "bisect.json"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="images in order: the first is good, the last bad")
    parser.add_argument("--list", metavar="FILE", help="a file that names them, one a line; `-` is standard input")
    parser.add_argument(
        "--make",
        metavar="COMMAND",
        help="they are no images but revisions: this makes the image of {} and prints its path as its last line; 125 "
        "skips it",
    )
    parser.add_argument(
        "--run",
        metavar="COMMAND",
        help="judge {} with this instead of a boot, as `git bisect run` does: 0 is good, 125 skips, 128 and more end, "
        "and any other status is bad",
    )
    parser.add_argument(
        "--budget", action="append", default=[], metavar="STAGE<TIME", help="one that is over it is bad"
    )
    parser.add_argument("--cause", metavar="CAUSE", help="only a boot that fails for this cause is bad; others skip")
    add_accel(parser)
    add_hardware(parser)
    add_contract(parser)
    add_results(parser)
    add_json(parser)
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Find the first image that does not boot, among many in order."""
    names = [*arguments.images, *_listed(arguments.list)]
    budgets = [Budget.parse(text) for text in arguments.budget]
    for command in (arguments.make, arguments.run):
        if command is not None and "{}" not in command:
            raise InputError(f"{printable(command)!r} has no {{}}", hint="{} stands for what is tried")
    search = Bisection(names)
    out, machine = progress.stderr(), hardware(arguments)
    directory = new_directory(arguments.results)
    _resume(directory / _KEPT, search)
    contract = None if arguments.contract is None else contracts.load(arguments.contract)
    with Lab(lambda: directory, accelerator=arguments.accel, cpus=arguments.cpus, contract=contract) as lab:
        while (number := search.next) is not None:
            name = search.names[number]
            out.print(Text(f"{printable(name)}: trying it; about {search.left} more after it"))
            image = _made(name, arguments.make)
            lab.images.forget()
            if image is None:
                word, why = Word.SKIP, "it could not be made"
            elif arguments.run is not None:
                word, why = _judged(arguments.run, image)
            else:
                word, why = _booted(lab, image, machine, f"{number:03}", budgets, arguments.cause)
            out.print(Text(f"{printable(name)}: {word}: {why}", "green" if word is Word.GOOD else "red"))
            search.note(number, word)
            _keep(directory / _KEPT, search)
    return _tell(arguments, search)


def _listed(file: str | None) -> list[str]:
    if file is None:
        return []
    try:
        text = sys.stdin.read() if file == "-" else read_named(Path(file), hint="--list has an image a line")
    except (OSError, ValueError) as error:
        raise InputError(f"standard input cannot be read: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _made(name: str, command: str | None) -> str | None:
    """Return the image of a revision; None where it says that it is to be skipped."""
    if command is None:
        return name
    ended = _shell(command, name, stdout=subprocess.PIPE)
    if ended.returncode == _SKIP:
        return None
    lines = ended.stdout.strip().splitlines()
    if ended.returncode != 0 or not lines:
        why = f"ended with {ended.returncode}" if ended.returncode else "printed no path"
        hint = "end it with `|| exit 125` where one that cannot be made is to be skipped"
        raise InputError(f"--make {why} for {printable(name)}", hint=hint)
    return lines[-1].strip()


def _judged(command: str, image: str) -> tuple[Word, str]:
    status = _shell(command, image).returncode
    if status < 0 or status >= _ABORT:
        raise HostError(
            f"--run ended with {status} for {printable(image)}", hint="what was tried is kept in --results"
        )
    word = Word.GOOD if status == 0 else Word.SKIP if status == _SKIP else Word.BAD
    return word, f"--run ended with {status}"


def _shell(command: str, name: str, *, stdout: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run somebody's command line with a name put into it; it ends with us, even after kill -9."""
    return subprocess.run(
        [*watched(), "/bin/sh", "-c", command.replace("{}", shlex.quote(name))],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


def _booted(
    lab: Lab, image: str, machine: Hardware, name: str, budgets: list[Budget], cause: str | None
) -> tuple[Word, str]:
    """Boot one; what the host spoils is tried once more, then skipped."""
    for attempt in ("", "-again"):
        with lab.machine(lab.image(image), machine, name=f"{name}{attempt}", watch=Heartbeat()) as vm:
            verdict = vm.wait_verdict()
        if verdict.owner is None or verdict.owner is Owner.IMAGE:
            break
    place = lab.results / f"{name}{attempt}"
    if not verdict.ready:
        ours = verdict.owner is Owner.IMAGE and cause in {None, verdict.cause}
        return Word.BAD if ours else Word.SKIP, verdict.sentence
    over = [finding for trend in history.read_run(place) for finding in history.over_budget(trend, budgets)]
    return (Word.BAD, over[0].sentence) if over else (Word.GOOD, "ready")


def _keep(path: Path, search: Bisection) -> None:
    told = {search.names[number]: str(word) for number, word in search.known.items()}
    outputs.write(path, json.dumps(told, indent=2) + "\n", "--results")


def _resume(path: Path, search: Bisection) -> None:
    """Go on from what an earlier search in the same directory has found; what it skipped is tried again."""
    try:
        told = json.loads(read_named(path, limit=PARSED_LIMIT)) if path.exists() else {}
        words = {name: Word(word) for name, word in told.items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is not what a bisection left: {error}", hint="name an empty --results") from error
    for number, name in enumerate(search.names):
        if (word := words.get(name, Word.SKIP)) is not Word.SKIP:
            search.note(number, word)


def _tell(arguments: argparse.Namespace, search: Bisection) -> int:
    found = search.first_bad
    if arguments.json:
        tried = {search.names[number]: str(word) for number, word in sorted(search.known.items())}
        print_json({"first_bad": list(found), "tried": tried})
    elif len(found) == 1:
        print(f"first bad: {printable(found[0])}")
    else:
        print(f"cannot tell: the first bad one is one of {', '.join(printable(name) for name in found)}")
    if len(found) == 1:
        return 0
    progress.stderr().print(Text("hint: those between could not be judged; they were skipped"))
    return VmtestsError.exit_code
