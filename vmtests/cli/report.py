"""`vmtests report`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from vmtests import progress
from vmtests.cli.common import add_json, print_json
from vmtests.errors import InputError
from vmtests.host import outputs
from vmtests.report import history, page, summary, trends
from vmtests.report.history import Budget, Finding, Rule, Trend


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "directory", type=Path, nargs="?", metavar="DIR", help="a run's directory of results, or one machine's"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="where the page goes (default: DIR/report.html, or DIR/trends.html)"
    )
    parser.add_argument("--against", type=Path, metavar="DIR", help="an earlier run: what is new, missing, slower")
    parser.add_argument(
        "--history", type=Path, metavar="DIR", help="many runs: what each stage took over time, drawn for each image"
    )
    parser.add_argument(
        "--budget",
        action="append",
        default=[],
        metavar="STAGE<TIME",
        help="exit status 1 where a stage of the newest run takes longer, as initrd<12s; `boot` is all of them",
    )
    parser.add_argument(
        "--no-slower",
        nargs="?",
        const=f"{Rule().factor}x{Rule().window}",
        metavar="FACTORxRUNS",
        help="with --history: exit status 1 where a stage has become slower than FACTOR x its last RUNS, and not by "
        "chance (%(const)s where nothing is said); 2 where there are too few runs to tell",
    )
    parser.add_argument(
        "--markdown",
        action="store_true",
        help="print the run in few words, as for the summary of a job; write no page",
    )
    add_json(parser, "print one JSON object: what was found, and the seconds of each stage")
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the pages, say where they are, and what is too slow."""
    if arguments.directory is None and arguments.history is None:
        raise InputError("which run? vmtests report needs DIR or --history DIR", hint="vmtests report results/latest")
    if arguments.markdown:
        if arguments.directory is None or not arguments.directory.is_dir():
            raise InputError(
                "--markdown needs DIR, a run's directory of results", hint="vmtests report results/latest"
            )
        print(summary.markdown(arguments.directory))
        return 0
    if arguments.no_slower is not None and arguments.history is None:
        raise InputError(
            "--no-slower needs --history DIR: one run has no past", hint="vmtests report --history results"
        )
    if arguments.out is not None:
        outputs.check(arguments.out, "--out")
    budgets = [Budget.parse(text) for text in arguments.budget]
    rule = None if arguments.no_slower is None else Rule.parse(arguments.no_slower)
    written: list[Path] = []
    out = arguments.out
    if arguments.directory is not None:
        own = out if arguments.history is None else None
        written.append(page.write(arguments.directory, own, arguments.against))
    known: Sequence[Trend] = ()
    findings: list[Finding] = []
    if arguments.history is not None or budgets:
        known = _known(arguments)
        findings = [f for trend in known for f in history.over_budget(trend, budgets)]
        findings += [f for trend in known if rule is not None for f in history.slower(trend, rule)]
    if arguments.history is not None:
        written.append(trends.write(out, arguments.history, known, findings))
    _tell(arguments, written, known, findings)
    if any(finding.bad for finding in findings):
        return 1
    return 2 if any(finding.unknown for finding in findings) else 0


def _known(arguments: argparse.Namespace) -> Sequence[Trend]:
    return history.read_run(arguments.directory) if arguments.history is None else history.read(arguments.history)


def _tell(
    arguments: argparse.Namespace, written: Sequence[Path], known: Sequence[Trend], findings: Sequence[Finding]
) -> None:
    if arguments.json:
        told = [
            {
                "image": f.trend,
                "stage": f.stage,
                "verdict": "slower" if f.bad else "cannot tell",
                "sentence": f.sentence,
            }
            for f in findings
        ]
        stages = {trend.title: {stage: trend.series(stage) for stage in trend.stages} for trend in known}
        print_json({"pages": [str(path) for path in written], "findings": told, "seconds": stages})
        return
    console = progress.console()
    for finding in findings:
        style = "red" if finding.bad else "yellow"
        console.print(Text(f"{finding.trend}: {finding.sentence}", style), soft_wrap=True)
    for path in written:
        print(path)
