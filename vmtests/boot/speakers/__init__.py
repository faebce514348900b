"""Who speaks on a console while a machine boots, a file each.

A new boot loader or init is a new file here with a `SPEAKER`; nothing else names it. CONTRIBUTING.md has an example.
"""

import importlib
import pkgutil

from vmtests.boot.rules import LineRule, Sign, Speaker


def _speakers() -> tuple[Speaker, ...]:
    modules = (importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__))
    known = [speaker for module in modules if isinstance(speaker := module.SPEAKER, Speaker)]
    return tuple(sorted(known, key=lambda speaker: (speaker.general, speaker.stage.position, speaker.name)))


SPEAKERS = _speakers()
"""In the order of the boot, those with general words last."""

SIGNS: tuple[Sign, ...] = tuple(sign for speaker in SPEAKERS for sign in speaker.signs)
LINE_RULES: tuple[LineRule, ...] = tuple(rule for speaker in SPEAKERS for rule in speaker.failures)
"""Of the rows that match a line, the first counts."""
