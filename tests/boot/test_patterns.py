"""The tables of failures."""

import re
import string
from pathlib import Path

import pytest

from vmtests import image
from vmtests.boot import Cause, Stage
from vmtests.boot.patterns import EVENT_RULES, LINE_RULES
from vmtests.boot.patterns_machine import SILENCES
from vmtests.boot.patterns_system import ABSENT_DEVICE
from vmtests.boot.rules import EventRule, LineRule

EVERY_RULE: tuple[LineRule | EventRule, ...] = (*LINE_RULES, ABSENT_DEVICE, *EVENT_RULES)


class TestTables:
    """Rules that every row keeps."""

    def test_every_cause_can_be_found(self) -> None:
        """No cause is only a name; some are found by silence and what the hang doctor sees, some by inspection."""
        checks = "".join(path.read_text() for path in Path(image.__path__[0]).glob("*.py"))
        named = {Cause[name] for name in re.findall(r"\bCause\.([A-Z0-9_]+)\b", checks)}
        silent = {Cause.NO_PROGRESS, Cause.DISK_STALLED, Cause.QEMU_STOPPED, Cause.QEMU_SILENT, Cause.SCREEN_ONLY}
        assert set(Cause) == {rule.cause for rule in EVERY_RULE} | silent | named

    @pytest.mark.parametrize("rule", LINE_RULES, ids=lambda rule: f"{rule.cause}-{LINE_RULES.index(rule)}")
    def test_a_sentence_uses_what_its_pattern_finds(self, rule: LineRule) -> None:
        """A template has no field that the pattern does not give."""
        fields = {name for _, name, _, _ in string.Formatter().parse(rule.sentence) if name}
        assert fields == set(rule.pattern.groupindex)

    def test_sentences_are_sentences(self) -> None:
        """A sentence is one line without a full stop, and every failure has a hint."""
        assert all("\n" not in rule.sentence and not rule.sentence.endswith(".") for rule in EVERY_RULE)
        assert all(rule.hint for rule in EVERY_RULE)

    def test_graces_leave_time_for_the_goal(self) -> None:
        """Whatever ends a boot is judged within two seconds of its line; only an oops may become more."""
        assert {Cause.KERNEL_OOPS} == {rule.cause for rule in EVERY_RULE if rule.grace >= 2.0}

    def test_silence_of_every_stage_means_something(self) -> None:
        """Each stage that can hang has a hint."""
        assert set(Stage) - {Stage.READY} == set(SILENCES)

    @pytest.mark.parametrize("line", ["x: " * 340, ": " * 510, "[" * 1020, "Error loading " + ": a" * 330])
    def test_hostile_lines_match_nothing(self, line: str) -> None:
        """Lines that are made to be expensive are no failure."""
        assert not any(rule.pattern.match(line) for rule in LINE_RULES if rule.cause != Cause.BOOTLOADER_ERROR)

    def test_no_nested_repetition(self) -> None:
        """No pattern repeats a group that repeats, so that none takes exponential time."""
        nested = re.compile(r"[+*}]\)[+*{]")
        assert not any(nested.search(rule.pattern.pattern) for rule in LINE_RULES)
