"""The blocks of code in the pages for people, and what is said of their commands.

A block without a language is of commands, which `make trials` runs. A comment on the line before says of which it does
not: of all, or of those that begin with the words in parentheses.

    <!-- make commands ("vmtests boot", "pytest"): they boot -->
    <!-- not run ("gcloud"): it needs a project -->
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if path.name != "api.md"),
)

_MARK = re.compile(r"<!-- (?P<who>make commands|not run)(?: \((?P<which>[^)]+)\))?: (?P<why>.{4,}) -->")
_FENCE = re.compile(r"```(\w*)")
_STATUS = re.compile(r"exit status (\d)")


class Who(StrEnum):
    """Who runs a command."""

    TRIAL = "make trials"
    MACHINE = "make commands"
    NOBODY = "not run"


@dataclass(frozen=True, slots=True)
class Command:
    """One line, with those that it goes on in; its comment may say with which exit status it ends."""

    text: str
    who: Who
    why: str

    @property
    def status(self) -> int:
        """The exit status that is right."""
        told = _STATUS.search(self.text.partition("  #")[2])
        return int(told[1]) if told else 0


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code: where it begins, its language, its text, its commands, and marks that fit none of them."""

    page: Path
    line: int
    language: str
    text: str
    commands: tuple[Command, ...] = ()
    idle: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The page and the line, as an editor opens them."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def read(page: Path) -> list[Block]:
    """Return the blocks of a page."""
    found = []
    lines = page.read_text(encoding="utf-8").splitlines()
    at = 0
    while at < len(lines):
        if (fence := _FENCE.fullmatch(lines[at])) is None:
            at += 1
            continue
        end = lines.index("```", at + 1)
        text = "\n".join(lines[at + 1 : end])
        marks = []
        above = at - 1
        while above >= 0 and (mark := _MARK.fullmatch(lines[above])):
            marks.append(mark)
            above -= 1
        found.append(_block(page, at + 1, fence[1], text, marks))
        at = end + 1
    return found


def _block(page: Path, line: int, language: str, text: str, marks: list[re.Match[str]]) -> Block:
    if language:
        return Block(page, line, language, text)
    rules = [
        (word, Who(mark["who"]), mark["why"])
        for mark in reversed(marks)
        for word in (re.findall(r'"([^"]+)"', mark["which"]) if mark["which"] else [""])
    ]
    commands, used = [], set()
    for command in re.split(r"(?<!\\)\n", text):
        if not command.strip() or command.startswith("#"):
            continue
        who, why = Who.TRIAL, ""
        # The most exact one: a line may be another's exception.
        for word, by, reason in sorted(rules, key=lambda rule: len(rule[0])):
            if command.startswith(word):
                who, why = by, reason
                used.add(word)
        commands.append(Command(command, who, why))
    return Block(page, line, "", text, tuple(commands), tuple(word for word, _, _ in rules if word not in used))


def blocks() -> list[Block]:
    """Return the blocks of all pages."""
    return [block for page in PAGES for block in read(page)]
