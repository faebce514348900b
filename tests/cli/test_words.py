"""Who calls the command is told its options, who calls pytest is told pytest's."""

import argparse
import ast
import functools
import importlib
import re
from pathlib import Path

import pytest

import vmtests
from vmtests.cli import command
from vmtests.cli.words import of_the_command
from vmtests.plugin.options import OPTIONS

_SOURCES = [
    path
    for path in sorted(Path(vmtests.__file__).parent.rglob("*.py"))
    if path.relative_to(Path(vmtests.__file__).parent).parts[0] not in {"cli", "plugin", "suite", "emulator"}
]

_OF_PYTEST = {"--vm-from", "--vm-console", "--gce-instances"}
"""What the command has otherwise, and docstrings speak of."""


@functools.cache
def _hints() -> list[tuple[str, str]]:
    """Return every piece of text in the sources that names an option of ours as advice."""
    option = re.compile(r"--(?:vm|gce)-[a-z]")
    return [
        (path.name, node.value)
        for path in _SOURCES
        if option.search(text := path.read_text())
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and option.search(node.value)
    ]


def _options_of_the_command() -> set[str]:
    found = set()
    for name in command.COMMANDS:
        parsers = [argparse.ArgumentParser()]
        importlib.import_module(f"vmtests.cli.{name}").add(parsers[0])
        while parsers:
            for action in parsers.pop()._actions:
                found |= {option for option in action.option_strings if option.startswith("--")}
                if isinstance(action, argparse._SubParsersAction):
                    parsers += action.choices.values()
    return found


def test_advice_names_options_of_pytest() -> None:
    """Every option that the sources advise is one of pytest's, as the plugin has it."""
    known = {f"--{option.name}" for option in OPTIONS}
    hints = _hints()
    assert len(hints) > 8
    for file, hint in hints:
        assert set(re.findall(r"--(?:vm|gce)-[a-z-]+[a-z]", hint)) <= known, (file, hint)


def test_the_command_advises_its_own() -> None:
    """The same advice on the command line names what the command takes."""
    known = _options_of_the_command()
    for file, hint in _hints():
        said = of_the_command(hint)
        assert set(re.findall(r"--[a-z][a-z-]+[a-z]", said)) <= known | _OF_PYTEST, (file, said)


@pytest.mark.parametrize(
    ("hint", "said"),
    [
        ("name another directory with --vm-results", "name another directory with --results"),
        ("boot with --vm-module=debug for more", "boot with --debug for more"),
        ("use --vm-accel=auto or tcg", "use --accel=auto or tcg"),
        ("--vm-image=nix:FLAKE#ATTR names the flake", "nix:FLAKE#ATTR names the flake"),
        ("a smaller one: Hardware(memory_mib=…)", "a smaller one: --memory"),
        ("--gce-zone=us-central1-a", "--gce-zone=us-central1-a"),
    ],
)
def test_advice_is_translated(hint: str, said: str) -> None:
    """What both have keeps its name, what pytest calls otherwise is said as the command does."""
    assert of_the_command(hint) == said
