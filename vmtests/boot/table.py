"""`docs/causes.md`: every cause, who says it, an example, the hint; `python -m vmtests.boot.table` prints it."""

from collections.abc import Iterator

from vmtests.boot.machine_rules import RULES
from vmtests.boot.rules import Weight
from vmtests.boot.speakers import SPEAKERS

_HEAD = """# Causes

Made by `make causes` from the tables in `vmtests/boot/speakers/`. A line *ends* a boot, is a prompt at which it
*waits*, or is a *clue*: the cause when the boot ends, or falls silent, for nothing that says more.
"""
_WORDS = {Weight.CLUE: "clue", Weight.WAIT: "waits", Weight.SYMPTOM: "ends", Weight.CAUSE: "ends"}


def render() -> str:
    """Return the page."""
    return "\n".join([_HEAD, *_lines()]) + "\n"


def _lines() -> Iterator[str]:
    for speaker in SPEAKERS:
        if not speaker.failures:
            continue
        yield f"## {speaker.name}\n"
        yield f"Words from: {speaker.source}.\n"
        yield "| cause | | example | what can be done | who |"
        yield "| --- | --- | --- | --- | --- |"
        for rule in speaker.failures:
            example = rule.example.strip().replace("|", "\\|")
            hint = rule.hint.replace("|", "\\|")
            yield f"| {rule.cause} | {_WORDS[rule.weight]} | `` {example} `` | {hint} | {rule.owner} |"
        yield ""
    yield "## The machine's own events\n"
    yield "| cause | event | what can be done | who |"
    yield "| --- | --- | --- | --- |"
    for event in RULES:
        yield f"| {event.cause} | {event.name} | {event.hint} | {event.owner} |"


if __name__ == "__main__":
    print(render(), end="")
