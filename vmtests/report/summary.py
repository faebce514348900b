"""A run in few words: what was booted and what came of it, as properties for junit.xml and as Markdown."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from vmtests.errors import VmtestsError
from vmtests.report.history import own_boot
from vmtests.resources import cache_dir, read_object
from vmtests.sizes import told_seconds
from vmtests.text import printable

DIGEST_LIMIT = 4 << 30
"""Bytes of an image whose digest is taken: some seconds' work, once."""

_FAILURES = 50  # that are told


def markdown(results: Path, failures: Sequence[tuple[str, str]] = ()) -> str:
    """Return a run as Markdown; nothing that a guest or a test printed is markup."""
    known = properties(results)
    word = known.get("vmtests.verdict", "")
    lines = [f"### vmtests: {_cell(f'{word}: ' if word else '')}{_cell(known.get('vmtests.sentence', 'no boot'))}", ""]
    stages = {k.removeprefix("vmtests.seconds."): v for k, v in known.items() if k.startswith("vmtests.seconds.")}
    if stages:
        lines += [
            f"| {' | '.join(stages)} |",
            f"|{' ---: |' * len(stages)}",
            f"| {' | '.join(f'{value} s' for value in stages.values())} |",
            "",
        ]
    lines += [f"* **{_cell(name)}**: {_cell(told)}" for name, told in failures[:_FAILURES]]
    return "\n".join([*lines, "", "`report.html` among the results has the boot, drawn.", ""])


def properties(results: Path) -> dict[str, str]:
    """Return what is told of a run's own boot: verdict, image, its digest, and the seconds of each stage."""
    places = [results, *sorted(path.parent for path in results.glob("gw*/verdict.json"))]
    for place in places:
        (told, times), about = _own_boot(place), read_object(place / "booted.json")
        if not told:
            continue
        found = {f"vmtests.{key}": str(told[key]) for key in ("verdict", "stage", "cause", "owner") if told.get(key)}
        found["vmtests.sentence"] = printable(str(told.get("sentence", "")), 1000)
        found["vmtests.image"] = printable(str(about.get("image", "")))
        found["vmtests.machine"] = printable(str(about.get("machine", "")))
        if digest := digest_of(Path(str(about.get("path", "")))):
            found["vmtests.image.digest"] = digest
        # Somebody else may have written them.
        with suppress(ArithmeticError, AttributeError, TypeError, ValueError):
            stages = {printable(str(s)): told_seconds(t) for s, t in times.get("seconds", {}).items()}
            found |= {f"vmtests.seconds.{stage}": f"{t:.3f}" for stage, t in stages.items()}
        return found
    return {}


def _own_boot(place: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return verdict and timeline of the run's boot: the first, unless the host spoilt it and it began again."""
    which = own_boot(place)
    return read_object(place / f"verdict{which}.json"), read_object(place / f"timeline{which}.json")


def digest_of(image: Path) -> str:
    """Return `sha256:…` of an image's file, kept in the cache as long as the file does not change; nothing where it is
    gone, or larger than DIGEST_LIMIT.
    """
    try:
        status = image.stat()
        if not image.is_file() or status.st_size > DIGEST_LIMIT:
            return ""
        key = f"{image.absolute()}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\0{status.st_ino}"
        note = cache_dir() / "digests" / hashlib.sha256(key.encode()).hexdigest()[:32]
        if note.is_file():
            return note.read_text(encoding="utf-8")
        with image.open("rb") as file:
            digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        note.parent.mkdir(exist_ok=True)
        note.write_text(digest, encoding="utf-8")
    except (OSError, ValueError, VmtestsError):
        return ""
    return digest


def _cell(text: str) -> str:
    return text.translate({ord(c): f"&#{ord(c)};" for c in "\\`*_{}[]<>#|~&@"})
