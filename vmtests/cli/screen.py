"""What a person at a terminal sees of a boot; nothing that a guest wrote can act on the terminal."""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vmtests import progress
from vmtests.boot.console import Line
from vmtests.boot.follow import Follower
from vmtests.boot.stages import Stage
from vmtests.boot.verdict import Verdict
from vmtests.cli.words import of_the_command


class Lines:
    """Shows the console as it comes, each line with its second and stage; nothing in it can act on the terminal.

    What is painted again, as GRUB's menu is, is shown once. It ends with the boot: what a machine that is ready prints
    is the talk of those who work with it.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: Line | None = None

    def __call__(self, follower: Follower) -> None:
        """Show what came since the last call."""
        lines = follower.lines
        new = lines
        if self._last is not None and self._last in lines:
            new = lines[lines.index(self._last) + 1 :]
        for line in new:
            if line.stage is Stage.READY:
                break
            if self._last is None or line.text != self._last.text:
                self._console.print(Text(f"{line.t:7.2f} {line.stage:<11} {line.text}"))
            self._last = line


def show(verdict: Verdict, results: Path) -> None:
    """Print a verdict: the stages, the sentence, and what led to it."""
    console = progress.console(soft_wrap=True)  # in a log a sentence stays one line, which grep finds
    table = Table(box=None, header_style="bold")
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    for stage, seconds in verdict.seconds.items():
        table.add_row(Text(stage), f"{seconds:.1f}")
    console.print(table)
    where = "" if verdict.ready else f" in {verdict.stage}"
    console.print(Text(f"{verdict.word}{where}: {verdict.sentence}", "green" if verdict.ready else "red"))
    for evidence in verdict.evidence:
        style = "dim" if evidence.context else ""
        console.print(Text(f"  {evidence.t:.2f} {evidence.source}: {evidence.text}", style))
    if verdict.hint:
        console.print(Text(f"hint: {of_the_command(verdict.hint)}"))
    if verdict.owner is not None:
        console.print(Text(f"at fault: the {verdict.owner}"))
    if (diagnosis := results / "diagnosis").is_dir():
        console.print(Text(f"diagnosis: {diagnosis}"))
    for journal in sorted(diagnosis.glob("journal*.txt")):
        console.print(Text(f"the guest's journal: {journal}"))
    console.print(Text(f"results: {results}"))
