"""`vmtests explain`."""

import argparse
import codecs
import itertools
import json
import os
import re
import stat
import sys
import time
import zlib
from collections.abc import Iterator
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from rich.text import Text

from vmtests import progress
from vmtests.boot import journal
from vmtests.boot.explain import Knowledge
from vmtests.boot.replay import Explanation, Replay, explain
from vmtests.boot.skim import CHUNK
from vmtests.cli.common import add_json, print_json
from vmtests.errors import InputError
from vmtests.sizes import MIB
from vmtests.text import printable

_GZIP = b"\x1f\x8b"
_ANSWER = 4 * MIB  # Compute Engine keeps 1 MiB of a console; escaped, it is more
_EXPORT = (b"__CURSOR=", b"__REALTIME_TIMESTAMP=")  # of a journal
_JSON_LINES = re.compile(rb"\s*\{[^\n]*\}[ \t\r]*\n\s*\{")
_UTF16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_POLL = 0.5  # seconds between two looks at a log that is followed
_WORDS = {"ready": "green", "failed": "red", "unknown": "yellow"}


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "log",
        nargs="?",
        default="-",
        metavar="LOG",
        help="a console's log, plain or .gz, a journal's export, a cloud's answer in JSON, or a directory of results; "
        "`-`, the default, is standard input",
    )
    add_json(parser)
    parser.add_argument("--image", type=Path, metavar="DISK", help="the disk that was booted: it is inspected as well")
    parser.add_argument("--ready", metavar="REGEX", help="the line by which this system says that it is up")
    parser.add_argument(
        "--follow", action="store_true", help="go on reading a log that grows, until the boot is decided"
    )
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Say what became of a boot by the log of its console."""
    ready = _regex(arguments.ready)
    knowledge = None if arguments.image is None else _knowledge(arguments.image)
    path = None if arguments.log == "-" else _log(Path(arguments.log))
    try:
        file = sys.stdin.buffer if path is None else path.open("rb")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    with file:
        if _endless(file):
            raise InputError(
                f"{path or 'standard input'} is a device, not a log",
                hint="give what was read from it: a file or a pipe",
            )
        try:
            if arguments.follow:
                told = _followed(file, Replay(knowledge=knowledge, ready=ready))
            else:
                told = explain(chunks(file), knowledge=knowledge, ready=ready)
        except (OSError, zlib.error) as error:
            raise InputError(f"{arguments.log} cannot be read: {error}") from error
    print_json(told.to_json()) if arguments.json else _show(told)
    return told.verdict.exit_status


def _regex(text: str | None) -> re.Pattern[str] | None:
    try:
        return None if text is None else re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise InputError(f"--ready {printable(str(text))} is no regular expression: {error}") from error


def _knowledge(image: Path) -> Knowledge:
    from vmtests.host import tools
    from vmtests.image.inspect import inspect

    found = inspect(image, None, tools.find())
    return Knowledge(found.contract, found)


def _log(path: Path) -> Path:
    if path.is_dir():
        for pattern in ("*console.log", "*/*console.log"):
            if logs := [log for log in path.glob(pattern) if log.is_file()]:
                return max(logs, key=lambda log: log.stat().st_mtime)
        raise InputError(f"{path} has no console.log", hint="name a log, or a directory of results")
    if not path.exists():
        raise InputError(f"there is no {path}")
    return path


def _endless(file: BinaryIO) -> bool:
    """Whether a file is a device, of which nothing has to end, and no terminal, as a serial line is one."""
    try:
        mode = os.fstat(file.fileno()).st_mode
    except OSError:  # it is no file of the system's
        return False
    return stat.S_ISBLK(mode) or (stat.S_ISCHR(mode) and not file.isatty())


def chunks(file: BinaryIO) -> Iterator[bytes]:
    """Yield a log's bytes, unpacked where they are packed, as UTF-8, and tell on standard error how far that is."""
    total, since = 0, time.monotonic()
    for data in _unpacked(file):
        yield data
        total += len(data)
        if time.monotonic() - since > 2:
            since = time.monotonic()
            progress.stderr().print(Text(f"{total >> 20} MiB read"))


def _unpacked(file: BinaryIO) -> Iterator[bytes]:
    first = file.read(CHUNK)
    if first.startswith(_EXPORT):
        yield journal.as_console(itertools.chain((first,), iter(partial(file.read, CHUNK), b"")))
        return
    if first.lstrip()[:1] == b"{" and not _JSON_LINES.match(first):
        first += file.read(max(_ANSWER - len(first), 0))
        if (answer := _answered(first)) is not None:
            yield answer
            return
    unpack = zlib.decompressobj(wbits=31) if first.startswith(_GZIP) else None
    encoding = next((name for bom, name in _UTF16.items() if first.startswith(bom)), None)
    if encoding is None and unpack is None and first[1:200:2].count(0) > 90 * len(first[:200]) // 200:
        encoding = "utf-16-le"
    decoder = codecs.getincrementaldecoder(encoding)("replace") if encoding else None
    data = first
    while data:
        if unpack is not None:
            while data:
                if unpack.eof:  # a log that was appended to has a member for each time
                    if not data.startswith(_GZIP[: len(data)]):
                        return  # gzip(1) leaves out what is behind the last one
                    unpack = zlib.decompressobj(wbits=31)
                yield unpack.decompress(data, CHUNK)  # a small file can hold terabytes
                data = unpack.unconsumed_tail or unpack.unused_data
        else:
            yield decoder.decode(data).encode("utf-8", "replace") if decoder else data
        data = file.read(CHUNK)


def _answered(data: bytes) -> bytes | None:
    """Return the console in a cloud's answer (EC2, Compute Engine, OpenStack); None of anything else.

    That is one JSON object, in which all of the console is one string.
    """
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        return None
    texts = [value for value in answer.values() if isinstance(value, str) and "\n" in value]
    return max(texts, key=len).encode("utf-8", "replace") if texts else None


def _followed(file: BinaryIO, replay: Replay) -> Explanation:
    """Read a log that grows until the boot is decided, as it would be live; Ctrl-C ends it where it is."""
    begin = time.monotonic()
    try:
        while True:
            data = file.read1(CHUNK) if isinstance(file, BufferedReader) else file.read(CHUNK)
            replay.feed(data)
            if (told := replay.decided(time.monotonic() - begin)) is not None:
                return told
            if not data:
                time.sleep(_POLL)
    except KeyboardInterrupt:
        return replay.finish()


def _show(told: Explanation) -> None:
    console = progress.console()
    verdict = told.verdict
    for number, before in enumerate(told.earlier, told.boots - len(told.earlier)):
        console.print(Text(f"boot {number}: {before.word}: {before.sentence}", "dim"), soft_wrap=True)
    stage = None
    for line in told.lines:
        name = "" if line.stage is stage else str(line.stage)
        stage = line.stage
        console.print(Text(f"{name:<12} {printable(line.text)}"), soft_wrap=True)
    console.print(Text(f"{verdict.word}: {verdict.sentence}", _WORDS[verdict.word]), soft_wrap=True)
    for evidence in verdict.evidence:
        style = "dim" if evidence.context else ""
        console.print(Text(f"  {evidence.t:.2f} {evidence.source}: {evidence.text}", style), soft_wrap=True)
    if verdict.hint:
        console.print(Text(f"hint: {verdict.hint}"), soft_wrap=True)
