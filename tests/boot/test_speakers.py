"""Who speaks, as data: each row is proved by a line that a real program prints."""

import functools
import re
import string
from pathlib import Path

import pytest

from vmtests import image
from vmtests.boot.machine_rules import ABSENT_DEVICE, INITRD_SHELL, RULES, SILENCES
from vmtests.boot.rules import EventRule, LineRule, Sign, Speaker
from vmtests.boot.scanner import Scanner
from vmtests.boot.skim import fixed
from vmtests.boot.speakers import LINE_RULES, SIGNS, SPEAKERS
from vmtests.boot.stages import Stage, normalise, torn
from vmtests.boot.verdict import Cause
from vmtests.resources import fixture

EVERY_RULE: tuple[LineRule | EventRule, ...] = (*LINE_RULES, ABSENT_DEVICE, INITRD_SHELL, *RULES)


def _named(rule: LineRule) -> str:
    return f"{rule.cause}-{LINE_RULES.index(rule)}"


def test_every_cause_can_be_found() -> None:
    """No cause is only a name; some are found by silence and what the hang doctor sees, some by inspection."""
    checks = "".join(path.read_text() for path in Path(image.__path__[0]).glob("*.py"))
    named = {Cause[name] for name in re.findall(r"\bCause\.([A-Z0-9_]+)\b", checks)}
    silent = {
        Cause.NO_PROGRESS,
        Cause.DISK_STALLED,
        Cause.QEMU_STOPPED,
        Cause.QEMU_SILENT,
        Cause.SCREEN_ONLY,
        Cause.TIME_LIMIT,
    }
    assert set(Cause) == {rule.cause for rule in EVERY_RULE} | silent | named


@pytest.mark.parametrize("speaker", SPEAKERS, ids=lambda speaker: speaker.name)
def test_every_speaker_names_the_source_of_its_words(speaker: Speaker) -> None:
    """Where a speaker's words are found is written beside them."""
    assert len(speaker.source) > 20


@functools.cache
def _heard() -> frozenset[str]:
    """Return the lines of all consoles, recorded and written, as they are matched."""
    consoles = fixture("consoles")
    texts = [path.read_bytes() for path in (*consoles.glob("*.log"), *consoles.glob("written/*.log"))]
    lines = (line for text in texts for scanned in Scanner().feed(text + b"\n") for line in torn(scanned.text))
    return frozenset(normalise(line).text for line in lines)


@pytest.mark.parametrize("speaker", SPEAKERS, ids=lambda speaker: speaker.name)
def test_every_speaker_is_heard_on_a_console(speaker: Speaker) -> None:
    """Nobody is here whom no console has: one that was recorded, or written from the program's source."""
    patterns = [sign.pattern for sign in speaker.signs] + [rule.pattern for rule in speaker.failures]
    assert any(pattern.match(line) for line in _heard() for pattern in patterns)


@pytest.mark.parametrize("rule", LINE_RULES, ids=_named)
def test_a_rule_matches_its_example_and_no_row_before_it_does(rule: LineRule) -> None:
    """A row counts for the line that it is there for."""
    text = normalise(rule.example).text
    first = next(one for one in LINE_RULES if one.stages & rule.stages and one.pattern.match(text))
    assert first is rule


@pytest.mark.parametrize("sign", SIGNS, ids=lambda sign: sign.example[:40])
def test_a_sign_matches_its_example(sign: Sign) -> None:
    """The same for lines that tell where the boot is."""
    assert sign.pattern.match(normalise(sign.example).text)


@pytest.mark.parametrize("rule", LINE_RULES, ids=_named)
def test_a_sentence_uses_what_its_pattern_finds(rule: LineRule) -> None:
    """A template has no field that the pattern does not give."""
    fields = {name for _, name, _, _ in string.Formatter().parse(rule.sentence) if name}
    assert fields <= set(rule.pattern.groupindex)


def test_sentences_are_sentences() -> None:
    """A sentence is one line without a full stop, and every failure has a hint."""
    assert all("\n" not in rule.sentence and not rule.sentence.endswith(".") for rule in EVERY_RULE)
    assert all(rule.hint for rule in EVERY_RULE)


def test_hints_are_for_somebody_who_has_only_a_log() -> None:
    """No hint about a line names an option of vmtests, or the boot loader's name of one architecture."""
    hints = [rule.hint for rule in LINE_RULES] + [silence.hint for silence in SILENCES.values()]
    assert not [hint for hint in hints if re.search(r"vmtests|--vm-|BOOTX64", hint)]


def test_graces_leave_time_for_the_goal() -> None:
    """Whatever ends a boot is judged within two seconds of its line; crashes may be survived, prompts answered."""
    slow = {rule.cause for rule in EVERY_RULE if rule.grace >= 2.0}
    waits = {Cause.UNLOCK_WAITS, Cause.PROMPT_WAITS, Cause.BOOT_MENU, Cause.FIRMWARE_NO_BOOT_DEVICE}
    assert slow == waits | {Cause.KERNEL_OOPS, Cause.KERNEL_HANG, Cause.TIMER_STALLED, Cause.EMERGENCY_SHELL}


def test_silence_of_every_stage_means_something() -> None:
    """Each stage that can hang has a hint."""
    assert set(Stage) - {Stage.READY} == set(SILENCES)


@pytest.mark.parametrize("line", ["x: " * 340, ": " * 510, "[" * 1020, "Error loading " + ": a" * 330])
def test_hostile_lines_match_nothing(line: str) -> None:
    """Lines that are made to be expensive are no failure."""
    assert not any(rule.pattern.match(line) for rule in LINE_RULES if rule.cause != Cause.BOOTLOADER_ERROR)


def test_no_nested_repetition() -> None:
    """No pattern repeats a group that repeats, so that none takes exponential time."""
    nested = re.compile(r"[+*}]\)[+*{]")
    assert not any(nested.search(rule.pattern.pattern) for rule in LINE_RULES)


def test_what_is_searched_for_in_a_long_recording_is_in_every_example() -> None:
    """The words by which a long recording is passed over are in each line that their pattern matches."""
    for rule in LINE_RULES:
        words = fixed(rule.pattern)
        text = normalise(rule.example).text
        assert not words or any(word.lower() in text.lower() for word in words), rule.example
